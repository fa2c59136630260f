"""Blocks that the networks of both stages are made of."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def position_code(size: int, bands: int) -> Float[Tensor, "channel size size"]:
    """Sines and cosines of both axes at wavelengths from the whole map down to two cells.

    The product of two codes depends only on their distance and peaks where it is zero, so that attention can stay in
    place.
    """
    cells = (torch.arange(size) + 0.5) / size
    frequencies = torch.logspace(0, math.log2(size / 2), bands, base=2.0)
    angles = 2 * math.pi * cells[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1).t()
    code = torch.cat([line[:, :, None].expand(-1, -1, size), line[:, None, :].expand(-1, size, -1)])
    return code / math.sqrt(2 * bands)


class Residual(nn.Module):
    """Two 3x3 convolutions around a residual path, optionally scaled per channel by a look vector.

    Args:
        width: channels.
        look_dim: size of the look vector; 0 for none.
    """

    def __init__(self, width: int, look_dim: int = 0) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.conv0 = nn.Conv2d(width, width, 3, padding=1)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.look = nn.Linear(look_dim, 2 * width) if look_dim else None
        nn.init.zeros_(self.conv1.weight)

    def forward(
        self, x: Float[Tensor, "batch width height w"], look: Float[Tensor, "batch look"] | None = None
    ) -> Float[Tensor, "batch width height w"]:
        h = self.norm(x)
        if self.look is not None and look is not None:
            scale, shift = self.look(look)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        out: Tensor = x + self.conv1(F.silu(self.conv0(F.silu(h))))
        return out
