"""One image file checked and brought to training form (data of generator training): what is wrong, what was changed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from sisug.errors import DataError
from sisug.labels.opening import check_pixels, opened_picture
from sisug.labels.pictures import TURNS

VERSION = 1
"""Of the code that turns a file into pixels; part of every cache's name, so raise it when pixels change."""

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

Problem = Literal["unreadable", "too small"]
"""Why an image cannot be used."""

Change = Literal[
    "grey", "palette", "CMYK", "other model", "transparent", "16 bit", "animated", "turned", "profile", "bad profile",
    "cropped",
]  # fmt: skip
"""What was done to an image beyond resizing it."""


@dataclass
class Examined:
    """What became of one image file.

    Args:
        problem: why it cannot be used; None for a good one.
        detail: the problem in a few words.
        changes: what was converted.
        pixels: uint8 (3, resolution, resolution) of a good image.
    """

    problem: Problem | None = None
    detail: str = ""
    changes: list[Change] = field(default_factory=list)
    pixels: np.ndarray | None = None


class _Unusable(Exception):
    """An image that Pillow reads, but whose values have no defined meaning."""


def examine(path: Path, resolution: int, background: Colour) -> Examined:
    """Decode a file wholly, bring it to upright square 8-bit sRGB, and resize it.

    The largest centred square is kept and resized by Lanczos' filter, which Pillow widens when it makes images
    smaller, so that nothing aliases. 16 bits are scaled (not clipped) to 8, transparent parts are laid on the
    background, the first of several frames is taken, and a colour profile other than sRGB is converted.

    Args:
        path: an image file of any format that Pillow reads.
        resolution: height and width of the result in pixels; smaller images are not enlarged but refused.
        background: what lies behind transparent parts.

    Source: our choice: the resizing of FFHQ's and StyleGAN's own data tools, without their assumptions on the input.
    """
    try:
        if path.stat().st_size == 0:
            return Examined("unreadable", "empty file")
        with opened_picture(path) as image:
            return examine_image(image, resolution, background)
    except Exception as error:
        return _unreadable(error)


def examine_image(image: Image.Image, resolution: int, background: Colour) -> Examined:
    """As `examine`, for an image in memory.

    Args:
        image: of Pillow; it is left as it is.
        resolution: see `examine`.
        background: see `examine`.
    """
    try:
        check_pixels(image, "the image")
        if min(image.size) < resolution:
            return Examined("too small", f"{image.width}x{image.height}")
        changes = _differences(image)
        return Examined(changes=changes, pixels=_to_pixels(image, resolution, background, changes))
    except Exception as error:
        return _unreadable(error)


def _unreadable(error: Exception) -> Examined:
    if isinstance(error, DataError):
        return Examined("unreadable", f"too large: {error.cause}")
    if isinstance(error, Image.DecompressionBombError):
        return Examined("unreadable", f"more pixels than {2 * (Image.MAX_IMAGE_PIXELS or 0):,}, Pillow's limit")
    if isinstance(error, UnidentifiedImageError):
        return Examined("unreadable", "not an image")
    # Decoders raise a dozen kinds for damaged files.
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return Examined("unreadable", reason.splitlines()[0][:80])


def _differences(image: Image.Image) -> list[Change]:
    """What the file's header says, before decoding changes it."""
    changes: list[Change] = []
    # Phones write a thumbnail or a depth map as a second frame of an MPO, which is a photo all the same.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        changes.append("animated")
    # RGB of 16 bits is cut to 8 by Pillow's decoder; only its name for the raw bytes tells. (BGR;16 is 5-6-5 bits.)
    raw = " ".join(str(tile[3]) for tile in getattr(image, "tile", []))
    if re.search(r"(?<!BGR);16", raw) or image.mode.startswith("I"):
        changes.append("16 bit")
    if _orientation(image) in TURNS:
        changes.append("turned")
    return changes


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block says nothing about the image itself
        return 1


def _to_pixels(image: Image.Image, resolution: int, background: Colour, changes: list[Change]) -> np.ndarray:
    image.load()
    orientation = _orientation(image)  # again: TIFF's decoder turns by itself and forgets the tag
    profile = image.info.get("icc_profile")
    upright = image.transpose(TURNS[orientation]) if orientation in TURNS else image
    square = _centre_square(upright, changes)
    rgb = _to_rgb(square, profile, background, changes)
    if rgb.width != resolution:
        rgb = rgb.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(rgb).transpose(2, 0, 1))


def _centre_square(image: Image.Image, changes: list[Change]) -> Image.Image:
    side = min(image.size)
    if image.width == image.height:
        return image
    changes.append("cropped")
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _to_rgb(image: Image.Image, profile: bytes | None, background: Colour, changes: list[Change]) -> Image.Image:
    alpha = None
    if image.mode == "F":
        raise _Unusable("floating-point values, whose black and white are not defined")
    if image.mode.startswith("I"):
        image = _to_8_bits(image)
    if image.has_transparency_data:
        changes.append("transparent")
        opaque = "L" if image.mode in ("1", "L", "LA") else "RGB"
        _note_model(image.mode, changes)
        image = image.convert("RGBA")
        alpha, image = image.getchannel("A"), image.convert(opaque)
    else:
        _note_model(image.mode, changes)
        if image.mode not in ("L", "CMYK", "LAB"):  # those that a colour profile can describe as they are
            image = image.convert("L" if image.mode == "1" else "RGB")
    rgb = _to_srgb(image, profile, changes)
    return rgb if alpha is None else Image.composite(rgb, Image.new("RGB", rgb.size, background), alpha)


def _note_model(mode: str, changes: list[Change]) -> None:
    if mode in ("1", "L", "LA", "La"):
        changes.append("grey")
    elif mode in ("P", "PA"):
        changes.append("palette")
    elif mode == "CMYK":
        changes.append("CMYK")
    elif not mode.startswith("RGB"):
        changes.append("other model")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits scaled to 8; Pillow's own conversion would clip everything above 255 to white."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise _Unusable("32-bit values, whose black and white are not defined")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes | None, changes: list[Change]) -> Image.Image:
    if profile is None:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if image.mode == "RGB" and "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # damaged, or of another colour model than the image
        changes.append("bad profile")
        return image.convert("RGB")
    assert converted is not None  # None is for conversions in place
    changes.append("profile")
    return converted
