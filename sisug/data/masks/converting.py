"""Data sets written anew as clean trees: images and index masks of one size, in a form that reads fast (data)."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from sisug.common.atomic_file import atomic_write
from sisug.data.images.scan import PROGRESS_EVERY, WHITE, check_form
from sisug.data.masks.celebamask import CelebAMaskPairs
from sisug.data.masks.conversion_record import (
    LOCK,
    SOURCES,
    Settings,
    begin,
    check_target,
    compact_sources,
    finish,
    read_sources,
    source_key,
)
from sisug.data.masks.folder import LABELS, FolderPairs
from sisug.data.masks.layouts import Layout, open_pairs
from sisug.data.masks.pairs import Crop, Pairs, Problems, check_pairing
from sisug.data.masks.reading import header_size, read_pair
from sisug.data.masks.splits import SPLITS, check_disjoint, check_known, read_names
from sisug.errors import ConfigError, DataError, RunError
from sisug.labels.image_files import VERSION, Colour, examine
from sisug.labels.image_folders import ImageFile, list_images
from sisug.labels.mask_files import READING, mask_picture

logger = logging.getLogger(__name__)

SPLIT_NAMES = ("train", "val", "test")

COMPRESSION = 1
"""Of the PNG files: a quarter of the time of Pillow's 6, for a sixth more bytes."""


@dataclass(frozen=True)
class Converted:
    """What a conversion did.

    Args:
        images: in the tree now.
        written: by this call; the others were there already.
        problems: what was left out.
        strangers: images in the tree that the source does not have (any more).
        splits: number of names in each list.
    """

    images: int
    written: int
    problems: Problems
    strangers: list[str]
    splits: dict[str, int]


def convert(
    folder: str | Path,
    out: str | Path,
    layout: Layout,
    resolution: int | None = None,
    labels: str | None = None,
    tolerance: int = 0,
    skip_bad: bool = False,
    background: Colour = WHITE,
    crop: Crop = "none",
) -> Converted:
    """Write `images/NAME.png`, `masks/NAME.png`, `labels.json`, `splits/` and `conversion.json`.

    The source is only read. Each file appears whole or not at all, its mask after its image; a call with the same
    arguments goes on where an earlier one stopped, and writes again what has other content in the source since:
    `.sources.jsonl` says of which content each image was made. Masks are written as palette pictures whose numbers and
    colours both are those of the label set.

    Args:
        folder: the source.
        out: new, empty, or a tree of the same conversion.
        layout: of the source.
        resolution: height and width in pixels; None for each mask's own (for images only: the central square's).
        labels: name of a label set, or its JSON file; None for the source's own.
        tolerance: of colours in masks, 0 to 255.
        skip_bad: leave out what cannot be used, instead of refusing the source.
        background: colour behind transparent parts of images.
        crop: "centre" takes the largest centred square of images and masks that are not square; "none" refuses them.
            Images without masks are always cropped.

    Raises:
        ConfigError: a value out of range, or a folder that cannot be written to.
        DataError: the source is missing, or holds what cannot be used: everything else is written before.
        RunError: another conversion is writing this tree, or the disk is full.
    """
    source, tree = Path(folder).expanduser(), Path(out).expanduser()
    check_form(4 if resolution is None else resolution, background)
    if tree.resolve() == source.resolve() or source.resolve() in tree.resolve().parents:
        raise ConfigError(f"{tree} lies within {source}", "results would be read as data", "choose another folder")
    pairs = open_pairs(source, layout, labels, tolerance, crop)
    if pairs is not None and not (skip_bad and pairs.names):
        check_pairing(pairs)
    settings = Settings(
        layout=layout,
        source=source.resolve().name,
        key=source_key(source),
        resolution=resolution,
        labels=None if pairs is None else pairs.labels.to_dict(),
        background=list(background),
        crop=crop,
    )
    check_target(tree, settings)
    tree.mkdir(parents=True, exist_ok=True)
    with _only_one(tree):
        begin(tree, settings)
        problems = Problems() if pairs is None else pairs.problems
        if pairs is None:
            files = list_images(source)[0]
            jobs, count = _image_jobs(source, files, tree, resolution, background), len(files)
        else:
            jobs, count = _pair_jobs(pairs, tree, resolution, background), len(pairs.names)
        names, written, unusable = _run(jobs, count, problems, tree)
        if pairs is not None:
            _write_json(tree / LABELS, pairs.labels.to_dict())
        splits = _write_splits(source, tree, pairs, names, unusable)
        if len(names) < count and not (skip_bad and names):
            raise DataError(
                f"{problems.count:,} problems in {source}: {'; '.join(problems.lines())}",
                f"a clean tree leaves nothing out unasked; the other {len(names):,} images are written",
                "correct the files and give the same command again, or leave them out with --skip_bad true",
            )
        compact_sources(tree)
        finish(tree, settings, {"images": len(names), "left_out": problems.count})
    there = {path.relative_to(tree / "images").with_suffix("").as_posix() for path in (tree / "images").rglob("*.png")}
    strangers = sorted(there - set(names))
    return Converted(len(names), written, problems, strangers, splits)


