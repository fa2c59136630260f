"""Conditions made of label classes (seg, scribble): one-hot, with all zeros where the user does not care."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from sisug.conditions.condition import Condition, Encoded
from sisug.errors import ConfigError
from sisug.labels.label_sets import IGNORE_COLOUR, LabelSet
from sisug.labels.mask_files import mask_of
from sisug.labels.pictures import Picture, nearest


class LabelCondition(Condition):
    """Masks over a label set's classes.

    Args:
        labels: classes and colours.
        tolerance: when files are read, the largest difference per colour channel (0 to 255) at which a pixel still
            counts as the nearest class.

    Raises:
        ConfigError: without a label set, or for a tolerance out of range.
    """

    needs_masks = True
    labels: LabelSet

    def __init__(self, labels: LabelSet | None, *, tolerance: int = 0) -> None:
        super().__init__(labels)
        self._labels_needed()
        if not 0 <= tolerance <= 255:
            raise ConfigError(f"tolerance {tolerance}", "colour values run from 0 to 255", "use a small number, or 0")
        self.tolerance = tolerance

    @property
    def channels(self) -> int:
        return self.labels.num_classes

    @property
    def options(self) -> dict[str, Any]:
        return {"tolerance": self.tolerance}

    @property
    @abstractmethod
    def blank(self) -> tuple[int, int, int]:
        """Colour in which don't-care pixels are shown; ``from_picture`` reads it as don't-care."""

    def from_mask(self, mask: Int64[Tensor, "*batch height width"]) -> Float[Tensor, "*batch channel height width"]:
        """Encode masks in memory: one-hot, all zeros where ignored.

        Args:
            mask: class numbers or the label set's ``ignore``.

        Raises:
            DataError: for other values.
        """
        self.labels.check(mask)
        numbers = torch.arange(self.labels.num_classes, device=mask.device)
        return (mask.unsqueeze(-3) == numbers[:, None, None]).float()

    def to_mask(self, encoded: Float[Tensor, "*batch channel height width"]) -> Int64[Tensor, "*batch height width"]:
        """The masks of encoded conditions; all zeros become the label set's ``ignore``.

        Args:
            encoded: results of ``from_mask``, ``extract`` or ``from_picture``.
        """
        strength, number = encoded.max(dim=-3)
        return number.masked_fill(strength <= 0, self.labels.ignore)

    def from_picture(self, picture: Picture, size: int) -> Float[Tensor, "channel size size"]:
        mask = mask_of(picture, self.labels, tolerance=self.tolerance, white_is_blank=self.blank != IGNORE_COLOUR)
        if (mask == self.labels.ignore).all():
            raise picture.refuse(
                "has no labelled pixel", "all are transparent, blank or don't-care", "draw at least one class"
            )
        self._warn(picture, mask)
        return self.from_mask(torch.from_numpy(self._resize(mask, size)))

    def _resize(self, mask: np.ndarray, size: int) -> np.ndarray:
        return nearest(mask, size)

    @abstractmethod
    def _warn(self, picture: Picture, mask: np.ndarray) -> None:
        """Say what is allowed but rarely meant."""

    def show(self, encoded: Encoded) -> UInt8[Tensor, "batch 3 height width"]:
        mask = self.to_mask(encoded)
        blank = torch.tensor(self.blank, dtype=torch.uint8, device=mask.device)[:, None, None]
        return torch.where((mask == self.labels.ignore)[:, None], blank, self.labels.colorize(mask))

    def flip(self, encoded: Encoded) -> Encoded:
        order = list(range(self.labels.num_classes))
        for left, right in self.labels.flip_pairs:
            order[left], order[right] = right, left
        return encoded[:, order].flip(-1)
