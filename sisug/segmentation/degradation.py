"""Degraded copies of drawn images: the judge trains on them, so that it can read a generator's imperfect samples."""

from __future__ import annotations

import kornia
import torch
from torch import Generator, Tensor

from sisug.types import Images

MAX_BLUR = 1.2
"""Largest standard deviation of the blur, in pixels."""

MAX_NOISE = 0.1
"""Largest standard deviation of the noise, in units of the image range [-1, 1]."""

COLOUR_JITTER = 0.12
"""Standard deviation of the entries of the random colour matrix and offset."""


def degrade(images: Images, share: float, stream: Generator) -> Images:
    """Blur, tint and disturb some of the images; the others stay as they are.

    Of the degraded ones each gets a blur, a linear change of its colours, smooth blotches (as generators leave on plain
    areas) and noise, all of random strength from none to the largest.

    Args:
        images: in [-1, 1]; height and width multiples of 8.
        share: probability that an image is degraded, 0 to 1.
        stream: random numbers, on the CPU; the result is the same on every device.

    Returns:
        New images, again in [-1, 1].

    Source: our choice, after looking at samples of the generator that ships.
    """
    batch, channels, height, width = images.shape

    def uniform() -> Tensor:
        return torch.rand(batch, 1, 1, 1, generator=stream).to(images.device)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=stream).to(images.device)

    chosen = uniform() < share
    sigma = (0.05 + MAX_BLUR * uniform()).reshape(batch, 1).expand(batch, 2)
    degraded = kornia.filters.gaussian_blur2d(images, (7, 7), sigma)
    matrix = torch.eye(channels, device=images.device) + COLOUR_JITTER * uniform()[:, 0] * normal(
        batch, channels, channels
    )
    degraded = torch.einsum("bij,bjhw->bihw", matrix, degraded)
    degraded = degraded + COLOUR_JITTER * uniform() * normal(batch, channels, 1, 1)
    blotches = torch.nn.functional.interpolate(
        normal(batch, channels, height // 8, width // 8), scale_factor=8, mode="bicubic"
    )
    degraded = degraded + MAX_NOISE * uniform() * blotches
    degraded = degraded + MAX_NOISE * uniform() * normal(batch, channels, height, width)
    return torch.where(chosen, degraded.clamp(-1, 1), images)
