"""Random warps of features (stage 1): sources whose right answer under another layout is known."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sisug.generators import Features

LARGEST_SHIFT = 0.15
"""Of the whole map, in units of half its width."""

LARGEST_STRETCH = 0.25
"""Of each axis, as a share."""

LARGEST_BEND = 0.1
"""Of the coarse grid that bends the map, in units of half its width."""

BEND_CELLS = 5
"""Nodes of the coarse grid on each axis."""


def random_warp(features: Features, stream: torch.Generator) -> Features:
    """Mirror, shift, stretch and bend a feature map and its RGB skip alike, each sample in its own way.

    A sample laid out as its own mask, from a warped source, must come out as it was: this shows the rearranger where
    content of another place belongs, with the answer at hand, which unrelated samples cannot (our choice, measured).

    Args:
        features: what G1 gave.
        stream: draws the warps.
    """
    batch, channels, size, _ = features.map.shape

    def uniform(*shape: int) -> torch.Tensor:
        return (torch.rand(*shape, generator=stream) * 2 - 1).to(features.map.device)

    cells = (torch.arange(size, device=features.map.device) + 0.5) / size * 2 - 1
    grid = torch.stack(torch.meshgrid(cells, cells, indexing="xy"), dim=-1).expand(batch, size, size, 2)
    mirror = torch.where(uniform(batch, 1, 1, 1) > 0, 1.0, -1.0)
    scale = 1 + LARGEST_STRETCH * uniform(batch, 1, 1, 2)
    bend = F.interpolate(
        uniform(batch, 2, BEND_CELLS, BEND_CELLS), size=(size, size), mode="bicubic", align_corners=True
    )
    grid = grid * scale * torch.cat([mirror, torch.ones_like(mirror)], dim=-1)
    grid = grid + LARGEST_SHIFT * uniform(batch, 1, 1, 2) + LARGEST_BEND * bend.permute(0, 2, 3, 1)
    both = torch.cat([features.map, features.rgb], dim=1)
    moved = F.grid_sample(both, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return Features(moved[:, :channels].contiguous(memory_format=torch.channels_last), moved[:, channels:])
