"""Mean intersection over union and pixel accuracy from one confusion matrix: layout (evaluation of both stages)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_confusion_matrix

from sisug.errors import DataError
from sisug.metrics.guards import check_label_count, check_prediction


class SegmentationResult(NamedTuple):
    """Scores of predicted against target masks.

    Args:
        miou: mean of `iou` over the classes that are in the targets or in the predictions.
        accuracy: share of pixels whose class is right.
        iou: intersection over union of each class; NaN for a class in neither.
        confusion: pixels by target class (row) and predicted class (column).
    """

    miou: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
    iou: Float[Tensor, " classes"]
    confusion: Int64[Tensor, "classes classes"]


class SegmentationScore(Metric):
    """Mean intersection over union of predicted and target masks over a whole data set.

    One confusion matrix is summed over all pixels of all images and ranks, and scores are derived at the end, so that
    batches do not matter. A class that occurs in neither targets nor predictions is left out of the mean; one that is
    predicted but never a target counts with 0. Serves label masks (classes of the judge) and proxy masks (clusters).

    Args:
        num_classes: classes or clusters, 2 or more.
        ignore: value of target pixels that do not count; not a class.

    Raises:
        ConfigError: fewer than 2 classes, or the ignored value is a class.
        DataError: masks of different shapes, labels out of range, no pixel to score at `compute()`.

    Source: M. Everingham et al., "The Pascal Visual Object Classes (VOC) challenge" (2010), segmentation accuracy. Our
    choice: classes absent from both are left out, since 0 / 0 says nothing about the prediction.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    confusion: Tensor

    def __init__(self, num_classes: int, ignore: int = 255) -> None:
        super().__init__()
        check_label_count(num_classes, ignore, "num_classes")
        self.num_classes = num_classes
        self.ignore = ignore
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        prediction: Int64[Tensor, "batch height width"],
        target: Int64[Tensor, "target_batch target_height target_width"],
    ) -> None:
        """Add masks; where the target is `ignore`, the prediction may be anything."""
        counted = check_prediction(prediction, target, self.num_classes, self.ignore)
        predicted = prediction[counted]
        if predicted.numel():
            self.confusion += multiclass_confusion_matrix(
                predicted, target[counted], num_classes=self.num_classes, validate_args=False
            )

    def compute(self) -> SegmentationResult:
        """Scores over everything seen."""
        pixels = self.confusion.sum()
        if not bool(pixels):
            raise DataError(
                "no pixel to score",
                f"no masks were given, or all targets are {self.ignore} (ignored)",
                "update the score with masks that hold classes before compute()",
            )
        right = self.confusion.diagonal().double()
        union = self.confusion.sum(dim=0) + self.confusion.sum(dim=1) - self.confusion.diagonal()
        iou = right / union  # 0 / 0 = NaN where a class is absent from both
        return SegmentationResult(
            miou=iou.nanmean().float(),
            accuracy=(right.sum() / pixels).float(),
            iou=iou.float(),
            confusion=self.confusion.clone(),
        )
