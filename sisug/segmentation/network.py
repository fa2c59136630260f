"""The judge's network: a small U-Net that names the parts of an image; it scores layouts and gives features."""

from __future__ import annotations

import segmentation_models_pytorch as smp
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sisug.types import Images

ENCODER_DEPTH = 3
"""Stages of the encoder, each at half the resolution of the one before: 32, 16 and 8 px for images of 64 px."""


class JudgeNetwork(nn.Module):
    """U-Net with a branch at full resolution.

    The U-Net's finest skip has half the image's resolution, too coarse for eyes of 2 to 5 pixels. So its output is read
    as context and joined with a convolution of the image itself; two more convolutions name each pixel.

    Args:
        num_classes: classes to tell apart.
        encoder: encoder name of segmentation_models_pytorch; it starts from random weights.
        decoder_channels: channels of the three decoder stages, coarse to fine.
        detail_channels: channels of the branch at full resolution.

    Source: our choice; U-Net after Ronneberger et al. 2015, as segmentation_models_pytorch builds it.
    """

    def __init__(
        self,
        num_classes: int,
        encoder: str = "tu-resnet10t",
        decoder_channels: tuple[int, int, int] = (96, 48, 24),
        detail_channels: int = 24,
    ) -> None:
        super().__init__()
        self.unet = smp.Unet(
            encoder,
            encoder_depth=ENCODER_DEPTH,
            encoder_weights=None,
            decoder_channels=decoder_channels,
            classes=detail_channels,
        )
        self.detail = _convolution(3, detail_channels)
        self.head = nn.Sequential(
            _convolution(2 * detail_channels, 2 * detail_channels), nn.Conv2d(2 * detail_channels, num_classes, 1)
        )

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Channels of the encoder's stages, fine to coarse."""
        return tuple(self.unet.encoder.out_channels[1:])

    def forward(self, images: Images) -> Float[Tensor, "batch num_classes height width"]:
        """Logits of the classes.

        Args:
            images: in [-1, 1]; height and width multiples of 8.
        """
        context = self.unet(images)
        return self.head(torch.cat([context, self.detail(images)], dim=1))

    def stages(self, images: Images) -> list[Float[Tensor, "batch _ _ _"]]:
        """The encoder's feature maps, fine to coarse.

        Args:
            images: in [-1, 1]; height and width multiples of 8.
        """
        return list(self.unet.encoder(images)[1:])


def _convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
