"""Line drawings (conditions edges and sketch): found in images, and read from files with either polarity."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.filters import spatial_gradient
from torch import Tensor

from sisug.labels.pictures import Picture, check_mode, rgba
from sisug.types import Images

log = logging.getLogger(__name__)

LARGEST = 1024
"""Height and width of the largest generators, pixels; drawings of twice that and more are made smaller at once."""

FAINTEST = 0.05
"""A picture whose values differ by less holds no lines; of the range from black to white. Our choice."""

PAPER_QUANTILE = 0.7
"""Paper has the brightness below which this share of pixels lies, when lines are dark: bold lines may cover a third.
Our choice."""

DIFFERENT = 0.15
"""Difference from the paper that paper itself does not have, of the range from black to white. Our choice."""

LEAST_PAPER, MOST_BEYOND, MOST_COLOUR = 0.4, 0.15, 0.4
"""Bounds of a line drawing, as shares of its pixels: those of the paper's colour, those beyond its brightness (brighter
where lines are dark), those in colour. Our choice: edges and sketches of 200 avatars keep all three with a margin; of
photos, those with flat surfaces pass."""

MUCH_COLOUR = 0.1
"""Share of pixels in colour from which a drawing is doubtful."""


def contours(images: Images, sigma: Float[Tensor, " batch"]) -> Float[Tensor, "batch 1 height width"]:
    """How large the step between neighbouring colours is, 1 for black to white; highest in the middle of an edge.

    Sobel's filter in each colour channel, of which the steepest counts: neighbouring parts often differ in hue only.

    Args:
        images: RGB in [-1, 1].
        sigma: how blurred each image's edges are, standard deviation in pixels; the gentler slopes are made up for.
    """
    with torch.autocast(images.device.type, enabled=False):
        slopes = spatial_gradient(images.float())
    slope = slopes.square().sum(dim=2).amax(dim=1, keepdim=True).sqrt()
    # A step of height 2 has slope 1 if it is sharp, and 2 / (sigma * sqrt(2 pi)) if it is blurred.
    return slope * (1 + sigma.square() * math.pi / 2).sqrt()[:, None, None, None]


def lines_of(picture: Picture, size: int) -> Float[Tensor, "1 size size"]:
    """A line drawing in a picture: 0 for paper, 1 for the strongest line.

    Lines may be dark on light or light on dark: the paper covers more of the picture than the lines do. What counts as
    line is the difference from the paper, in the colour channel where it is largest, so coloured pens and grey paper
    are fine. Transparent parts are paper.

    Args:
        picture: in gray or color, 8 or 16 bits.
        size: height and width to bring it to, pixels.

    Raises:
        DataError: blank, a photo, or not readable.
    """
    check_mode(picture, also=("I;16", "I;16B", "I;16L", "I"))
    colour, opacity = _levels(picture)
    visible = opacity > 0.5
    if not visible.any():
        raise picture.refuse("is wholly transparent", "it holds no line", "save the drawing itself")
    brightness = colour.mean(axis=2)[visible]
    low, middle, high = (float(v) for v in (brightness.min(), np.median(brightness), brightness.max()))
    if visible.all():
        dark = middle > (low + high) / 2
    else:  # a drawing without paper: what is visible are the lines
        dark = middle <= 0.5
        colour = np.where(visible[..., None], colour, 1.0 if dark else 0.0)
    log.info(
        "%s: brightness %.2f to %.2f, median %.2f: read as %s", picture.name, low, high, middle,
        "dark lines on light paper (inverted)" if dark else "light lines on dark paper",
    )  # fmt: skip
    paper = np.quantile(colour.reshape(-1, 3), PAPER_QUANTILE if dark else 1 - PAPER_QUANTILE, axis=0)
    strength = ((paper - colour) if dark else (colour - paper)).max(axis=2).clip(min=0)
    if strength.max() < FAINTEST:
        raise picture.refuse(
            f"is blank: nothing in it differs from its paper by more than {strength.max():.3f} (black to white is 1)",
            "it holds no line",
            "check the file; lines need contrast with the paper",
        )
    _check_drawing(picture, colour, paper, dark)
    lines = torch.from_numpy(strength / strength.max()).float()[None, None]
    lines = F.interpolate(lines, size=(size, size), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
    return lines[0] / lines.amax().clamp_min(1e-6)


def _levels(picture: Picture) -> tuple[np.ndarray, np.ndarray]:
    """Colours (height, width, 3) and opacity in [0, 1]."""
    if picture.image.mode.startswith("I"):
        grey = grey_16_bits(picture)
        return np.repeat(grey[..., None], 3, axis=2), np.ones_like(grey)
    factor = min(picture.image.size) // LARGEST
    if factor > 1:
        image = picture.image.convert("RGBA").convert("RGBa").reduce(factor).convert("RGBA")
        picture = replace(picture, image=image)
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


def _check_drawing(picture: Picture, colour: np.ndarray, paper: np.ndarray, dark: bool) -> None:
    away = colour - paper
    plain = float((np.abs(away).max(axis=2) <= DIFFERENT).mean())
    beyond = float(((away if dark else -away).max(axis=2) > DIFFERENT).mean())
    coloured = float((np.ptp(colour, axis=2) - np.ptp(paper) > DIFFERENT).mean())
    if plain < LEAST_PAPER or beyond > MOST_BEYOND or coloured > MOST_COLOUR:
        raise picture.refuse(
            f"is no line drawing: {plain:.0%} of its pixels have the paper's colour, {beyond:.0%} lie beyond its "
            f"brightness, {coloured:.0%} are in colour",
            f"at least {LEAST_PAPER:.0%}, at most {MOST_BEYOND:.0%} and at most {MOST_COLOUR:.0%} are usual; this "
            "looks like a photo or a painting",
            "trace its contours first, or choose the condition that fits the picture",
        )
    if coloured > MUCH_COLOUR:
        picture.warn(f"{100 * coloured:.0f}% of its pixels are in colour; is it a line drawing?")
