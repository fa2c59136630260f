"""Pictures from strangers (demo): whatever bytes come, a small upright square or a sentence, at bounded cost."""

from __future__ import annotations

import threading
from io import BytesIO

from PIL import ExifTags, Image, UnidentifiedImageError

from sisug.errors import DataError
from sisug.labels.pictures import TURNS

MOST_BYTES = 12 * 2**20
"""Of one upload; photos of phones have 2 to 8 MiB."""

MOST_PIXELS = 26_000_000
"""Of one upload; decoding more takes more than a second."""

LARGEST = 1024
"""Height and width that are kept, pixels."""

MOST_SCANS = 40
"""Of a JPEG; encoders write about ten, and each costs a walk over the whole picture."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""Decoders that strangers reach: few, and none that calls another program."""

NAME = "your picture"

_REMEDY = "save it as PNG or JPEG, and try again"

_one_at_a_time = threading.Lock()
"""Two decoders at work would take twice the memory."""


def read_upload(content: bytes, *, exact: bool) -> Image.Image:
    """A picture of any size as an upright square of at most ``LARGEST`` pixels a side: the middle of it.

    Args:
        content: of the file.
        exact: whether values are kept as they are when it is made smaller (masks), rather than averaged (photos).

    Raises:
        DataError: it is no picture, damaged, or too large.
    """
    if not content:
        raise DataError(f"{NAME} is empty", "no byte of it arrived", "choose another file")
    if len(content) > MOST_BYTES:
        raise too_large(len(content))
    if content.startswith(b"\xff\xd8") and content.count(b"\xff\xda") > MOST_SCANS:
        raise DataError(f"{NAME} has more than {MOST_SCANS} scans", "no camera writes such a file", _REMEDY)
    with _one_at_a_time:
        try:
            with Image.open(BytesIO(content), formats=FORMATS) as image:
                return _small(image, exact)
        except DataError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise _too_many_pixels() from error
        except UnidentifiedImageError as error:
            raise DataError(
                f"{NAME} is no picture that this page reads", "PNG, JPEG, WebP and BMP are", _REMEDY
            ) from error
        except Exception as error:  # decoders raise a dozen kinds for damaged files
            raise DataError(
                f"{NAME} cannot be read", "the file is damaged", "save it again, or choose another"
            ) from error


def too_large(size: int | None = None) -> DataError:
    """What is said about files above ``MOST_BYTES``.

    Args:
        size: bytes, where they are known.
    """
    state = f"{NAME} is too large" if size is None else f"{NAME} has {size / 2**20:.0f} MB"
    return DataError(state, f"at most {MOST_BYTES // 2**20} MB are read", "make it smaller, and try again")


def _too_many_pixels() -> DataError:
    cause = f"at most {MOST_PIXELS // 1_000_000} million are read"
    return DataError(f"{NAME} has too many pixels", cause, "make it smaller, and try again")


def _small(image: Image.Image, exact: bool) -> Image.Image:
    if image.width * image.height > MOST_PIXELS:
        raise _too_many_pixels()
    orientation = _orientation(image)
    if not exact:
        image.draft(image.mode, (LARGEST, LARGEST))  # a JPEG is decoded at a fraction of its size
    image.load()
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    if side > LARGEST:
        # Numbers of a palette, and gray of 16 bits, cannot be averaged by Pillow.
        smooth = not exact and image.mode in ("L", "LA", "RGB", "RGBA", "CMYK")
        square = square.resize((LARGEST, LARGEST), Image.Resampling.BOX if smooth else Image.Resampling.NEAREST)
    if orientation in TURNS:
        square = square.transpose(TURNS[orientation])
    # What came along (text, thumbnails, the place where a photo was taken) goes no further; these say what colors are.
    square.info = {name: image.info[name] for name in ("icc_profile", "transparency") if name in image.info}
    return square


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block says nothing about the picture
        return 1
