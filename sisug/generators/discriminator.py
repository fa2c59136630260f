"""StyleGAN2's discriminator in plain PyTorch (generators): blocks with and without residual paths, minibatch standard
deviation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sisug.generators.layers import FullyConnected, fir_filter, fir_kernel, leaky_relu, standard_normal


class EqualisedConv(nn.Module):
    """Convolution with run-time weight scale, optional FIR downsampling by 2, and optional activation.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
        kernel: width of the weights, pixels.
        downsample: halve the size.
        activate: leaky ReLU of gain sqrt(2).
        bias: add a bias.
        taps: FIR filter of the downsampling.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        downsample: bool = False,
        activate: bool = True,
        bias: bool = True,
        taps: Sequence[float] = (1.0, 3.0, 3.0, 1.0),
    ) -> None:
        super().__init__()
        self.downsample = downsample
        self.activate = activate
        self.weight = nn.Parameter(standard_normal(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_gain = 1.0 / math.sqrt(in_channels * kernel * kernel)
        self.register_buffer("resample_filter", fir_kernel(taps))

    def forward(self, x: Float[Tensor, "batch in height width"]) -> Float[Tensor, "batch out out_height out_width"]:
        weight = (self.weight * self.weight_gain).to(x.dtype)
        kernel = weight.shape[-1]
        if not self.downsample:
            x = F.conv2d(x, weight, padding=kernel // 2)
        elif kernel == 1:
            # The 1x1 convolution drops the pixels: on CPUs the gradient of a depthwise convolution with stride takes
            # ten times as long as that of one without.
            x = F.conv2d(fir_filter(x, self.resample_filter, padding=(1, 1)), weight, stride=2)
        else:
            x = F.conv2d(fir_filter(x, self.resample_filter, padding=(2, 2)), weight, stride=2)
        if self.bias is not None:
            x = x + self.bias.to(x.dtype)[None, :, None, None]
        return leaky_relu(x) if self.activate else x


class DiscriminatorBlock(nn.Module):
    """Two convolutions, and a residual path where there is one, to half the size.

    Args:
        mid_channels: channels of this resolution.
        out_channels: channels of the next lower resolution.
        img_channels: colours; 0 where the block does not read the image.
        residual: add the block's input to its output.
        taps: FIR filter of the downsampling.
    """

    def __init__(
        self,
        mid_channels: int,
        out_channels: int,
        *,
        img_channels: int = 0,
        residual: bool = True,
        taps: Sequence[float] = (1, 3, 3, 1),
    ) -> None:
        super().__init__()
        self.fromrgb = EqualisedConv(img_channels, mid_channels, 1, taps=taps) if img_channels else None
        self.conv0 = EqualisedConv(mid_channels, mid_channels, 3, taps=taps)
        self.conv1 = EqualisedConv(mid_channels, out_channels, 3, downsample=True, taps=taps)
        self.skip = (
            EqualisedConv(mid_channels, out_channels, 1, downsample=True, activate=False, bias=False, taps=taps)
            if residual
            else None
        )

    def forward(
        self,
        x: Float[Tensor, "batch in height width"],
        added: Float[Tensor, "batch mid height width"] | None = None,
    ) -> Float[Tensor, "batch out half_height half_width"]:
        if self.fromrgb is not None:
            x = self.fromrgb(x)
        if added is not None:
            x = x + added.to(x.dtype)
        out: Tensor = self.conv1(self.conv0(x))
        return out if self.skip is None else (out + self.skip(x)) * math.sqrt(0.5)


def minibatch_std(
    x: Float[Tensor, "batch channel height width"], group: int = 4
) -> Float[Tensor, "batch channel_and_one height width"]:
    """Append the mean standard deviation over groups, so that a lack of variety shows (ProGAN, section 3)."""
    batch, _, height, width = x.shape
    size = math.gcd(batch, group)
    grouped = x.float().reshape(size, batch // size, *x.shape[1:])
    std = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    return torch.cat([x, std.to(x.dtype).repeat(size)[:, None, None, None].expand(-1, 1, height, width)], dim=1)


class DiscriminatorEpilogue(nn.Module):
    """From 4 px to one logit.

    Args:
        channels: channels at 4 px.
        resolution: height and width, 4 px.
    """

    def __init__(self, channels: int, resolution: int = 4) -> None:
        super().__init__()
        self.conv = EqualisedConv(channels + 1, channels, 3)
        self.fc = FullyConnected(channels * resolution**2, channels, activate=True)
        self.out = FullyConnected(channels, 1)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 1"]:
        out: Tensor = self.out(self.fc(self.conv(minibatch_std(x)).flatten(1)))
        return out


class Discriminator(nn.Module):
    """StyleGAN2's discriminator: image to one logit.

    Args:
        channels: resolution in pixels to channels, from 4 up to the image's.
        img_channels: colours.
        taps: FIR filter of the downsampling.
        architecture: `resnet` adds every block's input to its output, `orig` does not.
    """

    def __init__(
        self,
        channels: Mapping[int, int],
        *,
        img_channels: int = 3,
        taps: Sequence[float] = (1.0, 3.0, 3.0, 1.0),
        architecture: Literal["resnet", "orig"] = "resnet",
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.resolutions = sorted((r for r in channels if r > 4), reverse=True)
        for resolution in self.resolutions:
            colours = img_channels if resolution == self.resolutions[0] else 0
            block = DiscriminatorBlock(
                channels[resolution],
                channels[resolution // 2],
                img_channels=colours,
                residual=architecture == "resnet",
                taps=taps,
            )
            self.add_module(f"b{resolution}", block)
        self.b4 = DiscriminatorEpilogue(channels[4])

    def features(
        self,
        images: Float[Tensor, "batch colour height width"],
        condition: Float[Tensor, "batch channel height width"] | None = None,
    ) -> list[Float[Tensor, "batch block_channel block_height block_width"]]:
        """Features after every block, from fine to coarse: a perceptual space that travels with the generator.

        Args:
            images: in [-1, 1].
            condition: added to the first features, where images are judged together with something else (a layout).
        """
        out: list[Tensor] = []
        x = images
        for resolution in self.resolutions:
            x = self.get_submodule(f"b{resolution}")(x, condition)
            condition = None
            out.append(x)
        return out

    def forward(
        self,
        images: Float[Tensor, "batch colour height width"],
        condition: Float[Tensor, "batch channel height width"] | None = None,
    ) -> Float[Tensor, "batch 1"]:
        logits: Tensor = self.b4(self.features(images, condition)[-1])
        return logits
