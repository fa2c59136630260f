"""What makes extracted lines look drawn by hand (conditions of stage 2): random numbers, smooth noise, wobble."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from kornia.filters import gaussian_blur2d
from torch import Tensor

REFERENCE_SIZE = 64
"""Lengths are chosen in pixels at this size, and scaled to that of the images."""


def scale_of(images: Tensor) -> float:
    """Pixels of images for each pixel at ``REFERENCE_SIZE``.

    Args:
        images: (..., height, width).
    """
    return max(images.shape[-2:]) / REFERENCE_SIZE


def uniform(random: torch.Generator, low: float, high: float, like: Tensor) -> Float[Tensor, " batch"]:
    """One number in [low, high) for each sample, on the samples' device.

    Args:
        random: source, on any device.
        low: smallest number.
        high: largest number.
        like: a batch.
    """
    drawn = torch.rand(len(like), generator=random, device=random.device)
    return (low + (high - low) * drawn).to(like.device)


def whole(random: torch.Generator, low: int, high: int, like: Tensor) -> Int64[Tensor, " batch"]:
    """One whole number in [low, high] for each sample, on the samples' device.

    Args:
        random: source, on any device.
        low: smallest number.
        high: largest number, itself included.
        like: a batch.
    """
    return torch.randint(low, high + 1, (len(like),), generator=random, device=random.device).to(like.device)


def smooth_noise(
    random: torch.Generator, channels: int, cells: int, like: Tensor
) -> Float[Tensor, "batch channel height width"]:
    """Random fields that vary slowly; each has zero mean and unit variance over its pixels.

    Args:
        random: source, on any device.
        channels: independent fields a sample.
        cells: bumps along a side, at least 2.
        like: a batch of the wanted height and width, on the wanted device.
    """
    coarse = torch.randn(len(like), channels, cells, cells, generator=random, device=random.device).to(like.device)
    field = F.interpolate(coarse, size=like.shape[-2:], mode="bicubic", align_corners=True)
    variance, mean = torch.var_mean(field, dim=(2, 3), keepdim=True, correction=0)
    return (field - mean) / (variance + 1e-12).sqrt()


def share(field: Float[Tensor, "batch 1 height width"], amount: Tensor) -> Bool[Tensor, "batch 1 height width"]:
    """Coherent patches that cover about the given share of each sample.

    Args:
        field: smooth noise.
        amount: 0 to 1, one for each sample.
    """
    return field < torch.special.ndtri(amount.clamp(0, 1))[:, None, None, None]


def wobble(
    values: Float[Tensor, "batch channel height width"],
    offsets: Float[Tensor, "batch 2 height width"],
    mode: str = "bilinear",
) -> Float[Tensor, "batch channel height width"]:
    """Move every pixel a little.

    Args:
        values: what to move.
        offsets: how far right and down each pixel looks for its value, pixels.
        mode: "bilinear", or "nearest" for labels.
    """
    height, width = values.shape[-2:]
    still = torch.eye(2, 3, device=values.device, dtype=values.dtype).expand(len(values), -1, -1)
    with torch.autocast(values.device.type, enabled=False):  # half precision would place pixels next to their places
        grid = F.affine_grid(still, [len(values), 1, height, width], align_corners=False)
    step = torch.tensor([2 / width, 2 / height], device=values.device, dtype=values.dtype)
    return F.grid_sample(
        values, grid + offsets.movedim(1, -1) * step, mode=mode, padding_mode="border", align_corners=False
    )


def blur(
    values: Float[Tensor, "batch channel height width"], sigma: Float[Tensor, " batch"], largest: float
) -> Float[Tensor, "batch channel height width"]:
    """Gaussian blur, of a width of its own for each sample.

    Args:
        values: what to blur.
        sigma: standard deviations, pixels.
        largest: bound of ``sigma``, which sets the size of the kernel.
    """
    kernel = 2 * math.ceil(2.5 * largest) + 1
    sigmas = sigma.clamp_min(1e-3)[:, None].expand(-1, 2)
    with torch.autocast(values.device.type, enabled=False):  # half precision would make steps of smooth slopes
        return gaussian_blur2d(values.float(), kernel, sigmas.float(), border_type="replicate")


def to_unit(values: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
    """Scale each sample so that its largest value is 1; a sample of zeros stays.

    Args:
        values: 0 or more.
    """
    peak = values.amax(dim=(1, 2, 3), keepdim=True)
    return values / torch.where(peak > 0, peak, 1)
