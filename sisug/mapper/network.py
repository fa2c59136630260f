"""The semantic mapper's network (stage 2): what a user draws to a proxy mask.

An encoder and decoder, as the paper says (project page: an hourglass); its layers are not published, so they are our
choice.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sisug.nn import Residual, position_code

BANDS = 4
"""Wavelengths of the position code: a stroke means another part at the top of the picture than at the bottom."""


class Mapper(nn.Module):
    """M(condition): logits of the clusters for every cell of the proxy mask.

    The condition comes in at its own resolution, since strokes and eyes are two pixels wide; strided convolutions bring
    it to the split, and a U-shaped network sees it down to a few cells, since sparse conditions leave the rest of the
    layout open.

    Args:
        channels: of the encoded condition.
        clusters: K, labels of the proxy masks.
        size: height and width of conditions, pixels.
        split: height and width of proxy masks; ``size`` divided by a power of two.
        width: channels at the split; twice as many below it.
        coarsest: size at which it stops to descend.
    """

    code: Tensor
    size: int

    def __init__(
        self, channels: int, clusters: int, size: int, split: int, *, width: int = 32, coarsest: int = 4
    ) -> None:
        super().__init__()
        self.size = size
        halvings = int(math.log2(size // split))
        strides = [nn.Conv2d(width if i else channels, width, 4, stride=2, padding=1) for i in range(halvings)]
        self.reduce = nn.ModuleList(strides or [nn.Conv2d(channels, width, 3, padding=1)])
        self.register_buffer("code", position_code(split, BANDS), persistent=False)
        self.place = nn.Conv2d(4 * BANDS, width, 1)
        levels = max(1, int(math.log2(split // coarsest)))
        widths = [width] + [2 * width] * levels
        self.descend = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in itertools.pairwise(widths))
        self.down = nn.ModuleList(Residual(each) for each in widths[1:])
        self.ascend = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(Residual(each) for each in widths[:-1])
        self.norm = nn.GroupNorm(8, width)
        self.head = nn.Conv2d(width, clusters, 1)

    def forward(
        self, condition: Float[Tensor, "batch channel size size"]
    ) -> Float[Tensor, "batch cluster split split"]:
        x = condition.contiguous(memory_format=torch.channels_last)
        for i, layer in enumerate(self.reduce):
            x = layer(F.silu(x) if i else x)
        x = F.silu(x) + self.place(self.code[None])
        skips: list[Tensor] = []
        for descend, block in zip(self.descend, self.down, strict=True):
            skips.append(x)
            x = block(descend(F.avg_pool2d(x, 2)))
        for level in reversed(range(len(self.up))):
            x = F.interpolate(self.ascend[level](x), scale_factor=2.0, mode="nearest") + skips[level]
            x = self.up[level](x)
        logits: Tensor = self.head(F.silu(self.norm(x)))
        return logits.float()


def straight_through(
    logits: Float[Tensor, "batch cluster split split"],
) -> Float[Tensor, "batch cluster split split"]:
    """The most probable labels as weights of 0 and 1, whose gradient is that of the probabilities.

    The rearranger learns with one label a cell, as stage 1's masks have; labels have no gradient (our choice; Y. Bengio
    et al., "Estimating or propagating gradients through stochastic neurons", 2013). In use it sees the probabilities,
    which give better images; a training on them was no better than this one (docs/results.md).

    Args:
        logits: of the mapper.
    """
    weights = logits.softmax(dim=1)
    hard = F.one_hot(logits.argmax(dim=1), logits.shape[1]).permute(0, 3, 1, 2).to(weights.dtype)
    return hard + weights - weights.detach()
