"""The network of holistically-nested edge detection, HED (condition edges of stage 2)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sisug.errors import DataError
from sisug.types import Images

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of each stage: those of VGG-16."""

SMALLEST = 2 ** (len(STAGES) - 1)
"""Height and width of which the last stage still sees a pixel."""


class HED(nn.Module):
    """The convolutions of VGG-16 with a side output of edges after each stage, and one fused of all five.

    Its tensors are empty until weights are assigned to them, which ``sisug.conditions.hed_weights`` does.

    Source: Xie & Tu, "Holistically-nested edge detection", 2015, section 3. As in the published reimplementations, side
    outputs are brought to size by bilinear interpolation, and images are not padded.
    """

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        with torch.device("meta"):  # draws no numbers, and takes no time
            before = 3
            self.stages, self.sides = nn.ModuleList(), nn.ModuleList()
            for channels, count in STAGES:
                widths = [before, *[channels] * count]
                self.stages.append(nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)))
                self.sides.append(nn.Conv2d(channels, 1, 1))
                before = channels
            self.fusion = nn.Conv2d(len(STAGES), 1, 1)
            self.register_buffer("mean", torch.empty(1, 3, 1, 1))

    def forward(self, images: Images) -> Float[Tensor, "batch 1 height width"]:
        """Probability of an edge at each pixel.

        Args:
            images: RGB in [-1, 1].

        Raises:
            DataError: images of fewer than ``SMALLEST`` pixels a side.
        """
        if min(images.shape[-2:]) < SMALLEST:
            raise DataError(
                f"images of {images.shape[-1]}x{images.shape[-2]} pixels for HED",
                f"it halves them {len(STAGES) - 1} times",
                f"use a generator of {SMALLEST} pixels or more, or the detector sobel",
            )
        values = (images + 1) * 127.5 - self.mean
        sides = []
        for number, (stage, side) in enumerate(zip(self.stages, self.sides, strict=True)):
            if number > 0:
                values = F.max_pool2d(values, 2)
            assert isinstance(stage, nn.ModuleList)
            for convolution in stage:
                values = F.relu(convolution(values))
            sides.append(F.interpolate(side(values), size=images.shape[-2:], mode="bilinear", align_corners=False))
        return torch.sigmoid(self.fusion(torch.cat(sides, dim=1)))
