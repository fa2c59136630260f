"""Samples laid out by the mapper's proxy masks in training (stage 2), and what the rearranger must keep meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sisug.generators import Features
from sisug.rearranger.losses import look_of, reconstruction_loss, style_loss
from sisug.rearranger.network import LayoutMask
from sisug.rearranger.pipeline import RearrangementPipeline, SourceSamples
from sisug.types import Images, ProxyMasks

OWN = 4
"""One of so many samples is laid out as itself too."""


@dataclass(frozen=True)
class LaidOut:
    """Samples in the layouts of their neighbours' conditions, and some in their own.

    Args:
        features: of the neighbours' layouts.
        images: rendered from them.
        target: their proxy masks.
        order: number of the sample whose look each has.
        source_mask: proxy masks of those samples.
        own_features: of the first samples in their own layouts.
        own_images: rendered from them.
    """

    features: Features
    images: Images
    target: ProxyMasks
    order: Tensor
    source_mask: ProxyMasks
    own_features: Features
    own_images: Float[Tensor, "own 3 height width"]


def lay_out(
    pipeline: RearrangementPipeline,
    source: SourceSamples,
    target: Float[Tensor, "batch cluster size size"],
) -> LaidOut:
    """Each sample in the layout that its neighbour's condition asks for; some in their own too.

    Args:
        pipeline: gradients reach its network, and the target through it.
        source: the samples.
        target: weights of the clusters in each position, of the conditions of the samples.
    """
    mask = source.mask
    batch = len(mask)
    order = torch.arange(batch, device=mask.device).roll(1)
    every = torch.cat([order, torch.arange(max(1, batch // OWN), device=mask.device)])
    own = F.one_hot(mask[every[batch:]], target.shape[1]).permute(0, 3, 1, 2).to(target.dtype)
    layouts: LayoutMask = torch.cat([target, own])
    every_source = source.select(every)
    result = pipeline.rearrange(every_source, layouts)
    images = pipeline.render(result, every_source.ws, clamp=False)
    return LaidOut(
        features=Features(result.map[:batch], result.rgb[:batch]),
        images=images[:batch],
        target=target.detach().argmax(dim=1),
        order=order,
        source_mask=mask[order],
        own_features=Features(result.map[batch:], result.rgb[batch:]),
        own_images=images[batch:],
    )


def kept_losses(made: LaidOut, features: Features, plain: Images, clusters: int) -> dict[str, Float[Tensor, ""]]:
    """What keeps the rearranger a rearranger while it learns along: samples in their own layout are given back, and
    parts keep their look in others (stage 1's terms).

    Args:
        made: of ``lay_out``.
        features: of the samples.
        plain: the samples.
        clusters: K.
    """
    own = len(made.own_images)
    given = Features(features.map[:own], features.rgb[:own])
    new = look_of(made.features.map, made.images, features.map)
    old = look_of(features.map, plain, features.map)[made.order]
    return {
        "reconstruction": reconstruction_loss(made.own_features, given),
        "image": (made.own_images - plain[:own]).abs().mean(),
        "style": style_loss(new, made.target, old, made.source_mask, clusters),
    }
