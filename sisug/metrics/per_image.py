"""Intersection over union image by image, as LinearGAN's sampling protocol has it: layout (evaluation)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics import Metric

from sisug.errors import ConfigError, DataError
from sisug.metrics.guards import check_label_count, check_prediction


class PerImageResult(NamedTuple):
    """Scores of predicted against target masks, taken per image first.

    Args:
        miou: mean of `iou` over the classes that occurred, without the background.
        accuracy: mean over images of the share of pixels whose class is right, background included.
        iou: of each class, mean over the images where it occurs in target or prediction; NaN where it never does.
        images: images scored, which have at least one pixel that counts.
        occurrences: images behind the `iou` of each class.
    """

    miou: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
    iou: Float[Tensor, " classes"]
    images: int
    occurrences: Int64[Tensor, " classes"]


class PerImageSegmentationScore(Metric):
    """Mean intersection over union in the manner of semantic-conditional sampling (SCS), the paper's Table A.

    Each image gives an intersection over union of every class; a class that neither the image's target nor its
    prediction shows is skipped for that image, one that only either shows counts 0. Scores are averaged over images
    per class, then over classes. The background's own score is left out of the mean, but its pixels still count as
    wrong where another class is predicted. A rare class weighs as much as in `SegmentationScore`, a small instance
    of a class much more: the two differ, so say which one a number is.

    Args:
        num_classes: classes, background included, 2 or more.
        background: class whose score is left out of the mean; None leaves out none.
        ignore: value of target pixels that do not count; not a class.

    Raises:
        ConfigError: fewer than 2 classes, the ignored value is a class, the background is none.
        DataError: masks of different shapes, labels out of range, no class to score at `compute()`.

    Source: J. Xu and C. Zheng, "Linear semantics in generative adversarial networks" (2021), by its published program,
    but for a class that occurs in no image: it counts -1 there and is left out here.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    iou_total: Tensor
    occurrences: Tensor
    accuracy_total: Tensor
    images: Tensor

    def __init__(self, num_classes: int, background: int | None = 0, ignore: int = 255) -> None:
        super().__init__()
        check_label_count(num_classes, ignore, "num_classes")
        if background is not None and not 0 <= background < num_classes:
            raise ConfigError(
                f"background={background}", f"classes go from 0 to {num_classes - 1}", "pass one of them, or None"
            )
        self.num_classes, self.background, self.ignore = num_classes, background, ignore
        self.add_state("iou_total", torch.zeros(num_classes, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("occurrences", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("accuracy_total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        prediction: Int64[Tensor, "batch height width"],
        target: Int64[Tensor, "target_batch target_height target_width"],
    ) -> None:
        """Add masks; where the target is `ignore`, the prediction may be anything."""
        counted = check_prediction(prediction, target, self.num_classes, self.ignore)
        shape = (len(target), self.num_classes, self.num_classes)
        image = torch.arange(len(target), device=target.device)[:, None, None].expand_as(target)
        cells = (image * self.num_classes + target) * self.num_classes + prediction
        tables = torch.bincount(cells[counted], minlength=shape[0] * shape[1] * shape[2]).reshape(shape).double()
        right = tables.diagonal(dim1=1, dim2=2)
        union = tables.sum(dim=1) + tables.sum(dim=2) - right
        pixels = tables.sum(dim=(1, 2))
        self.iou_total += (right / union.clamp_min(1)).sum(dim=0)
        self.occurrences += (union > 0).sum(dim=0)
        self.accuracy_total += (right.sum(dim=1) / pixels.clamp_min(1)).sum()
        self.images += (pixels > 0).sum()

    def compute(self) -> PerImageResult:
        """Scores over everything seen."""
        iou = self.iou_total / self.occurrences  # 0 / 0 = NaN where a class never occurred
        scored = torch.ones_like(iou, dtype=torch.bool)
        if self.background is not None:
            scored[self.background] = False
        if not bool(self.occurrences[scored].any()):
            raise DataError(
                "no class to score",
                f"no masks were given, or all targets are {self.ignore} (ignored) or the background",
                "update the score with masks that hold classes before compute()",
            )
        return PerImageResult(
            miou=iou[scored].nanmean().float(),
            accuracy=(self.accuracy_total / self.images).float(),
            iou=iou.float(),
            images=int(self.images),
            occurrences=self.occurrences.clone(),
        )
