"""Layout of image sets (evaluation): what a judge reads in them, against the masks that they were made from."""

from __future__ import annotations

import math
from typing import Any

import torch

from sisug.labels.label_sets import LabelSet
from sisug.metrics import PerImageSegmentationScore, SegmentationScore
from sisug.segmentation.judges import RelabelledJudge
from sisug.types import Images, Masks

BACKGROUND = "background"


class LayoutScores:
    """The judge's masks of images against their targets: over the whole set, and image by image.

    Args:
        judge: gives masks in the targets' label set.
        labels: label set of the targets.
        device: of images and judge.
    """

    def __init__(self, judge: RelabelledJudge, labels: LabelSet, device: torch.device) -> None:
        self.judge, self.labels = judge, labels
        background = labels.number(BACKGROUND) if BACKGROUND in labels.classes else None
        self._whole = SegmentationScore(labels.num_classes, labels.ignore).to(device)
        self._single = PerImageSegmentationScore(labels.num_classes, background, labels.ignore).to(device)

    def update(self, images: Images, masks: Masks) -> None:
        """Add images with their targets."""
        read = self.judge.segment(images)
        self._whole.update(read, masks)
        self._single.update(read, masks)

    def compute(self) -> dict[str, Any]:
        """`miou` and `accuracy` over the set, `miou_per_image` (SCS), `iou` by class (None where it is in neither) and
        `share` of the targets' pixels by class; JSON values.

        Raises:
            DataError: nothing to score.
        """
        whole, single = self._whole.compute(), self._single.compute()
        pixels = whole.confusion.sum(dim=1)
        return {
            "miou": float(whole.miou),
            "accuracy": float(whole.accuracy),
            "miou_per_image": float(single.miou),
            "iou": {
                name: None if math.isnan(iou) else iou
                for name, iou in zip(self.labels.classes, whole.iou.tolist(), strict=True)
            },
            "share": dict(zip(self.labels.classes, (pixels / pixels.sum()).tolist(), strict=True)),
        }
