"""Scribbles as conditions: a few strokes say classes, everything else is left to the generator."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int64
from torch import Tensor

from sisug.conditions.condition import Encoded
from sisug.conditions.freehand import scale_of, share, smooth_noise, uniform, whole, wobble
from sisug.conditions.label_condition import LabelCondition
from sisug.conditions.thinning import present, shorten, thicken, thin
from sisug.labels.label_sets import IGNORE_COLOUR
from sisug.labels.mask_files import WHITE
from sisug.labels.pictures import Picture
from sisug.types import Images, Masks

WORKING_SIZE = 128
"""Strokes of larger masks are found at this size and enlarged: thinning takes as many rounds as regions are wide."""

DETAIL = 6
"""Parts up to about this width do not turn the strokes of what lies around them, pixels at 64."""

WOBBLE = 2.0
"""Largest standard deviation of strokes from a region's middle line, pixels at 64."""

WIDEST = 4
"""Widest stroke, pixels at 64."""

SPUR = 6
"""Most pixels taken off the ends of strokes, at 64."""

SKIPPED = 0.1
"""Chance that a class gets no stroke."""


class Scribble(LabelCondition):
    """Sparse strokes of label classes: one-hot on strokes, all zeros elsewhere.

    For training, the regions of a mask are thinned to their middle lines, as a person strokes along a shape: the lines
    wobble, lose their ends, are broken, and some classes have none. Width and density differ from sample to sample.
    Our choice, all of it, chosen by eye on avatars.

    Files are read as those of ``seg``; white paper and transparent pixels are don't-care too, unless a class is white.
    Strokes survive downsizing: a new pixel takes the commonest class among the stroke pixels that it covers.

    Args:
        labels: classes and colours.
        tolerance: see ``LabelCondition``.
    """

    name = "scribble"

    @property
    def blank(self) -> tuple[int, int, int]:
        return IGNORE_COLOUR if WHITE in self.labels.palette else WHITE

    def extract(self, images: Images, masks: Masks | None, random: torch.Generator) -> Encoded:
        """Strokes inside the masks' regions; every stroke pixel has its mask's class."""
        masks = self._masks_needed(masks)
        self.labels.check(masks)
        return self.from_mask(self._strokes(masks, random))

    def _strokes(self, masks: Masks, random: torch.Generator) -> Masks:
        ignore = self.labels.ignore
        height, width = masks.shape[1:]
        shrink = min(1.0, WORKING_SIZE / max(height, width))
        small = _nearest(masks, (max(1, round(height * shrink)), max(1, round(width * shrink))))
        scale = max(1.0, scale_of(small))
        lines = self._middle_lines(small, random, scale)
        lines = torch.where(self._kept(small, lines, random), lines, ignore)
        strokes = thicken(lines, small, whole(random, 1, round(WIDEST * scale), small), ignore)
        full = _nearest(strokes, (height, width))
        return torch.where(full == masks, full, ignore)

    def _middle_lines(self, masks: Masks, random: torch.Generator, scale: float) -> Masks:
        """Where a person's stroke could run through each class."""
        ignore = self.labels.ignore
        bent = _bend(self._without_details(masks, scale), random, scale)
        coarse = shorten(thin(bent, ignore), whole(random, 0, round(SPUR * scale), masks), ignore)
        coarse = torch.where(coarse == masks, coarse, ignore)
        # Classes that exist as details only are stroked by themselves.
        only_details = ~torch.gather(present(coarse), 1, masks.flatten(1)).view_as(masks)
        return torch.where(only_details, thin(torch.where(only_details, masks, ignore), ignore), coarse)

    def _without_details(self, masks: Masks, scale: float) -> Masks:
        """The commonest class around each pixel: nobody strokes around eyes to mark skin."""
        reach = 2 * round(DETAIL / 2 * scale) + 1
        votes = F.avg_pool2d(self.from_mask(masks), reach, 1, reach // 2)
        return self.to_mask(votes)

    def _kept(self, masks: Masks, lines: Masks, random: torch.Generator) -> Bool[Tensor, "batch height width"]:
        """Where strokes stay: broken by patches of a share of its own for each sample, and without some classes."""
        patches = share(smooth_noise(random, 1, 7, masks), uniform(random, 0.5, 1.0, masks))[:, 0]
        drawn = torch.rand(len(masks), 256, generator=random, device=random.device).to(masks.device) >= SKIPPED
        return patches & drawn.gather(1, lines.flatten(1)).view_as(lines)

    def _resize(self, mask: np.ndarray, size: int) -> np.ndarray:
        if min(mask.shape) <= size:
            return super()._resize(mask, size)
        strokes = self.from_mask(torch.from_numpy(mask))
        covered = F.adaptive_avg_pool2d(strokes, size)
        return self.to_mask(covered).numpy()

    def _warn(self, picture: Picture, mask: np.ndarray) -> None:
        if not (mask == self.labels.ignore).any():
            picture.warn(
                "every pixel has a class, but scribbles leave most of the picture blank (white, transparent or "
                "don't-care); full masks are for the condition seg"
            )


def _nearest(masks: Masks, size: tuple[int, int]) -> Int64[Tensor, "batch new_height new_width"]:
    if masks.shape[1:] == size:
        return masks
    # Class numbers are exact in float32, and "nearest-exact" takes the pixel at the centre.
    return F.interpolate(masks[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()


def _bend(masks: Masks, random: torch.Generator, scale: float) -> Masks:
    """Masks with wavy outlines, whose middle lines wobble; kept only where the class is right."""
    amount = uniform(random, 0.0, WOBBLE * scale, masks)[:, None, None, None]
    offsets = smooth_noise(random, 2, 6, masks) * amount
    return wobble(masks[:, None].float(), offsets, mode="nearest")[:, 0].long()
