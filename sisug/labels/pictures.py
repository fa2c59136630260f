"""Pictures that users bring as conditions, as files or in memory: checked and turned upright before they are read."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from sisug.errors import DataError, SisugError
from sisug.labels.opening import MOST_DRAWN, check_pixels, opened_picture

logger = logging.getLogger(__name__)

READABLE_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
"""Pillow's colour models of 8 bits whose values are what a paint program shows."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation, which phones write into photos. (`ImageOps.exif_transpose` also rewrites the EXIF
block; damaged ones fail.)"""


@dataclass(frozen=True)
class Picture:
    """A decoded, upright picture.

    Args:
        name: what messages call it, such as its file's path.
        image: its pixels in their own color model.
        deep: whether it was stored with more than 8 bits per channel (Pillow cuts color to 8).
        warnings: what `warn` was told about it.
    """

    name: str
    image: Image.Image
    deep: bool = False
    warnings: list[str] = field(default_factory=list)

    def refuse(self, found: str, cause: str, remedy: str) -> DataError:
        """An error about this picture.

        Args:
            found: what is the case, as the end of a sentence that begins with the name.
            cause: why that cannot work.
            remedy: what to do about it.
        """
        return DataError(f"{self.name} {found}", cause, remedy)

    def warn(self, found: str) -> None:
        """Say what is allowed but rarely meant, to the log and to whoever reads `warnings`.

        Args:
            found: what is the case, as a sentence of its own.
        """
        self.warnings.append(f"{self.name}: {found}")
        logger.warning("%s: %s", self.name, found)


def read_picture(path: Path, *, square: bool = True) -> Picture:
    """Open a picture's file and decode it wholly.

    Args:
        path: a file of any format that Pillow reads.
        square: whether it has to be square, see `picture_of`.

    Raises:
        DataError: missing, unreadable, too large, animated or not square.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file", "a condition is read from a picture", "check the path")
    with _decoding(str(path)), opened_picture(path, MOST_DRAWN) as image:
        return picture_of(image, str(path), square=square)


def picture_of(image: Image.Image, name: str, *, square: bool = True) -> Picture:
    """A picture in memory, decoded and turned upright.

    Square within one pixel is taken as square. Our choice: other shapes are refused unless the caller crops, since both
    cropping and padding would change the layout that the user drew.

    Args:
        image: of Pillow; it is left as it is.
        name: what messages call it.
        square: whether it has to be square.

    Raises:
        DataError: undecodable, animated or not square.
    """
    with _decoding(name):
        check_pixels(image, name, MOST_DRAWN)
        frames = getattr(image, "n_frames", 1)
        # 16-bit color is cut to 8 by Pillow's decoder; only its name for the raw bytes tells. (BGR;16 has 5-6-5.)
        raw = " ".join(str(tile[3]) for tile in getattr(image, "tile", []))
        deep = re.search(r"(?<!BGR);16", raw) is not None or image.mode.startswith("I") or image.mode == "F"
        image.load()
        upright = image.copy()
        orientation = _orientation(image)
        if orientation in TURNS:
            upright = image.transpose(TURNS[orientation])
    picture = Picture(name, upright, deep)
    if frames > 1 and image.format != "MPO":  # phones add a thumbnail to photos as a second frame
        raise picture.refuse(f"has {frames} frames", "a condition is one picture", "save one frame as PNG")
    if square and abs(upright.width - upright.height) > 1:
        raise picture.refuse(
            f"has {upright.width}x{upright.height} pixels",
            "the generator's images are square, and cropping or padding would change the layout",
            "crop or extend the picture to a square",
        )
    return picture


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """What Pillow raises, as errors of the house."""
    try:
        yield
    except SisugError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name} is not a picture", "it has none of the formats that are read", "save it as PNG"
        ) from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} is too large", str(error), "make it smaller") from error
    except Exception as error:  # decoders raise a dozen kinds for damaged files
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise DataError(f"{name} cannot be read", f"the file is damaged: {reason}", "save it again") from error


def check_mode(picture: Picture, also: tuple[str, ...] = ()) -> None:
    """Refuse colour models whose values mean something else than what is seen.

    Args:
        picture: a file's content.
        also: further modes of Pillow that the caller reads.

    Raises:
        DataError: naming the mode found.
    """
    if picture.image.mode not in (*READABLE_MODES, *also):
        raise picture.refuse(
            f"has the colour model {picture.image.mode}",
            "its numbers do not say what is seen on screen; those of grey, palette, RGB and RGBA pictures do",
            "convert it to RGB or grey with 8 bits a channel, and save it as PNG",
        )


def rgba(picture: Picture) -> np.ndarray:
    """Colours and opacity of every pixel, uint8 (height, width, 4); a palette is looked up.

    Args:
        picture: of one of ``READABLE_MODES``.
    """
    return np.asarray(picture.image.convert("RGBA"))


def palette_colours(picture: Picture) -> np.ndarray:
    """Colours and opacity that the numbers of a palette picture stand for, uint8 (256, 4).

    Args:
        picture: of the mode "P".
    """
    numbers = picture.image.crop((0, 0, 256, 1))  # keeps palette and transparency
    numbers.putdata(range(256))
    return np.asarray(numbers.convert("RGBA"))[0]


def centre(values: np.ndarray) -> np.ndarray:
    """The largest centred square.

    Args:
        values: (height, width).
    """
    side = min(values.shape)
    top, left = ((length - side) // 2 for length in values.shape)
    return values[top : top + side, left : left + side]


def nearest(values: np.ndarray, size: int) -> np.ndarray:
    """Resize by taking the pixel at each new pixel's centre: no value is made up.

    Args:
        values: (height, width).
        size: new height and width, pixels.
    """
    rows, columns = (((np.arange(size) + 0.5) * length / size).astype(int) for length in values.shape)
    return values[rows[:, None], columns]


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block says nothing about the image itself
        return 1
