"""What LinearGAN minimises (baseline of the few-shot protocol), in training and in the search of latents."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sisug.types import Latents, Masks


def class_loss(
    logits: Float[Tensor, "batch classes height width"], masks: Masks, ignore: int
) -> Float[Tensor, " batch"]:
    """Cross-entropy of each image: the mean over its labelled pixels; 0 without any.

    Args:
        logits: of the classes.
        masks: class numbers or `ignore`.
        ignore: value of pixels that do not count.
    """
    # Without reduction, which on GPUs would sum in another order each time.
    loss = F.cross_entropy(logits, masks, ignore_index=ignore, reduction="none")
    return loss.sum(dim=(1, 2)) / (masks != ignore).sum(dim=(1, 2)).clamp_min(1)


def search_loss(
    logits: Float[Tensor, "batch classes height width"],
    masks: Masks,
    ignore: int,
    z: Latents,
    start: Latents,
    stay_weight: float,
    norm_weight: float,
) -> Float[Tensor, " batch"]:
    """Cross-entropy + stay_weight |z - start|^2 + norm_weight |z|^2, of each sample by itself.

    Args:
        logits: of the classes at `z`.
        masks: the target layouts.
        ignore: value of pixels that do not count.
        z: latents.
        start: latents where the search began.
        stay_weight: keeps to the start, hence to the seed's look.
        norm_weight: keeps latents small.
    """
    far = (z - start).square().sum(dim=1)
    return class_loss(logits, masks, ignore) + stay_weight * far + norm_weight * z.square().sum(dim=1)
