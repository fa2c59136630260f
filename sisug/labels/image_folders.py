"""A folder of image files listed: what counts as an image, and what lies beside them (data and synthesis)."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from sisug.errors import DataError, check_local
from sisug.labels.opening import FORMATS

EXAMPLES = 5
"""Names that a report keeps of each kind."""


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
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in _suffixes()


def _suffix(name: str) -> str:
    return printable(Path(name).suffix.lower()) or "without suffix"


def printable(name: str) -> str:
    """A file name as text that can be written anywhere: names are bytes, and need not be valid UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()
