"""Semantic masks as conditions: every pixel says its class, or that it may be anything."""

from __future__ import annotations

import numpy as np
import torch

from sisug.conditions.condition import Encoded
from sisug.conditions.label_condition import LabelCondition
from sisug.labels.label_sets import IGNORE_COLOUR
from sisug.labels.pictures import Picture
from sisug.types import Images, Masks


class Seg(LabelCondition):
    """Semantic mask: one-hot classes, all zeros for don't-care.

    Files are index pictures, palette pictures or RGB(A) in the label set's colours (``read_mask`` says how they are
    told apart); other sizes are brought to size by nearest neighbour.

    Args:
        labels: classes and colours.
        tolerance: see ``LabelCondition``.
    """

    name = "seg"

    @property
    def blank(self) -> tuple[int, int, int]:
        return IGNORE_COLOUR

    def extract(self, images: Images, masks: Masks | None, random: torch.Generator) -> Encoded:
        """The masks, encoded as they are; nothing is drawn at random."""
        return self.from_mask(self._masks_needed(masks))

    def _warn(self, picture: Picture, mask: np.ndarray) -> None:
        present = np.flatnonzero(np.bincount(mask.reshape(-1), minlength=256))
        classes = [self.labels.classes[number] for number in present if number != self.labels.ignore]
        if len(classes) == 1:
            picture.warn(f"{classes[0]} is the only class in it")
