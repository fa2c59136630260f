"""Dividing the look out of features before they are clustered (proxies): which directions tell colour, not layout.

A cluster that names a colour carries the target's look into the result. Two signs of look need no label: what changes
at a fixed place when only fine styles change, and how the mean of one part differs between samples. Features are
whitened by the sum of both covariances, so that these directions count little in the distance to a centroid (our
choice, after linear discriminant analysis; docs/results.md has the figures).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from sisug.generators import GeneratorBackbone

Covariance = Float[Tensor, "channel channel"]

PART_WEIGHT = 2.0
"""Weight of the part covariance beside the mixing covariance, both of mean variance one."""

RIDGE = 0.1
"""Added variance, in units of the mean: bounds how much a direction without look is stretched."""


def mixed_styles(
    generator: GeneratorBackbone, z: Float[Tensor, "pair z_dim"], variants: int, stream: torch.Generator
) -> Float[Tensor, "pair_variants num_ws w_dim"]:
    """Styles that share the coarse layers within each group of `variants` and differ in the fine ones (StyleGAN's style
    mixing).

    Fine are the layers from half the split's resolution upwards.

    Args:
        generator: the frozen generator.
        z: one latent a group.
        variants: samples a group.
        stream: draws the fine latents.
    """
    fine = torch.randn(len(z) * variants, generator.z_dim, generator=stream).to(z.device)
    ws = generator.map(z).repeat_interleave(variants, dim=0).clone()
    first = generator.first_style(max(4, generator.split // 2))
    ws[:, first:] = generator.map(fine)[:, first:]
    return ws


def mixing_covariance(features: Float[Tensor, "samples channel height width"], variants: int) -> Covariance:
    """Covariance of features at a fixed place within groups that share their coarse styles.

    Args:
        features: normalised features, `variants` after each other in a group.
        variants: samples a group.
    """
    channels = features.shape[1]
    groups = features.reshape(-1, variants, channels, features.shape[2] * features.shape[3])
    deviation = (groups - groups.mean(dim=1, keepdim=True)).permute(2, 0, 1, 3).reshape(channels, -1)
    return deviation @ deviation.t() / deviation.shape[1] * (variants / (variants - 1))


def part_covariance(
    rows: Float[Tensor, "image cell channel"], labels: Int64[Tensor, "image cell"], clusters: int
) -> Covariance:
    """Covariance between images of the mean feature of a cluster, over all clusters.

    Args:
        rows: normalised features of some cells of each image.
        labels: their clusters.
        clusters: number of labels.
    """
    members = F.one_hot(labels, clusters).to(rows.dtype)
    counts = members.sum(dim=1)
    means = torch.einsum("ink,inc->ikc", members, rows) / counts.clamp_min(1)[..., None]
    # A mean of three cells or fewer is noise.
    weight = torch.where(counts >= 4, counts, 0.0)
    centre = (weight[..., None] * means).sum(dim=0) / weight.sum(dim=0).clamp_min(1)[:, None]
    deviation = (means - centre) * weight.sqrt()[..., None]
    return torch.einsum("ikc,ikd->cd", deviation, deviation) / weight.sum().clamp_min(1)


def look_free_projection(mixing: Covariance | None, parts: Covariance | None = None) -> Covariance:
    """The symmetric matrix that whitens features by their look: its square is the inverse of the look's covariance.

    Args:
        mixing: covariance under style mixing; None where styles are not layered.
        parts: covariance of part means between images, once there are clusters; one of both is needed.
    """
    look = None if mixing is None else of_mean_variance_one(mixing)
    if parts is not None:
        varies = PART_WEIGHT * of_mean_variance_one(parts)
        look = varies if look is None else look + varies
    assert look is not None
    look = look + RIDGE * torch.eye(len(look), device=look.device)
    values, vectors = torch.linalg.eigh(look.double())
    return (vectors @ torch.diag(values.rsqrt()) @ vectors.t()).to(look.dtype)


def of_mean_variance_one(covariance: Covariance) -> Covariance:
    """The covariance scaled so that variances average one."""
    return covariance * (len(covariance) / covariance.trace().clamp_min(1e-12))
