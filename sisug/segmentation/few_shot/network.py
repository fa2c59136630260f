"""The few-shot segmenter's network (stage 2): a small convolutional reader of all of a generator's features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sisug.generators.backbone import Pyramid


class FewShotNetwork(nn.Module):
    """From the features of every resolution to a class for every pixel.

    Features are normalised per sample and channel, which divides the look out: one labelled sample shows one look, and
    the next sample has another (our choice, measured).

    Args:
        channels: of the feature maps, from 4 px up.
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
            columns: what `columns_of` makes of a pyramid.
        """
        logits: Tensor = self.layers(columns)
        return logits


def columns_of(pyramid: Pyramid) -> Float[Tensor, "batch channel height width"]:
    """All features of a pixel in one column, normalised, at the image's resolution.

    Args:
        pyramid: features of every resolution, and the image.
    """
    size = pyramid.image.shape[-2:]
    maps = [F.instance_norm(each.float()) for each in pyramid.maps]
    maps = [each if each.shape[-2:] == size else F.interpolate(each, size, mode="bilinear") for each in maps]
    columns = torch.cat([*maps, pyramid.image.float().clamp(-1, 1)], dim=1)
    return columns.contiguous(memory_format=torch.channels_last)
