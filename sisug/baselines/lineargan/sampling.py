"""LinearGAN's semantic-conditional sampling (baseline of the few-shot protocol): images for a mask by searching latents
whose classes, as the extractor reads them, match it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sisug.baselines.lineargan.arithmetic import repeatable_gradients
from sisug.baselines.lineargan.losses import search_loss
from sisug.baselines.lineargan.network import LinearExtractor
from sisug.common.seeding import fixed_latents
from sisug.errors import ConfigError, DataError, check_range
from sisug.generators import GeneratorBackbone
from sisug.types import Images, Latents, Styles


@dataclass(frozen=True)
class ConditionalSamples:
    """What was found for masks and seeds: rows are mask 0 with every seed, then mask 1 with every seed, and so on.

    Args:
        images: in [-1, 1].
        ws: their styles.
        z: their latents.
        match: share of the mask's labelled pixels that the extractor names as the mask does, 0 to 1.
        start_match: the same for the draw where the search began.
    """

    images: Images
    ws: Styles
    z: Latents
    match: Float[Tensor, " batch"]
    start_match: Float[Tensor, " batch"]


def sample(
    generator: GeneratorBackbone,
    extractor: LinearExtractor,
    masks: Int64[Tensor, "targets height width"],
    seeds: Sequence[int],
    *,
    draws: int = 100,
    steps: int = 50,
    learning_rate: float = 0.01,
    stay_weight: float = 1e-3,
    norm_weight: float = 1e-3,
    batch: int = 8,
) -> ConditionalSamples:
    """Search an image of each seed for each mask.

    Latents are drawn from the seed; the one whose classes match the mask at most pixels is where Adam starts, on z,
    without truncation. Defaults are those of the published protocol (10 draws for bedrooms). Adapted: a seed's draws
    serve all masks, where the authors draw anew for each, so a table takes less time than its images one by one; sums
    of squares run over `z_dim` numbers, 512 with the authors.

    Args:
        generator: frozen.
        extractor: trained for it, on its device.
        masks: target layouts, square, of any size; pixels of the ignored value are free.
        seeds: one a sample of each mask; a row depends on its mask and seed alone.
        draws: from which a search starts at the best.
        steps: of Adam.
        learning_rate: of Adam.
        stay_weight: of the squared distance from the start.
        norm_weight: of the squared length of z.
        batch: searches at once; images differ in their last digits with it.

    Returns:
        On the generator's device.

    Raises:
        DataError: another generator, or masks that are none of the label set or empty.
        ConfigError: a number out of range, or no seeds.
    """
    check_range(draws=draws, learning_rate=learning_rate, batch=batch, above=0)
    check_range(steps=steps, stay_weight=stay_weight, norm_weight=norm_weight)
    extractor.check(generator)
    _check_targets(extractor, masks)
    if not seeds:
        raise ConfigError("no seeds", "every image takes its first latents from one", "give at least one seed")
    device = extractor.weight.device
    with repeatable_gradients(device):
        masks = masks.clone().to(device)
        begin = torch.stack([_best_draws(generator, extractor, masks, seed, draws, batch) for seed in seeds], dim=1)
        begin = begin.flatten(0, 1)
        targets = masks.repeat_interleave(len(seeds), dim=0)
        rows = []
        for start, target in zip(torch.split(begin, batch), torch.split(targets, batch), strict=True):
            z = start.clone().requires_grad_()
            optimizer = torch.optim.Adam([z], learning_rate)
            for _ in range(steps):
                logits = extractor(generator.layers(generator.map(z)), masks.shape[-1])
                loss = search_loss(logits, target, extractor.labels.ignore, z, start, stay_weight, norm_weight)
                # Searches share no number: the gradient of the sum is that of each.
                (gradient,) = torch.autograd.grad(loss.sum(), z)
                z.grad = gradient
                optimizer.step()
            rows.append(_finished(generator, extractor, z.detach(), start, target))
    return ConditionalSamples(*(torch.cat(each) for each in zip(*rows, strict=True)))


@torch.no_grad()
def _best_draws(
    generator: GeneratorBackbone, extractor: LinearExtractor, masks: Tensor, seed: int, draws: int, batch: int
) -> Latents:
    """Of a seed's draws, the one for each mask that matches it best; the first of equals."""
    z = fixed_latents(torch.arange(draws), generator.z_dim, seed=seed, purpose="lineargan draws").to(masks.device)
    size = masks.shape[-1]
    parts = [extractor.segment(generator, generator.map(part), size) for part in torch.split(z, batch)]
    found = torch.cat([part.to(torch.uint8) for part in parts])
    return z[torch.stack([_matches(found, mask).argmax() for mask in masks])]


@torch.no_grad()
def _finished(
    generator: GeneratorBackbone, extractor: LinearExtractor, z: Latents, start: Latents, targets: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The fields of `ConditionalSamples` of searches that are over."""
    ws = generator.map(z)
    images = generator.images(ws)
    size = targets.shape[-1]
    counted = (targets != extractor.labels.ignore).sum(dim=(1, 2))
    match, start_match = (
        _matches(extractor.segment(generator, styles, size), targets) / counted for styles in (ws, generator.map(start))
    )
    return images, ws, z, match, start_match


def _matches(found: Tensor, target: Tensor) -> Int64[Tensor, " batch"]:
    """Pixels of the target that were found so; the ignored value, being no class, is never found."""
    return (found == target).sum(dim=(1, 2))


def _check_targets(extractor: LinearExtractor, masks: Tensor) -> None:
    if len(masks) == 0 or masks.shape[1] != masks.shape[2]:
        raise DataError(
            f"target masks of shape {tuple(masks.shape)}",
            "a target is as high as wide, as the generator's images are",
            "give at least one square mask",
        )
    extractor.labels.check(masks)
    empty = (masks == extractor.labels.ignore).flatten(1).all(dim=1).nonzero().flatten().tolist()
    if empty:
        raise DataError(
            f"target masks {empty[:8]} have no labelled pixel",
            f"all of theirs are {extractor.labels.ignore} (ignored), so that any image would match",
            "leave them out",
        )
