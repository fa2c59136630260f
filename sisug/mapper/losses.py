"""The semantic mapper's losses (stage 2), as plain functions of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sisug.generators.losses import discriminator_adversarial_loss, r1_penalty
from sisug.types import Images


def proxy_loss(
    logits: Float[Tensor, "batch cluster split split"], mask: Int64[Tensor, "batch split split"]
) -> Float[Tensor, ""]:
    """Cross-entropy to the sample's own proxy mask (paper, Fig. 3; the form is our reading).

    Args:
        logits: of the mapper, for a condition made from the sample.
        mask: the sample's proxy mask.
    """
    return F.cross_entropy(logits.float(), mask)


def reading_loss(
    logits: Float[Tensor, "batch classes height width"],
    mask: Int64[Tensor, "batch height width"],
    ignore: int,
    dice_weight: float,
) -> Float[Tensor, ""]:
    """What a segmenter reads in the synthesised image must be the mask that went in (the reconstruction term of the
    paper's Fig. 3; the form is our choice).

    Cross-entropy, and one minus the Dice coefficient of every class, over the classes that the masks of the batch show:
    eyes have a hundredth of the pixels of hair, and count as much in the score.

    Args:
        logits: of the segmenter, for synthesised images.
        mask: what the images were to show; ``ignore`` where the user does not care.
        ignore: that value.
        dice_weight: of the second part.
    """
    logits = logits.float()
    counted = mask != ignore
    # A batch without any counted pixel adds nothing, rather than NaN.
    entropy = F.cross_entropy(logits, mask, ignore_index=ignore, reduction="sum") / counted.sum().clamp_min(1)
    shares = logits.softmax(dim=1) * counted[:, None]
    target = F.one_hot(mask.masked_fill(~counted, 0), logits.shape[1]).permute(0, 3, 1, 2) * counted[:, None]
    both, total = (shares * target).sum(dim=(0, 2, 3)), (shares + target).sum(dim=(0, 2, 3))
    shown = target.sum(dim=(0, 2, 3)) > 0
    dice = (2 * both + 1) / (total + 1)
    missed = ((1 - dice) * shown).sum() / shown.sum().clamp_min(1)
    return entropy + dice_weight * missed


def discriminator_losses(
    discriminator: nn.Module, real: Images, fake: Images, gamma: float
) -> tuple[dict[str, Float[Tensor, ""]], Float[Tensor, ""]]:
    """The discriminator's losses, unweighted, and their sum: plain samples must pass, synthesised ones not.

    Args:
        discriminator: images to logits.
        real: plain samples.
        fake: synthesised images, without a graph.
        gamma: weight of the gradient penalty, twice that of the sum (StyleGAN2); 0 leaves it out.
    """
    loss = discriminator_adversarial_loss(discriminator(real).float(), discriminator(fake).float())
    if not gamma:
        return {"discriminator": loss}, loss
    with torch.autocast(real.device.type, enabled=False):
        penalty = r1_penalty(discriminator, real)
    return {"discriminator": loss, "r1": penalty}, loss + gamma / 2 * penalty
