"""One image with its mask, decoded and brought to size (data of stage 2 and of evaluation)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import ExifTags

from sisug.data.images.scan import WHITE
from sisug.data.masks.pairs import Pairs
from sisug.errors import DataError
from sisug.labels.image_files import Colour, examine
from sisug.labels.opening import opened_picture
from sisug.labels.pictures import centre, nearest

SQUARE = (
    "crop or extend the picture to a square, and its partner in the same way; or let `sisug data convert --crop "
    "centre` write the centres of all"
)

LYING = (5, 6, 7, 8)
"""EXIF orientations that make height of width."""


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
        DataError: one of them cannot be read, is not square or, where they are cropped, not of its partner's shape; or
            the image is smaller than the resolution.
    """
    mask = pairs.mask(name)
    if pairs.crop == "centre":
        check_same_shape(name, header_size(pairs.image(name)), (mask.shape[1], mask.shape[0]))
        mask = centre(mask)
    size = min(mask.shape) if resolution is None else resolution
    path = pairs.image(name)
    found = examine(path, size, background)
    if found.problem is not None or found.pixels is None:
        raise DataError(
            f"{path} cannot be used: {found.problem} ({found.detail})",
            f"a whole image of at least {size}x{size} pixels is needed",
            "replace it, or choose a lower resolution for small ones",
        )
    if pairs.crop == "none" and "cropped" in found.changes:
        check_square(path, header_size(path))
    return found.pixels, nearest(mask, size).astype(np.uint8)


def header_size(path: Path) -> tuple[int, int] | None:
    """Width and height, upright, as the file's header says; None where it has none. Nothing is decoded.

    Args:
        path: a picture file.
    """
    try:
        with opened_picture(path) as image:
            # Without this look, asking a PNG for its EXIF block would decode it.
            lies = "exif" in image.info and image.getexif().get(ExifTags.Base.Orientation) in LYING
            return (image.height, image.width) if lies else image.size
    except Exception:  # not a picture, or a damaged header: whoever decodes it says what is wrong
        return None


def check_shapes(pairs: Pairs, name: str) -> None:
    """Refuse an image and a mask that cannot be brought to one square, by the headers of their files.

    Args:
        pairs: where they lie.
        name: which.

    Raises:
        DataError: one is not square, or where they are cropped, not of its partner's shape.
    """
    image, *others = pairs.sources(name)
    size = header_size(image)
    if pairs.crop == "none":
        check_square(image, size)
    for path in others:
        if pairs.crop == "none":
            check_square(path, header_size(path))
        else:
            check_same_shape(name, size, header_size(path))


def check_same_shape(name: str, image: tuple[int, int] | None, mask: tuple[int, int] | None) -> None:
    """Refuse an image and a mask of different shapes: their centres would not show the same.

    Args:
        name: for the message.
        image: width and height; None passes.
        mask: the same.

    Raises:
        DataError: names both sizes.
    """
    if image is None or mask is None:
        return
    # Equal shapes make equal products; a side that was rounded to whole pixels moves one by the other picture's side.
    if abs(image[0] * mask[1] - image[1] * mask[0]) > max(*image, *mask):
        raise DataError(
            f"{name} has an image of {image[0]}x{image[1]} pixels and a mask of {mask[0]}x{mask[1]}",
            "their shapes differ, so their centres would not show the same",
            "give the mask that was made for this image",
        )


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
