"""A folder of images listed and checked before anything trains on it (data of generator training)."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sisug.errors import ConfigError, DataError
from sisug.labels.image_files import Colour, Examined, examine
from sisug.labels.image_folders import EXAMPLES, ImageFile, list_images, others_text, printable

logger = logging.getLogger(__name__)

WHITE: Colour = (255, 255, 255)
"""What lies behind transparent parts unless another colour is asked for."""


PROGRESS_EVERY = 10.0
"""Seconds between two lines of progress in the log."""


_MEANINGS: dict[str, str] = {
    "unreadable": "unreadable",
    "too small": "smaller than {resolution} px",
    "grey": "grey, converted to RGB",
    "palette": "palette, converted to RGB",
    "CMYK": "CMYK, converted to RGB",
    "other model": "another colour model (YCbCr, Lab or the like), converted to RGB",
    "transparent": "with transparency, laid on the background {background}",
    "16 bit": "16 bits a channel, scaled to 8",
    "animated": "animated or of several pages, the first frame taken",
    "turned": "turned upright as their EXIF orientation says",
    "profile": "colour profile converted to sRGB",
    "bad profile": "colour profile that cannot be used, ignored",
    "cropped": "not square, cropped to the central square",
}
"""What a report says of each kind, problems first."""

_PROBLEMS = ("unreadable", "too small")


@dataclass
class Group:
    """Images of one kind.

    Args:
        count: how many.
        examples: names of the first few.
    """

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """Count one image."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)

    def __str__(self) -> str:
        more = self.count - len(self.examples)
        return ", ".join(self.examples) + (f" and {more:,} more" if more else "")


@dataclass
class FolderReport:
    """What a folder holds, and what had to be done to its images.

    Args:
        folder: the folder's own name.
        resolution: wanted height and width in pixels.
        background: colour behind transparent parts.
        found: image files.
        groups: problems and changes by kind; an image can be in several.
        others: numbers of files by suffix that are no images.
    """

    folder: str
    resolution: int
    background: Colour
    found: int = 0
    groups: dict[str, Group] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)

    @property
    def left_out(self) -> int:
        """Images that cannot be used."""
        return sum(self.groups[kind].count for kind in _PROBLEMS if kind in self.groups)

    @property
    def usable(self) -> int:
        """Images that can be used."""
        return self.found - self.left_out

    def add(self, name: str, examined: Examined) -> None:
        """Count one image."""
        self.found += 1
        shown = printable(name)
        if examined.problem is not None:
            self.groups.setdefault(examined.problem, Group()).add(f"{shown} ({examined.detail})")
        for change in examined.changes:
            self.groups.setdefault(change, Group()).add(shown)

    def problems(self) -> str:
        """The unusable images in one line; empty where all are good."""
        return "; ".join(line for kind, line in self._lines() if kind in _PROBLEMS)

    def text(self) -> str:
        """The whole report, a line a kind."""
        head = f"{printable(self.folder)}: {self.usable:,} of {self.found:,} images usable at {self.resolution} px"
        lines = [head, *(f"  {line}" for _, line in self._lines())]
        if self.others:
            lines.append(f"  {others_text(self.others)} left aside")
        return "\n".join(lines)

    def _lines(self) -> Iterator[tuple[str, str]]:
        colour = f"rgb{self.background}"
        for kind, meaning in _MEANINGS.items():
            if kind in self.groups:
                said = meaning.format(resolution=self.resolution, background=colour)
                yield kind, f"{self.groups[kind].count:,} {said}: {self.groups[kind]}"

    def check(self, folder: Path, skip_bad: bool) -> None:
        """Refuse a folder with unusable images, unless they are to be left out; and one without any usable.

        Args:
            folder: for the message.
            skip_bad: leave out what cannot be used.

        Raises:
            DataError: names counts and examples.
        """
        if self.left_out and (not skip_bad or not self.usable):
            remedy = "replace or delete them, or choose a lower resolution for small ones"
            if self.usable:
                remedy += f"; or train on the other {self.usable:,} with skip_bad: true"
            raise DataError(
                f"{self.left_out:,} of {self.found:,} images in {printable(str(folder))} cannot be used: "
                f"{self.problems()}",
                f"training needs whole images of at least {self.resolution}x{self.resolution} pixels",
                remedy,
            )

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FolderReport:
        """The inverse of `to_dict`."""
        red, green, blue = values["background"]
        groups = {kind: Group(**group) for kind, group in values["groups"].items()}
        return cls(**{**values, "background": (red, green, blue), "groups": groups})


def scan_folder(folder: Path, resolution: int, background: Colour = WHITE) -> FolderReport:
    """Check every image of a folder, without keeping anything.

    Args:
        folder: where the images lie; folders in it count.
        resolution: wanted height and width in pixels.
        background: colour behind transparent parts, as the report names it.

    Raises:
        DataError: it is missing, a file, or holds no image. Unusable images are in the report.
        ConfigError: a resolution or colour out of range.
    """
    check_form(resolution, background)
    files, others = list_images(folder)
    report = FolderReport(folder.resolve().name, resolution, background, others=others)
    examine_all(folder, files, resolution, background, lambda file, examined: report.add(file.name, examined))
    return report


def examine_all(
    folder: Path,
    files: list[ImageFile],
    resolution: int,
    background: Colour,
    use: Callable[[ImageFile, Examined], None],
) -> None:
    """Examine files on all cores and hand them on in their order.

    Threads, for Pillow lets go of Python's lock while it decodes and resizes: no process has to be started, which
    is safe in data-parallel ranks, in scripts without a main guard and on every platform.

    Args:
        folder: where the images lie.
        files: which.
        resolution: height and width of the results in pixels.
        background: colour behind transparent parts.
        use: called in this thread with each file and what became of it.
    """
    threads = len(os.sched_getaffinity(0))
    start = said = time.monotonic()
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        # Pillow's remarks on odd metadata; what matters is in the report.
        warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
        waiting: deque[tuple[ImageFile, Future[Examined]]] = deque()
        todo = iter(files)
        for done in range(len(files)):
            while len(waiting) < 4 * threads and (file := next(todo, None)) is not None:  # a bound on memory
                waiting.append((file, pool.submit(examine, folder / file.name, resolution, background)))
            file, future = waiting.popleft()
            use(file, future.result())
            if (now := time.monotonic()) - said > PROGRESS_EVERY:
                said = now
                speed = (done + 1) / (now - start)
                logger.info("%s of %s images checked, %.0f a second", f"{done + 1:,}", f"{len(files):,}", speed)


def check_form(resolution: int, background: Colour) -> None:
    """Refuse a size or a colour that no image can have.

    Args:
        resolution: height and width in pixels, 4 to 4096.
        background: red, green and blue, 0 to 255.

    Raises:
        ConfigError: a value out of range.
    """
    if not 4 <= resolution <= 4096:
        raise ConfigError(f"resolution {resolution}", "it must be 4 to 4096 pixels", "use the generator's resolution")
    if not all(0 <= channel <= 255 for channel in background):
        raise ConfigError(
            f"background {background}", "red, green and blue are 0 to 255", "use such values, [255, 255, 255] for white"
        )
