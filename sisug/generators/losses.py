"""Losses of adversarial training (generators, and the rearranger's adversary), as plain functions of tensors."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sisug.types import Images, Styles


def generator_adversarial_loss(fake_logits: Float[Tensor, "batch 1"]) -> Float[Tensor, ""]:
    """Non-saturating loss of the player that makes images (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake_logits).mean()


def discriminator_adversarial_loss(
    real_logits: Float[Tensor, "batch 1"], fake_logits: Float[Tensor, "batch 1"]
) -> Float[Tensor, ""]:
    """Logistic loss of the player that tells real images from made ones."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def r1_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, ""]:
    """Squared gradient of the logit on real images, without its gamma / 2 (Mescheder et al. 2018, equation 9).

    Args:
        discriminator: images to logits, one for each.
        real: images that the discriminator should accept.
    """
    real = real.detach().float().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(real).float().sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def path_lengths(images: Images, ws: Styles) -> Float[Tensor, " batch"]:
    """How far images move for a step of their styles, in a random direction of image space (StyleGAN2, section 3.2).

    The regulariser is the squared difference of these lengths to their own running mean, which keeps equal steps in w
    equal in the image.

    Args:
        images: made from `ws`, with a graph.
        ws: styles that require a gradient.
    """
    direction = torch.randn_like(images) / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * direction).sum(), ws, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()
