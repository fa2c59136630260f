"""How far landmarks are from where they should be: layout of faces (evaluation of both stages)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from sisug.errors import DataError

OUTER_CORNERS = (33, 263)
"""Outer corners of the eyes among the 468 landmarks of `sisug.faces`."""


def normalized_mean_error(
    points: Float[Tensor, "batch point axis"],
    target: Float[Tensor, "batch point axis"],
    eyes: tuple[int, int] = OUTER_CORNERS,
) -> Float[Tensor, " batch"]:
    """Mean distance of landmarks to their targets in the image plane, in distances of the target's eyes (NME).

    Args:
        points: landmarks; x and y come first, and anything after them does not count.
        target: where they should be, in the same unit.
        eyes: numbers of the two landmarks whose distance is the unit.

    Returns:
        One error per image; NaN where either face is missing.

    Source: C. Sagonas et al., "300 faces in-the-wild challenge" (2013): the outer corners of the eyes.
    """
    flat, goal = points[..., :2], target[..., :2]
    unit = (goal[:, eyes[0]] - goal[:, eyes[1]]).norm(dim=-1)
    return (flat - goal).norm(dim=-1).mean(dim=1) / unit


class LandmarkError(Metric):
    """Mean over images of the normalized mean error of landmarks (NME); images without a face are counted apart.

    Args:
        eyes: see `normalized_mean_error`.

    Raises:
        DataError: no image with a face at `compute()`.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    total: Tensor
    images: Tensor
    missing: Tensor

    def __init__(self, eyes: tuple[int, int] = OUTER_CORNERS) -> None:
        super().__init__()
        self.eyes = eyes
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("missing", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, points: Float[Tensor, "batch point axis"], target: Float[Tensor, "batch point axis"]) -> None:
        """Add landmarks of images with their targets; NaN where there is no face."""
        errors = normalized_mean_error(points, target, self.eyes).double()
        found = errors.isfinite()
        self.total += errors[found].sum()
        self.images += found.sum()
        self.missing += (~found).sum()

    def compute(self) -> Float[Tensor, ""]:
        """Mean over the images in which both faces were found; `missing` says how many were not."""
        if not bool(self.images):
            raise DataError(
                "no landmarks to compare",
                f"no images were given, or none of {int(self.missing)} pairs shows a face on both sides",
                "update the score with landmarks of faces before compute()",
            )
        return (self.total / self.images).float()
