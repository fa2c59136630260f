"""Rows of features that tests choose themselves, and an extractor that never sees an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Pool(nn.Module):
    """Mean colour of each quarter of an image."""

    num_features = 12
    name = "pool"

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def rows(count: int, seed: int, shift: float = 0.0, scale: float = 1.0, width: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(99))
    return torch.randn(count, width, generator=generator) @ mixing * scale + shift


def pictures(count: int, seed: int, size: int = 8) -> Tensor:
    """Images in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.rand(count, 3, 2, 2, generator=generator) * 1.6 - 0.8
    return patches.repeat_interleave(size // 2, 2).repeat_interleave(size // 2, 3)
