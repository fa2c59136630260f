"""Picture files opened for decoding (every stage): formats that are named, and no more pixels than are needed."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from sisug.errors import DataError

FORMATS = (
    "AVIF", "BMP", "DDS", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "MSP", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI",
    "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM",
)  # fmt: skip
"""Of Pillow's formats those that are read. Others start programs (EPS has Ghostscript run it), hold pictures of further
sizes than they say (ICO, ICNS), or are none that people draw or photograph in."""

MOST_PIXELS = 1 << 26
"""Of a picture that is decoded: 8192 x 8192, more than the cameras of phones have. Our choice: generators make images
of 1024 x 1024, and a file of 20 kB can ask for gigabytes."""

MOST_DRAWN = 1 << 24
"""Of a drawing: 4096 x 4096. Our choice: sixteen pixels for each of the generator's."""

MOST_TEXT = 1 << 16
"""Bytes of a PNG's text that are read along with its pixels; larger ones are metadata of paint programs."""

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # our limit is lower, and says so itself

PNG = b"\x89PNG\r\n\x1a\n"
TEXTS = (b"tEXt", b"zTXt", b"iTXt")


@contextmanager
def opened_picture(path: Path, most: int = MOST_PIXELS) -> Iterator[Image.Image]:
    """A picture file, opened and not yet decoded.

    Args:
        path: of one of ``FORMATS``, whatever its name ends with.
        most: pixels.

    Raises:
        DataError: it has more pixels.
        OSError: it cannot be opened; Pillow's errors are of this kind.
    """
    with path.open("rb") as file:
        source = _without_large_texts(file) or file
        with Image.open(source, formats=_readable()) as image:
            check_pixels(image, str(path), most)
            yield image


@cache
def _readable() -> tuple[str, ...]:
    """The formats that this Pillow can open by name; an MPO is opened as the JPEG that it begins with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def check_pixels(image: Image.Image, name: str, most: int = MOST_PIXELS) -> None:
    """Refuse a picture that would take too much memory, before it is decoded.

    Args:
        image: opened, not yet decoded.
        name: what messages call it.
        most: pixels.

    Raises:
        DataError: it has more.
    """
    if image.width * image.height > most:
        side = round(most**0.5)
        raise DataError(
            f"{name} has {image.width}x{image.height} pixels",
            f"at most {most:,} are read ({side}x{side}), which is more than any generator's images have",
            "make it smaller",
        )


def _without_large_texts(file: BinaryIO) -> io.BytesIO | None:
    """A copy of a PNG without texts that Pillow would refuse it for; None where there is none, or it is no PNG.

    Pillow unpacks texts before it shows a pixel, and refuses the picture where they are large.
    """
    if file.read(len(PNG)) != PNG:
        file.seek(0)
        return None
    kept: list[tuple[int, int]] = []
    at, dropped = len(PNG), False
    while len(header := file.read(8)) == 8:
        size = 12 + int.from_bytes(header[:4], "big")
        compressed = header[4:] == b"zTXt" or (header[4:] == b"iTXt" and _is_compressed(file.read(90)))
        if header[4:] in TEXTS and (size > MOST_TEXT or compressed):
            dropped = True
        else:
            kept.append((at, size))
        at += size
        file.seek(at)
    file.seek(0)
    if not dropped:
        return None
    content = io.BytesIO()
    content.write(file.read(len(PNG)))
    for start, size in kept:
        file.seek(start)
        content.write(file.read(size))
    content.seek(0)
    return content


def _is_compressed(start: bytes) -> bool:
    """Whether an international text is, by the flag after its keyword."""
    end = start.find(b"\0")
    return start[end + 1 : end + 2] != b"\0"
