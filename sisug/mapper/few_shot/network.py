"""The few-shot segmenter's network (stage 2): a small convolutional reader of all of a generator's features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class FewShotNetwork(nn.Module):
    """From the features of every resolution to a class for every pixel.

    Features are normalised per sample and channel, which divides the look out: one labelled sample shows one look, and
    the next sample has another (our choice, measured).

    Args:
        channels: of the feature maps, coarse to fine.
        num_classes: classes to tell apart.
        width: channels of the first convolution; later ones have half.

    Source: N. Tritrong et al., "Repurposing GANs for One-shot Semantic Part Segmentation" (2021), the smaller of its
        convolutional readers; its widths and dilations are halved here, for images of 64 px.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, width: int = 64) -> None:
        super().__init__()
        sizes = [(sum(channels) + 3, width, 1), (width, width // 2, 2), (width // 2, width // 2, 1)]
        sizes += [(width // 2, width // 2, 2)]
        layers: list[nn.Module] = []
        for before, after, dilation in sizes:
            layers += [nn.Conv2d(before, after, 3, padding=dilation, dilation=dilation), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width // 2, num_classes, 3, padding=1))

    def forward(
        self, columns: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch num_classes height width"]:
        """Logits of the classes.

        Args:
            columns: of `columns_of`.
        """
        logits: Tensor = self.layers(columns)
        return logits


LARGEST = 128
"""Size that columns have at most, pixels: a generator of 1024 px has 5,000 features a pixel, 20 GB an image."""


def last_of_each_size(layers: Sequence[Float[Tensor, "batch _ _ _"]]) -> list[Float[Tensor, "batch _ _ _"]]:
    """The last layer of every resolution, coarse to fine: those before it say little more.

    Args:
        layers: of `GeneratorBackbone.layers`.
    """
    return list({layer.shape[-1]: layer for layer in layers}.values())


def columns_of(
    layers: Sequence[Float[Tensor, "batch _ _ _"]], images: Float[Tensor, "batch 3 image_height image_width"]
) -> Float[Tensor, "batch channel height width"]:
    """All features of a pixel in one column, normalised, at the image's resolution, or at ``LARGEST``.

    Args:
        layers: of `GeneratorBackbone.layers`; of each resolution the last one is taken.
        images: of the same samples, in [-1, 1].
    """
    side = min(images.shape[-1], LARGEST)
    maps = [F.instance_norm(each.float()) for each in last_of_each_size(layers)]
    sized = [_sized(each, side) for each in [*maps, images.float()]]
    # Joined with channels last, as convolutions like them; joining such tensors along dim 1 takes ten times longer.
    return torch.cat([each.permute(0, 2, 3, 1) for each in sized], dim=3).permute(0, 3, 1, 2)


def _sized(values: Float[Tensor, "batch channel height width"], side: int) -> Float[Tensor, "batch channel side side"]:
    values = values.contiguous(memory_format=torch.channels_last)  # resized so in a tenth of the time
    if values.shape[-1] == side:
        return values
    return F.interpolate(values, (side, side), mode="bilinear", antialias=values.shape[-1] > side)
