"""One image with its mask, decoded and brought to size (data of stage 2 and of evaluation)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from sisug.conditions.pictures import nearest
from sisug.data.images.examine import Colour, examine
from sisug.data.images.scan import WHITE
from sisug.data.masks.pairs import Pairs
from sisug.errors import DataError

SQUARE = "crop or extend the picture to a square, and its partner in the same way"


def read_pair(
    pairs: Pairs, name: str, resolution: int | None, background: Colour = WHITE
) -> tuple[np.ndarray, np.ndarray]:
    """An image as uint8 (3, height, width) and its mask as uint8 (height, width), of one size.

    The image is resized by Lanczos' filter, the mask by nearest neighbour.

    Args:
        pairs: where they lie.
        name: which.
        resolution: height and width in pixels; None for the mask's own.
        background: colour behind transparent parts of the image.

    Raises:
        DataError: one of them cannot be read, is not square, or the image is smaller than the resolution.
    """
    mask = pairs.mask(name)
    size = min(mask.shape) if resolution is None else resolution
    path = pairs.image(name)
    found = examine(path, size, background)
    if found.problem is not None or found.pixels is None:
        raise DataError(
            f"{path} cannot be used: {found.problem} ({found.detail})",
            f"a whole image of at least {size}x{size} pixels is needed",
            "replace it, or choose a lower resolution for small ones",
        )
    if "cropped" in found.changes:
        check_square(path, header_size(path))
    return found.pixels, nearest(mask, size).astype(np.uint8)


def header_size(path: Path) -> tuple[int, int] | None:
    """Width and height as the file's header says; None where it has none. Nothing is decoded.

    Args:
        path: a picture file.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except Exception:  # not a picture, or a damaged header: whoever decodes it says what is wrong
        return None


def check_square(path: Path, size: tuple[int, int] | None) -> None:
    """Refuse a picture that is not square within one pixel: its crop would not be that of its partner.

    Args:
        path: for the message.
        size: its width and height; None passes.

    Raises:
        DataError: names the size.
    """
    if size is not None and abs(size[0] - size[1]) > 1:
        raise DataError(
            f"{path} has {size[0]}x{size[1]} pixels",
            "generators make square images, and masks are not cropped since that would change the layout",
            SQUARE,
        )
