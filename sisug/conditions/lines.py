"""Line drawings (conditions edges and sketch): found in images, and read from files with either polarity."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.filters import spatial_gradient
from torch import Tensor

from sisug.conditions.pictures import Picture, check_mode, read_picture, rgba
from sisug.types import Images

log = logging.getLogger(__name__)

FAINTEST = 0.05
"""A picture whose values differ by less holds no lines; of the range from black to white. Our choice."""

LEAST_PAPER = 0.4
"""Least share of pixels that lie at the paper's brightness: line pictures have well above one half, photos below.
Our choice."""


def contours(images: Images) -> Float[Tensor, "batch 1 height width"]:
    """How steeply colours change, 1 for a step from black to white.

    Sobel's filter in each colour channel, of which the steepest counts: neighbouring parts often differ in hue only.

    Args:
        images: RGB in [-1, 1].
    """
    return spatial_gradient(images).square().sum(dim=2).amax(dim=1, keepdim=True).sqrt()


def read_lines(path: Path, size: int) -> Float[Tensor, "1 size size"]:
    """A line drawing in a file: 0 for paper, 1 for the strongest line.

    Lines may be dark on light or light on dark: a picture that is bright on average has dark lines. What counts as
    line is the difference from the paper, in the colour channel where it is largest, so coloured pens and grey paper
    are fine. Transparent parts are paper.

    Args:
        path: a grey or colour picture, 8 or 16 bits.
        size: height and width to bring it to, pixels.

    Raises:
        DataError: blank, a photo, or not readable.
    """
    picture = read_picture(path)
    check_mode(picture, also=("I;16", "I;16B", "I;16L", "I"))
    colour, opacity = _levels(picture)
    visible = opacity > 0.5
    if not visible.any():
        raise picture.refuse("is wholly transparent", "it holds no line", "save the drawing itself")
    mean = float(colour[visible].mean())
    if not visible.all():  # a drawing without paper: what is visible are the lines
        dark = mean <= 0.5
        colour = np.where(visible[..., None], colour, 1.0 if dark else 0.0)
    else:
        dark = mean > 0.5
    log.info(
        "%s: mean brightness %.2f, read as %s", path, mean,
        "dark lines on light paper (inverted)" if dark else "light lines on dark paper",
    )  # fmt: skip
    paper = np.median(colour.reshape(-1, 3), axis=0)
    strength = ((paper - colour) if dark else (colour - paper)).max(axis=2).clip(min=0)
    _check_lines(picture, strength, colour)
    lines = torch.from_numpy(strength / strength.max()).float()[None, None]
    lines = F.interpolate(lines, size=(size, size), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
    return lines[0] / lines.amax().clamp_min(1e-6)


def _levels(picture: Picture) -> tuple[np.ndarray, np.ndarray]:
    """Colours (height, width, 3) and opacity in [0, 1]."""
    if picture.image.mode.startswith("I"):
        grey = grey_16_bits(picture)
        return np.repeat(grey[..., None], 3, axis=2), np.ones_like(grey)
    pixels = rgba(picture).astype(np.float32) / 255
    return pixels[..., :3], pixels[..., 3]


def grey_16_bits(picture: Picture) -> np.ndarray:
    """Grey of 16 bits in [0, 1]; Pillow's own conversion would clip everything above 255 to white.

    Args:
        picture: of one of Pillow's integer modes.

    Raises:
        DataError: for values beyond 16 bits.
    """
    values = np.asarray(picture.image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise picture.refuse(
            f"has values from {values.min()} to {values.max()}",
            "black and white are defined for 8 and 16 bits (0 to 255, 0 to 65535) only",
            "save it as PNG with 8 or 16 bits",
        )
    return (values / 65535).astype(np.float32)


def _check_lines(picture: Picture, strength: np.ndarray, colour: np.ndarray) -> None:
    if strength.max() < FAINTEST:
        raise picture.refuse(
            f"is blank: its brightness runs from {colour.min():.2f} to {colour.max():.2f}",
            "it holds no line",
            "check the file; lines need contrast with the paper",
        )
    share = float((strength <= 0.1 * strength.max()).mean())
    if share < LEAST_PAPER:
        raise picture.refuse(
            f"is {1 - share:.0%} line",
            f"in a line drawing, {LEAST_PAPER:.0%} of the pixels or more are plain paper; this looks like a photo",
            "trace its contours first, or choose the condition that fits the picture",
        )
