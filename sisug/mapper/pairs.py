"""Pairs of a generator's samples for the mapper (stage 2): what they show, and their proxy masks, made once."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from sisug.common.atomic_file import atomic_write
from sisug.common.cache_folder import cache_folder
from sisug.common.image_bytes import to_bytes
from sisug.common.seeding import fixed_latents
from sisug.rearranger.pipeline import RearrangementPipeline
from sisug.types import Styles

logger = logging.getLogger(__name__)

MASK_SIZE = 128
"""Height and width at which class masks are kept, at most, pixels; conditions are made from them at their own size."""

BORDER = 2
"""Cells at the border of a proxy mask whose clusters tell the border, not what is there."""

TOGETHER = 4
"""Samples that are made together."""


@dataclass(frozen=True)
class Pairs:
    """Samples as the mapper learns from them, in bytes, on the CPU.

    Args:
        proxy_masks: their proxy masks.
        masks: their class masks; None where no label says what they show.
        images: the samples at the conditions' size; None where conditions are made from masks alone.
    """

    proxy_masks: UInt8[Tensor, "pair split split"]
    masks: UInt8[Tensor, "pair mask_size mask_size"] | None
    images: UInt8[Tensor, "pair 3 size size"] | None

    def __len__(self) -> int:
        return len(self.proxy_masks)


@torch.no_grad()
def make_pairs(
    pipeline: RearrangementPipeline,
    segment: Callable[[Styles], Int64[Tensor, "batch height width"]] | None,
    count: int,
    *,
    size: int,
    with_images: bool,
    truncation: float,
    seed: int,
    purpose: str,
) -> Pairs:
    """Make pairs of random samples.

    Args:
        pipeline: generator and codebook.
        segment: styles of samples to their class masks; None where no masks are needed.
        count: number of pairs, 1 or more.
        size: height and width of the conditions, pixels.
        with_images: whether the samples are rendered, which takes most of the time at 1024 px.
        truncation: of the samples, 0 to 1.
        seed: of the samples.
        purpose: which samples: other names give other ones.
    """
    device = next(pipeline.generator.parameters()).device
    proxies, masks, images = [], [], []
    for start in range(0, count, TOGETHER):
        index = torch.arange(start, min(start + TOGETHER, count), device=device)
        ws = pipeline.generator.map(
            fixed_latents(index, pipeline.generator.z_dim, seed=seed, purpose=purpose), truncation
        )
        source = pipeline.source(ws)
        proxies.append(source.mask.to(torch.uint8).cpu())
        if segment is not None:
            mask = segment(ws)[:, None].float()
            side = min(MASK_SIZE, mask.shape[-1])
            masks.append(F.interpolate(mask, (side, side), mode="nearest-exact")[:, 0].to(torch.uint8).cpu())
        if with_images:
            image = pipeline.render(source.features, ws)
            small = (
                F.interpolate(image, (size, size), mode="bilinear", antialias=True) if size < image.shape[-1] else image
            )
            images.append(to_bytes(small).cpu())
        if start % 100 == 0:
            logger.info("%d of %d pairs of samples and proxy masks", start, count)
    return Pairs(torch.cat(proxies), torch.cat(masks) if masks else None, torch.cat(images) if images else None)


def cached_pairs(make: Callable[[], Pairs], key: Mapping[str, Any]) -> Pairs:
    """Pairs from the cache folder, or made now and kept there for the next kind of input.

    A file that is damaged is made anew.

    Args:
        make: makes them.
        key: all that decides them; JSON values.

    Raises:
        DiskFullError: the disk is full.
    """
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()
    path = cache_folder() / "pairs" / f"{digest[:32]}.safetensors"
    if path.is_file():
        try:
            found = load_file(path)
            return Pairs(found["proxy_masks"], found.get("masks"), found.get("images"))
        except (SafetensorError, KeyError, OSError):
            logger.warning("%s is damaged; the pairs are made anew", path)
    pairs = make()
    parts = {"proxy_masks": pairs.proxy_masks, "masks": pairs.masks, "images": pairs.images}
    with atomic_write(path) as file:
        file.write(save({name: value.contiguous() for name, value in parts.items() if value is not None}))
    return pairs


def move_together(
    masks: Int64[Tensor, "batch height width"],
    proxy_masks: Int64[Tensor, "batch split split"],
    fraction: float,
    spread: float,
    rng: torch.Generator,
) -> tuple[Int64[Tensor, "batch height width"], Int64[Tensor, "batch split split"]]:
    """Some pairs scaled, sheared and shifted, mask and proxy mask alike: layouts that the generator hardly makes.

    Never mirrored: clusters tell left from right. What comes in at the border repeats what lies next to it. Clusters of
    the border itself stay there and nowhere else: generators pad their features, and would draw a frame inside.

    Args:
        masks: class numbers.
        proxy_masks: of the same samples.
        fraction: fraction of the pairs that are moved, 0 to 1.
        spread: standard deviation of scale and shear, and of the shift in halves of the picture, 0 or more.
        rng: source of the draws, on the CPU.
    """
    batch = len(masks)
    amount = (torch.rand(batch, 1, 1, generator=rng) < fraction).float() * spread
    change = torch.eye(2, 3) + torch.randn(batch, 2, 3, generator=rng) * amount

    def moved(x: Tensor) -> Tensor:
        grid = F.affine_grid(change, [batch, 1, *x.shape[1:]], align_corners=False).to(x.device)
        inside = 1 - 2 * (BORDER + 0.5) / x.shape[2]
        found = F.grid_sample(x[:, None].float(), grid.clamp(-inside, inside), mode="nearest", align_corners=False)
        return found[:, 0].round().long()

    moved_proxies = proxy_masks.clone()
    inner = slice(BORDER, proxy_masks.shape[1] - BORDER)
    moved_proxies[:, inner, inner] = moved(proxy_masks)[:, inner, inner]
    return moved(masks), moved_proxies
