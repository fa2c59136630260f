"""Loss of the judge: cross-entropy for every pixel, Dice for the small classes."""

from __future__ import annotations

import segmentation_models_pytorch as smp
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sisug.types import Masks


class SegmentationLoss(nn.Module):
    """Cross-entropy plus weighted soft Dice.

    Nine in ten pixels are background, skin, hair or clothes; Dice weighs each class alike, as mIoU does.

    Args:
        dice_weight: weight of the Dice term, 0 or more.
        ignore: mask value without a label.

    Source: our choice; Dice after Milletari et al. 2016, as segmentation_models_pytorch computes it.
    """

    def __init__(self, dice_weight: float = 0.5, ignore: int = 255) -> None:
        super().__init__()
        self.dice_weight, self.ignore = dice_weight, ignore
        self.dice = smp.losses.DiceLoss(mode="multiclass", from_logits=True, ignore_index=ignore)

    def forward(self, logits: Float[Tensor, "batch classes height width"], masks: Masks) -> Float[Tensor, ""]:
        """The loss of a batch, in nats and Dice distance.

        Args:
            logits: of the network.
            masks: class numbers or ``ignore``.
        """
        logits = logits.float()
        cross_entropy = F.cross_entropy(logits, masks, ignore_index=self.ignore)
        return cross_entropy + self.dice_weight * self.dice(logits, masks)
