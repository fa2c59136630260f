"""Layout of image sets (evaluation): what a judge reads in them, against the masks that they were made from."""

from __future__ import annotations

import math
from typing import Any

import torch

from sisug.labels.label_maps import LabelMap, match_labels
from sisug.labels.label_sets import LabelSet
from sisug.metrics import PerImageSegmentationScore, SegmentationScore
from sisug.segmentation.judges import PartialJudge, RelabelledJudge
from sisug.types import Images, Masks

BACKGROUND = "background"


class LayoutScores:
    """The judge's masks of images against their targets: over the whole set, and image by image.

    A partial judge is scored in its own label set, on the pixels whose target it knows.

    Args:
        judge: gives masks in the targets' label set, or is partial.
        labels: label set of the targets.
        device: of images and judge.
    """

    def __init__(self, judge: RelabelledJudge | PartialJudge, labels: LabelSet, device: torch.device) -> None:
        self.judge, self.labels = judge, labels
        self._known: LabelMap | None = None
        aside = labels.number(BACKGROUND) if BACKGROUND in labels.classes else None
        if isinstance(judge, PartialJudge):
            self.labels = judge.labels
            self._known = match_labels(labels, judge.labels, rest="ignore", allow_unseen=True)
            aside = judge.labels.number(judge.unknown)
        self._whole = SegmentationScore(self.labels.num_classes, self.labels.ignore).to(device)
        self._single = PerImageSegmentationScore(self.labels.num_classes, aside, self.labels.ignore).to(device)

    def update(self, images: Images, masks: Masks) -> None:
        """Add images with their targets."""
        read = self.judge.segment(images)
        masks = masks if self._known is None else self._known(masks)
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
        iou = whole.iou
        if isinstance(self.judge, PartialJudge):  # what it does not know has no score
            iou[self.labels.number(self.judge.unknown)] = math.nan
        return {
            "miou": float(iou.nanmean()),
            "accuracy": float(whole.accuracy),
            "miou_per_image": float(single.miou),
            "iou": {
                name: None if math.isnan(iou) else iou
                for name, iou in zip(self.labels.classes, iou.tolist(), strict=True)
            },
            "share": dict(zip(self.labels.classes, (pixels / pixels.sum()).tolist(), strict=True)),
        }