@dataclass(frozen=True)
class _Job:
    """One image of the tree: what it is made of, what is written, and how."""

    name: str
    sources: tuple[Path, ...]
    targets: tuple[Path, ...]
    make: Callable[[], tuple[Image.Image, ...]]

    def content(self) -> str:
        """Digest of what decides the result, apart from the conversion's settings.

        Raises:
            OSError: a source cannot be read.
        """
        found = hashlib.sha256(f"{VERSION} {READING}".encode())
        for path in self.sources:
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        return found.hexdigest()[:32]

    def run(self, made_of: str | None) -> str | None:
        """Write it, unless it is there and made of the same content.

        Args:
            made_of: the content that it was made of; None if it was not made yet.

        Returns:
            The content that it was made of now; None where nothing was written.
        """
        try:
            content = self.content()
        except OSError as error:
            raise DataError(f"{self.sources[0]} cannot be read", str(error), "check the file's permissions") from error
        if content == made_of and all(path.is_file() for path in self.targets):
            return None
        for path, picture in zip(self.targets, self.make(), strict=True):
            with atomic_write(path) as file:
                picture.save(file, format="PNG", compress_level=COMPRESSION)
        return content


def _pair_jobs(pairs: Pairs, tree: Path, resolution: int | None, background: Colour) -> Iterator[_Job]:
    for name in pairs.names:

        def make(name: str = name) -> tuple[Image.Image, ...]:
            image, mask = read_pair(pairs, name, resolution, background)
            return _picture(image), mask_picture(mask, pairs.labels)

        targets = (tree / "images" / f"{name}.png", tree / "masks" / f"{name}.png")
        yield _Job(name, pairs.sources(name), targets, make)


def _image_jobs(
    source: Path, files: list[ImageFile], tree: Path, resolution: int | None, background: Colour
) -> Iterator[_Job]:
    seen: set[str] = set()
    for file in files:
        name = str(PurePosixPath(file.name).with_suffix(""))
        while name in seen:  # 7.jpg and 7.png are two images
            name += file.name[file.name.rindex(".") :].replace(".", "_")
        seen.add(name)
        path = source / file.name

        def make(path: Path = path) -> tuple[Image.Image, ...]:
            size = resolution or min(header_size(path) or (1, 1))
            found = examine(path, size, background)
            if found.pixels is None:
                raise DataError(
                    f"{path} cannot be used: {found.problem} ({found.detail})",
                    "a whole image of at least the resolution is needed",
                    "replace it",
                )
            return (_picture(found.pixels),)

        yield _Job(name, (path,), (tree / "images" / f"{name}.png",), make)


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def _run(jobs: Iterator[_Job], count: int, problems: Problems, tree: Path) -> tuple[list[str], int, list[str]]:
    """Do what is not done, on all cores; the names of what is there now, how much of it was written, and the names of
    what cannot be used.
    """
    made = read_sources(tree)
    # Threads: Pillow lets go of Python's lock while it decodes, resizes and encodes.
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    start = said = time.monotonic()
    names: list[str] = []
    unusable: list[str] = []
    written = 0
    with ThreadPoolExecutor(threads) as pool, (tree / SOURCES).open("a", encoding="ascii") as journal:
        waiting: deque[tuple[_Job, Future[str | None]]] = deque()
        try:
            for done in range(count):
                while len(waiting) < 4 * threads and (job := next(jobs, None)) is not None:
                    waiting.append((job, pool.submit(job.run, made.get(job.name))))
                job, future = waiting.popleft()
                try:
                    content = future.result()
                    if content is not None:
                        journal.write(f"{json.dumps([job.name, content])}\n")
                        journal.flush()
                        written += 1
                    names.append(job.name)
                except DataError as error:
                    unusable.append(job.name)
                    problems.add("images that cannot be used", f"{job.name} ({error.state})")
                if (now := time.monotonic()) - said > PROGRESS_EVERY:
                    said = now
                    speed = (done + 1) / (now - start)
                    logger.info("%s of %s images, %.0f a second", f"{done + 1:,}", f"{count:,}", speed)
        except BaseException:  # what is being written is finished, the rest is not begun
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return names, written, unusable


@contextmanager
def _only_one(tree: Path) -> Iterator[None]:
    """Refuse a second conversion into the same tree; the lock ends with the process, however that ends."""
    try:
        with FileLock(tree / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise RunError(
            f"{tree} is being written", "another conversion is at work there", "wait until it is done"
        ) from error


def _write_splits(
    source: Path, tree: Path, pairs: Pairs | None, done: list[str], unusable: list[str]
) -> dict[str, int]:
    """Lists of names: the source's own, those of its folders train, val and test, or the data set's official ones.

    Raises:
        DataError: a list names what the source does not have, or two lists name the same.
    """
    lists: dict[str, list[str]] = {}
    if isinstance(pairs, CelebAMaskPairs):
        lists = pairs.splits()
    elif (source / SPLITS).is_dir():
        lists = {path.stem: read_names(path) for path in sorted((source / SPLITS).glob("*.txt"))}
        known = {*done, *unusable, *(pairs.partnerless if isinstance(pairs, FolderPairs) else ())}
        for split, listed in lists.items():
            check_known(listed, known, done, f"{SPLITS}/{split}.txt", source)
        check_disjoint({split: lists[split] for split in SPLIT_NAMES if split in lists}, source)
    elif {name.split("/")[0] for name in done} <= set(SPLIT_NAMES):
        for name in done:
            lists.setdefault(name.split("/")[0], []).append(name)
    there = set(done)
    kept = {split: [name for name in names if name in there] for split, names in lists.items()}
    for split, names in kept.items():
        if names:
            with atomic_write(tree / SPLITS / f"{split}.txt") as file:
                file.write("".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape"))
    return {split: len(names) for split, names in kept.items() if names}


def _write_json(path: Path, content: object) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
