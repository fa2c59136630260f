"""The discriminator that reads layouts (stage 1): a class per position, on the generator's features."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class SegmentationDiscriminator(nn.Module):
    """Features to logits of K + 1 classes per position, and one logit for the whole.

    On unmodified features each position must be found to be of its proxy mask's cluster; on rearranged ones all must be
    found "made". It so judges layout and realism at once (Schönfeld et al., "You Only Need Adversarial Supervision for
    Semantic Image Synthesis", ICLR 2021, section 3.1; that it sees features in place of images is our choice: a step
    of training renders nothing).

    Args:
        channels: channels of the features.
        clusters: K, number of clusters of the proxy masks; class K is "made".
        ratio: resolution of the masks over that of the features, 1 or more.
        widths: channels at the features' resolution, at half of it, and so on.
    """

    def __init__(self, channels: int, clusters: int, ratio: int, widths: Sequence[int] = (128, 160, 192, 224)) -> None:
        super().__init__()
        self.ratio = ratio
        steps = list(itertools.pairwise(widths))
        self.project = spectral_norm(nn.Conv2d(channels, widths[0], 1))
        self.down = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in steps)
        self.convolutions = nn.ModuleList(spectral_norm(nn.Conv2d(width, width, 3, padding=1)) for width in widths)
        self.up = nn.ModuleList(spectral_norm(nn.Conv2d(b, a, 3, padding=1)) for a, b in steps)
        self.classes = nn.Conv2d(widths[0], (clusters + 1) * ratio**2, 1)
        self.whole = nn.Linear(widths[-1], 1)

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> tuple[Float[Tensor, "batch class mask_height mask_width"], Float[Tensor, "batch 1"]]:
        """Logits of the classes at the masks' resolution, and of the whole.

        Args:
            x: normalized features.
        """
        x = F.leaky_relu(self.convolutions[0](F.leaky_relu(self.project(x), 0.2)), 0.2)
        skips = [x]
        for down, convolution in zip(self.down, self.convolutions[1:], strict=True):
            x = F.leaky_relu(convolution(F.leaky_relu(down(x), 0.2)), 0.2)
            skips.append(x)
        x = skips.pop()
        whole = self.whole(x.mean(dim=(2, 3)))
        for up in reversed(self.up):
            x = F.leaky_relu(up(F.interpolate(x, scale_factor=2.0, mode="nearest")), 0.2) + skips.pop()
        return F.pixel_shuffle(self.classes(x), self.ratio).float(), whole.float()


def balanced_cross_entropy(
    logits: Float[Tensor, "batch class height width"], target: Int64[Tensor, "batch height width"]
) -> Float[Tensor, ""]:
    """Cross-entropy in which every class of the batch weighs about the same, at most five times its share of positions
    (after OASIS; the limit is our choice).

    Args:
        logits: of the classes.
        target: class of each position.
    """
    counts = torch.bincount(target.flatten(), minlength=logits.shape[1]).float()
    weights = torch.where(counts > 0, counts.sum() / counts.clamp_min(1), 0.0)
    weights = (weights / weights[weights > 0].mean()).clamp_max(5.0)[target]
    return (F.cross_entropy(logits, target, reduction="none") * weights).sum() / weights.sum()


def discriminator_loss(
    real: tuple[Float[Tensor, "batch class height width"], Float[Tensor, "batch 1"]],
    real_mask: Int64[Tensor, "batch height width"],
    fake: tuple[Float[Tensor, "batch class height width"], Float[Tensor, "batch 1"]],
) -> Float[Tensor, ""]:
    """Real positions of their clusters, made ones "made"; the whole by the non-saturating loss.

    Args:
        real: logits for unmodified features.
        real_mask: their proxy masks.
        fake: logits for rearranged features.
    """
    made = torch.full_like(real_mask[:1], real[0].shape[1] - 1).expand(len(fake[0]), -1, -1)
    classes = balanced_cross_entropy(real[0], real_mask) + F.cross_entropy(fake[0], made)
    return classes + F.softplus(-real[1]).mean() + F.softplus(fake[1]).mean()
