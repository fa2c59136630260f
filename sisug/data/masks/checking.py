"""What a set of images and masks holds, and what is wrong with it, before anything trains on it (data)."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from sisug.data.images.scan import PROGRESS_EVERY, WHITE, check_form
from sisug.data.masks.pairs import Pairs, Problems
from sisug.data.masks.reading import check_same_shape, check_square, header_size
from sisug.errors import DataError
from sisug.labels.image_files import examine
from sisug.labels.label_sets import LabelSet
from sisug.labels.pictures import centre

logger = logging.getLogger(__name__)

SIZES = 5
"""Sizes that a report names."""


@dataclass
class MaskReport:
    """What was found.

    Args:
        name: of the folder.
        labels: label set that the masks were read in.
        pairs: images with a mask.
        read: masks that could be read.
        pixels: of each class, over all masks.
        images_with: number of masks that have each class.
        ignored: pixels without a label.
        image_sizes: number of images by "width x height".
        mask_sizes: the same of masks.
        cropped: masks of which only the centre is used, and was counted.
        problems: everything that is wrong.
    """

    name: str
    labels: LabelSet
    pairs: int
    read: int = 0
    pixels: Int64[np.ndarray, " class"] = field(default_factory=lambda: np.zeros(0, np.int64))
    images_with: Int64[np.ndarray, " class"] = field(default_factory=lambda: np.zeros(0, np.int64))
    ignored: int = 0
    image_sizes: Counter[str] = field(default_factory=Counter)
    mask_sizes: Counter[str] = field(default_factory=Counter)
    cropped: int = 0
    problems: Problems = field(default_factory=Problems)

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that no mask has."""
        return tuple(name for name, count in zip(self.labels.classes, self.images_with, strict=True) if not count)

    def text(self) -> str:
        """The whole report: counts, sizes, classes, problems."""
        labelled = int(self.pixels.sum())
        lines = [
            f"{self.name}: {self.pairs:,} images with masks, label set {self.labels.name!r}",
            f"  image sizes: {_sizes(self.image_sizes)}",
            f"  mask sizes: {_sizes(self.mask_sizes)}",
        ]
        if self.cropped:
            lines.append(f"  {self.cropped:,} are not square: what follows is counted in their centres")
        if self.read:
            width = max(len(name) for name in (*self.labels.classes, "without a label"))
            lines += ["", f"  {'':<{width + 5}}  pixels   images"]
            for number, name in enumerate(self.labels.classes):
                share = self.pixels[number] / max(labelled, 1)
                lines.append(f"  {number:>3}  {name:<{width}}  {share:>6.2%}  {self.images_with[number]:>7,}")
            blank = self.ignored / max(labelled + self.ignored, 1)
            lines.append(f"  {self.labels.ignore:>3}  {'without a label':<{width}}  {blank:>6.2%}")
            if self.absent:
                lines += ["", f"  No mask has: {', '.join(self.absent)}"]
        if self.problems.count:
            lines += ["", f"{self.problems.count:,} problems", *(f"  {line}" for line in self.problems.lines())]
        else:
            lines += ["", "No problems"]
        return "\n".join(lines)


@dataclass
class _Found:
    """What one image and its mask show."""

    image_size: tuple[int, int] | None
    mask_size: tuple[int, int] | None = None
    pixels: np.ndarray | None = None
    ignored: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)


def check_pairs(pairs: Pairs, resolution: int | None = None) -> MaskReport:
    """Decode every image and every mask, and count.

    Args:
        pairs: listed files.
        resolution: height and width that the images will be used at, pixels: smaller ones are a problem. None for any.

    Raises:
        ConfigError: a resolution out of range.
    """
    if resolution is not None:
        check_form(resolution, WHITE)
    classes = pairs.labels.num_classes
    report = MaskReport(
        pairs.folder.resolve().name,
        pairs.labels,
        len(pairs.names),
        pixels=np.zeros(classes, np.int64),
        images_with=np.zeros(classes, np.int64),
        problems=pairs.problems,
    )
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    start = said = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        todo = iter(pairs.names)
        waiting: deque[Future[_Found]] = deque()
        for done in range(len(pairs.names)):
            for name in islice(todo, 4 * threads - len(waiting)):
                waiting.append(pool.submit(_look, pairs, name, resolution))
            _count(report, waiting.popleft().result())
            if (now := time.monotonic()) - said > PROGRESS_EVERY:
                said = now
                speed = (done + 1) / (now - start)
                logger.info("%s of %s masks, %.0f a second", f"{done + 1:,}", f"{len(pairs.names):,}", speed)
    return report


def _look(pairs: Pairs, name: str, resolution: int | None) -> _Found:
    path = pairs.image(name)
    found = _Found(header_size(path))
    image = examine(path, resolution or 4, WHITE)
    if image.problem is not None:
        found.problems.append((f"images {image.problem}", f"{_below(pairs, path)} ({image.detail})"))
    if pairs.crop == "none":
        try:
            check_square(path, found.image_size)
        except DataError:
            assert found.image_size is not None
            found.problems.append(("images not square", f"{_below(pairs, path)} ({_size(found.image_size)})"))
    try:
        mask = pairs.mask(name)
    except DataError as error:
        # The state begins with the path of the machine, which is long and the same for all.
        found.problems.append(("masks that cannot be used", error.state.replace(f"{pairs.folder}{os.sep}", "")))
        return found
    found.mask_size = (mask.shape[1], mask.shape[0])
    if pairs.crop == "centre":
        try:
            check_same_shape(name, found.image_size, found.mask_size)
        except DataError as error:
            found.problems.append(("images and masks of different shapes", error.state))
        mask = centre(mask)
    counts = np.bincount(mask.reshape(-1), minlength=256)
    found.pixels = counts[: pairs.labels.num_classes]
    found.ignored = int(counts[pairs.labels.ignore])
    if not found.pixels.any():
        found.problems.append(("masks without any label", name))
    return found


def _count(report: MaskReport, found: _Found) -> None:
    if found.image_size is not None:
        report.image_sizes[_size(found.image_size)] += 1
    for kind, example in found.problems:
        report.problems.add(kind, example)
    if found.pixels is not None and found.mask_size is not None:
        report.read += 1
        report.mask_sizes[_size(found.mask_size)] += 1
        report.cropped += abs(found.mask_size[0] - found.mask_size[1]) > 1
        report.pixels += found.pixels
        report.images_with += found.pixels > 0
        report.ignored += found.ignored


def _below(pairs: Pairs, path: Path) -> str:
    return path.relative_to(pairs.folder).as_posix().encode("utf-8", "backslashreplace").decode()


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _sizes(counts: Counter[str]) -> str:
    listed = ", ".join(f"{size} ({count:,})" for size, count in counts.most_common(SIZES))
    return (listed or "none") + (f" and {len(counts) - SIZES} more" if len(counts) > SIZES else "")
