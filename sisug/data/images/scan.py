"""A folder of images listed and checked before anything trains on it (data of generator training)."""

from __future__ import annotations

import hashlib
import logging
import os
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from sisug.errors import ConfigError, DataError, check_local
from sisug.labels.image_files import Colour, Examined, examine

logger = logging.getLogger(__name__)

WHITE: Colour = (255, 255, 255)
"""What lies behind transparent parts unless another colour is asked for."""

EXAMPLES = 5
"""Names that a report keeps of each kind."""

PROGRESS_EVERY = 10.0
"""Seconds between two lines of progress in the log."""

UNREAD_FORMATS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Known to Pillow by name, but decoded by other programs or not at all; such files often lie beside images."""

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


@dataclass(frozen=True, order=True)
class ImageFile:
    """An image file as the folder's listing shows it.

    Args:
        name: path relative to the folder, with forward slashes.
        size: bytes; -1 where the file cannot be asked.
        mtime_ns: time of its last change in nanoseconds.
    """

    name: str
    size: int
    mtime_ns: int


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
        shown = _printable(name)
        if examined.problem is not None:
            self.groups.setdefault(examined.problem, Group()).add(f"{shown} ({examined.detail})")
        for change in examined.changes:
            self.groups.setdefault(change, Group()).add(shown)

    def problems(self) -> str:
        """The unusable images in one line; empty where all are good."""
        return "; ".join(line for kind, line in self._lines() if kind in _PROBLEMS)

    def text(self) -> str:
        """The whole report, a line a kind."""
        head = f"{_printable(self.folder)}: {self.usable:,} of {self.found:,} images usable at {self.resolution} px"
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
                f"{self.left_out:,} of {self.found:,} images in {_printable(str(folder))} cannot be used: "
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


def check_folder(folder: Path) -> None:
    """Refuse what is no folder of images, at the cost of finding the first one.

    Args:
        folder: where the images are said to lie.

    Raises:
        DataError: it is missing, a file, or holds no image.
    """
    check_local(folder, "the folder of images")
    if folder.is_file():
        raise DataError(
            f"{folder} is a file",
            "images are read from a folder",
            "unpack an archive first, or give the folder that the image lies in",
        )
    if not folder.is_dir():
        raise DataError(
            f"the folder {folder} does not exist", "there is nothing of that name", "correct the path of the images"
        )
    others: Counter[str] = Counter()
    for name in _walk(folder):
        if _is_image(name):
            return
        others[_suffix(name)] += 1
    raise DataError(
        f"the folder {folder} holds no images",
        f"{others_text(others) if others else 'it is empty'}; images are told by their suffix, hidden ones left aside",
        "give a folder of .png, .jpg, .webp or other images that Pillow reads; convert others, .heic for one",
    )


def list_images(folder: Path) -> tuple[list[ImageFile], dict[str, int]]:
    """All image files below a folder, sorted by name, and the numbers of other files by suffix.

    Linked files and folders count; hidden ones and the `__MACOSX` of archives do not.

    Args:
        folder: where the images lie.

    Raises:
        DataError: it is missing, a file, holds no image, or a folder in it cannot be read.
    """
    check_folder(folder)
    files, others = [], Counter[str]()
    for name in _walk(folder):
        if _is_image(name):
            files.append(_ask(folder, name))
        else:
            others[_suffix(name)] += 1
    return sorted(files), dict(others.most_common())


def digest(files: list[ImageFile]) -> str:
    """SHA-256 of names and sizes: which images a generator was trained on.

    Args:
        files: in any order.
    """
    lines = "".join(f"{file.name}\t{file.size}\n" for file in sorted(files))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


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


def others_text(others: dict[str, int]) -> str:
    """Numbers of files that are no images, by suffix, for people.

    Args:
        others: number by suffix.
    """
    kinds = [f"{count:,} {suffix}" for suffix, count in Counter(others).most_common(EXAMPLES)]
    more = ", ..." if len(others) > EXAMPLES else ""
    return f"{sum(others.values()):,} other files ({', '.join(kinds)}{more})"


def _walk(folder: Path) -> Iterator[str]:
    """Names of all files below a folder, relative to it."""

    def refuse(error: OSError) -> None:
        raise DataError(
            f"the folder {error.filename} cannot be read",
            error.strerror or str(error),
            "make it readable, or move it out of the images' folder",
        ) from error

    seen: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above it, or a second way to the same one
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        below = Path(place).relative_to(folder)
        yield from ((below / name).as_posix() for name in names if not name.startswith("."))


def _ask(folder: Path, name: str) -> ImageFile:
    try:
        found = (folder / name).stat()
    except OSError:  # a link to nothing; reading it will say so
        return ImageFile(name, -1, 0)
    return ImageFile(name, found.st_size, found.st_mtime_ns)


@cache
def _suffixes() -> frozenset[str]:
    formats = Image.registered_extensions()
    return frozenset(s for s, name in formats.items() if name in Image.OPEN and name not in UNREAD_FORMATS)


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in _suffixes()


def _suffix(name: str) -> str:
    return _printable(Path(name).suffix.lower()) or "without suffix"


def _printable(name: str) -> str:
    """A file name as text that can be written anywhere: names are bytes, and need not be valid UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()
