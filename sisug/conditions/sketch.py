"""Sketches as conditions: contours as a pen draws them, thin, a little off, and broken here and there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sisug.conditions.condition import Condition, Encoded
from sisug.conditions.freehand import blur, scale_of, share, smooth_noise, to_unit, uniform, whole, wobble
from sisug.conditions.lines import contours, lines_of
from sisug.conditions.thinning import thicken, thin
from sisug.labels.pictures import Picture
from sisug.types import Images, Masks

FINE_SIZE = 128
"""Sketches of smaller images are drawn at about this size, so that lines lie where edges are and can be thin."""

SMOOTHING = 0.6
"""Strongest blur before contours are sought, standard deviation in pixels at 64."""

WIDEST = 1.5
"""Widest pen, pixels at 64."""

WOBBLE = 0.4
"""Largest standard deviation of lines from where they belong, pixels at 64."""

MOST_GAPS = 0.12
"""Largest share of a sketch's lines that is left out."""

_PAPER, _PEN = 255, 0


class Sketch(Condition):
    """Pen sketch: 0 for paper, 1 for the pen's line.

    Contours above a random threshold are thinned to one pixel and drawn again with a pen of random width, pressure,
    wobble and gaps. Our choice, by eye on avatars.

    Args:
        labels: kept for the checkpoint; sketches need none.
    """

    name = "sketch"

    def extract(self, images: Images, masks: Masks | None, random: torch.Generator) -> Encoded:
        factor = max(1, round(FINE_SIZE / max(images.shape[-2:])))
        largest = SMOOTHING * scale_of(images)
        sigma = uniform(random, 0.3 * largest, largest, images)
        slope = contours(blur(images, sigma, largest), sigma)
        slope = F.interpolate(slope, scale_factor=factor, mode="bicubic", align_corners=False)
        lines = to_unit(F.avg_pool2d(_pen(slope, random), factor))
        # From pencil to ink: a power below 1 darkens thin lines.
        return lines ** uniform(random, 0.4, 1.0, lines)[:, None, None, None]

    def from_picture(self, picture: Picture, size: int) -> Float[Tensor, "1 size size"]:
        return lines_of(picture, size)


def _pen(
    slope: Float[Tensor, "batch 1 height width"], random: torch.Generator
) -> Float[Tensor, "batch 1 height width"]:
    """Pen lines along the crests of a slope."""
    scale = scale_of(slope)
    # Only crests count, else the slopes of neighbouring small parts run into one.
    reach = 2 * round(1.5 * scale) + 1
    crest = slope > F.avg_pool2d(slope, reach, 1, reach // 2, count_include_pad=False)
    threshold = uniform(random, 0.04, 0.1, slope)[:, None, None, None]
    middle = thin(torch.where((crest & (slope > threshold))[:, 0], _PEN, _PAPER), _PAPER)
    widths = whole(random, 1, max(1, round(WIDEST * scale)), slope)
    lines = (thicken(middle, torch.zeros_like(middle), widths, _PAPER) == _PEN)[:, None].float()
    offsets = smooth_noise(random, 2, 8, lines) * uniform(random, 0.0, WOBBLE * scale, lines)[:, None, None, None]
    lines = wobble(lines, offsets)
    lightness = smooth_noise(random, 1, 6, lines).abs() * uniform(random, 0.0, 0.25, lines)[:, None, None, None]
    drawn = share(smooth_noise(random, 1, 16, lines), 1 - uniform(random, 0.0, MOST_GAPS, lines))
    return lines * (1 - lightness).clamp_min(0.3) * drawn
