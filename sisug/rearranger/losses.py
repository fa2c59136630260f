"""The rearranger's losses (stage 1), as plain functions of tensors.

The paper names self-reconstruction and agreement with the mask; the forms, and style terms, are our choice.
The adversarial ones are those of the generator (sisug/generators/losses.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from sisug.generators import Features
from sisug.proxies.codebook import Codebook
from sisug.types import Images


def reconstruction_loss(result: Features, source: Features) -> Float[Tensor, ""]:
    """Distance in feature space when the target is the source's own mask: mean absolute error in units of each
    channel's deviation.

    Args:
        result: rearranged features.
        source: the features that went in.
    """
    deviation = source.map.std(dim=(0, 2, 3), keepdim=True) + 1e-3
    return ((result.map - source.map) / deviation).abs().mean() + (result.rgb - source.rgb).abs().mean()


def perceptual_loss(
    result: Sequence[Float[Tensor, "batch _channel _height _width"]],
    source: Sequence[Float[Tensor, "batch _channel _height _width"]],
) -> Float[Tensor, ""]:
    """Distance between two images in a discriminator's features, each cell's vector scaled to length one (after LPIPS,
    without its weights).

    Args:
        result: features of the reconstruction, a tensor a level.
        source: the same of the image itself.
    """
    levels = [
        (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(dim=1).mean()
        for a, b in zip(result, source, strict=True)
    ]
    return torch.stack(levels).mean()


def mask_loss(
    codebook: Codebook,
    features: Float[Tensor, "batch channel size size"],
    target: Int64[Tensor, "batch size size"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Cross-entropy of the features' soft assignment against the target mask: hard k-means has no gradient.

    Args:
        codebook: fitted centroids.
        features: rearranged features.
        target: proxy mask that they should have.
        temperature: of the soft assignment, in units of the codebook's spread.
    """
    return F.nll_loss(codebook.log_probabilities(features, temperature), target)


def cluster_means(
    values: Float[Tensor, "batch channel size size"], mask: Int64[Tensor, "batch size size"], clusters: int
) -> tuple[Float[Tensor, "batch cluster channel"], Float[Tensor, "batch cluster"]]:
    """Mean of the values under each label, and the share of cells that carries it."""
    members = F.one_hot(mask.flatten(1), clusters).to(values.dtype)
    counts = members.sum(dim=1)
    sums = torch.einsum("bnk,bcn->bkc", members, values.flatten(2))
    return sums / counts.clamp_min(1)[..., None], counts / members.shape[1]


def look_of(
    features: Float[Tensor, "batch channel size size"],
    images: Images,
    reference: Float[Tensor, "batch channel size size"],
) -> Float[Tensor, "batch channel_and_colours size size"]:
    """What the style loss compares: features in units of the reference's deviation, beside colours of equal total
    weight.
    """
    deviation = reference.std(dim=(0, 2, 3), keepdim=True) + 1e-3
    colours = F.adaptive_avg_pool2d(images, features.shape[2])
    repeats = max(1, features.shape[1] // 3)
    return torch.cat([features / deviation, colours.repeat(1, repeats, 1, 1)], dim=1)


def style_loss(
    result: Float[Tensor, "batch channel size size"],
    result_mask: Int64[Tensor, "batch size size"],
    source: Float[Tensor, "batch channel size size"],
    source_mask: Int64[Tensor, "batch size size"],
    clusters: int,
) -> Float[Tensor, ""]:
    """Difference of mean values under the labels that both masks carry: the result keeps the source's look, part by
    part.

    Args:
        result: features or colours after rearranging, comparable between channels.
        result_mask: layout of the result (the target mask).
        source: the same of the source.
        source_mask: layout of the source.
        clusters: labels of the masks.
    """
    result_means, result_share = cluster_means(result, result_mask, clusters)
    source_means, source_share = cluster_means(source, source_mask, clusters)
    weight = torch.minimum(result_share, source_share)
    difference = (result_means - source_means).abs().mean(dim=2)
    return (weight * difference).sum() / weight.sum().clamp_min(1e-6)


def stage_style_loss(
    result: Float[Tensor, "batch channel size size"],
    result_mask: Int64[Tensor, "batch mask_size mask_size"],
    source: Float[Tensor, "batch channel size size"],
    source_mask: Int64[Tensor, "batch mask_size mask_size"],
    clusters: int,
) -> Float[Tensor, ""]:
    """`style_loss` on features that are coarser than the masks: a position belongs to the clusters below it in parts.

    Args:
        result: rearranged features, comparable between channels.
        result_mask: layout of the result (the target mask).
        source: the same of the source.
        source_mask: layout of the source.
        clusters: number of clusters of the masks.
    """

    def means(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        members = F.one_hot(mask, clusters).permute(0, 3, 1, 2).to(x.dtype)
        members = F.avg_pool2d(members, mask.shape[2] // x.shape[2]).flatten(2)  # batch, cluster, position
        counts = members.sum(dim=2)
        sums = torch.einsum("bkn,bcn->bkc", members, x.flatten(2))
        return sums / counts.clamp_min(1.0)[..., None], counts / members.shape[2]

    result_means, result_fraction = means(result, result_mask)
    source_means, source_fraction = means(source, source_mask)
    weight = torch.minimum(result_fraction, source_fraction)
    difference = (result_means - source_means).abs().mean(dim=2)
    return (weight * difference).sum() / weight.sum().clamp_min(1e-6)
