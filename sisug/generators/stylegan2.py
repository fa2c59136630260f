"""StyleGAN2's generator in plain PyTorch (generators): mapping network, synthesis blocks of every architecture.

Written from the papers (Karras et al. 2020, arXiv 1912.04958 and 2006.06676); parameter names are those of NVIDIA's
PyTorch files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sisug.generators.layers import (
    ACTIVATION_GAIN,
    LEAKY_SLOPE,
    FullyConnected,
    fir_kernel,
    fir_upsample,
    modulated_conv,
    normalise_second_moment,
    standard_normal,
)

NoiseMode = Literal["const", "random", "none"]
Architecture = Literal["skip", "resnet", "orig"]
"""How blocks reach the image: `skip` adds every block's colours to the upsampled image so far, `resnet` adds every
block's input to its output, `orig` does neither; the latter two take colours from the last block alone (StyleGAN2,
section 4.1, figure 7)."""


class MappingNetwork(nn.Module):
    """z to w: fully connected layers, with the running mean of w for truncation.

    Args:
        z_dim: size of z.
        w_dim: size of w.
        num_ws: layers that take a style.
        num_layers: fully connected layers (8 in the paper, 2 in many trained files).
        lr_multiplier: learning rate of these layers relative to the optimizer's.
    """

    w_avg: Tensor

    def __init__(
        self, z_dim: int, w_dim: int, num_ws: int, *, num_layers: int = 8, lr_multiplier: float = 0.01
    ) -> None:
        super().__init__()
        self.num_ws = num_ws
        self.num_layers = num_layers
        for i in range(num_layers):
            layer = FullyConnected(z_dim if i == 0 else w_dim, w_dim, activate=True, lr_multiplier=lr_multiplier)
            self.add_module(f"fc{i}", layer)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Float[Tensor, "batch z_dim"], truncation: float = 1.0) -> Float[Tensor, "batch num_ws w_dim"]:
        """Map z to one style a layer.

        Args:
            z: samples of a standard normal distribution.
            truncation: 1 leaves w as it is, 0 gives the mean w, between them the image varies less.
        """
        x = normalise_second_moment(z)
        for i in range(self.num_layers):
            x = self.get_submodule(f"fc{i}")(x)
        if truncation != 1.0:
            x = self.w_avg + truncation * (x - self.w_avg)
        return x[:, None, :].expand(-1, self.num_ws, -1)


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
        w_dim: size of the style.
        resolution: height and width of the output, pixels.
        upsample: double the size.
        taps: FIR filter of the upsampling.
        clamp: bound on the activations, as files with fp16 blocks ask for; None for none.
    """

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        *,
        upsample: bool = False,
        taps: Sequence[float] = (1.0, 3.0, 3.0, 1.0),
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.upsample = upsample
        self.clamp = clamp
        self.resolution = resolution
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(standard_normal(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", standard_normal(resolution, resolution))
        self.register_buffer("resample_filter", fir_kernel(taps))

    def forward(
        self, x: Float[Tensor, "batch in height width"], w: Float[Tensor, "batch w_dim"], noise_mode: NoiseMode
    ) -> Float[Tensor, "batch out out_height out_width"]:
        # The activation's gain goes into what it is applied to, and what follows works in place: passes over large
        # features are what a block takes besides its convolutions.
        x = modulated_conv(
            x,
            self.weight,
            self.affine(w),
            bias=self.bias * ACTIVATION_GAIN,
            gain=ACTIVATION_GAIN,
            upsample_kernel=self.resample_filter if self.upsample else None,
        )
        strength = self.noise_strength * ACTIVATION_GAIN
        if noise_mode == "const":
            x = x.add_((self.noise_const * strength).to(x.dtype))
        elif noise_mode == "random":
            noise = torch.randn(x.shape[0], 1, *x.shape[2:], device=x.device, dtype=x.dtype)
            x = x.add_(noise * strength.to(x.dtype))
        x = F.leaky_relu_(x, LEAKY_SLOPE)
        return x if self.clamp is None else x.clamp_(-self.clamp, self.clamp)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to colours, not demodulated.

    Args:
        in_channels: channels that come in.
        img_channels: colours that go out.
        w_dim: size of the style.
        clamp: bound on the output, or None.
    """

    def __init__(self, in_channels: int, img_channels: int, w_dim: int, *, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(standard_normal(img_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(img_channels))
        self.weight_gain = 1.0 / math.sqrt(in_channels)

    def forward(
        self, x: Float[Tensor, "batch in height width"], w: Float[Tensor, "batch w_dim"]
    ) -> Float[Tensor, "batch colour height width"]:
        rgb = modulated_conv(x, self.weight, self.affine(w), bias=self.bias, gain=self.weight_gain, demodulate=False)
        return rgb if self.clamp is None else rgb.clamp(-self.clamp, self.clamp)


class ResidualPath(nn.Module):
    """A block's input at twice the size: 1x1 convolution without bias, then FIR upsampling (architecture `resnet`).

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
        taps: FIR filter of the upsampling.
    """

    resample_filter: Tensor

    def __init__(self, in_channels: int, out_channels: int, *, taps: Sequence[float] = (1.0, 3.0, 3.0, 1.0)) -> None:
        super().__init__()
        self.weight = nn.Parameter(standard_normal(out_channels, in_channels, 1, 1))
        self.weight_gain = 1.0 / math.sqrt(in_channels)
        self.register_buffer("resample_filter", fir_kernel(taps))

    def forward(self, x: Float[Tensor, "batch in height width"]) -> Float[Tensor, "batch out height2 width2"]:
        # The filter works on each channel by itself, so it may come last, when there are fewer channels.
        return fir_upsample(F.conv2d(x, (self.weight * self.weight_gain).to(x.dtype)), self.resample_filter)


class SynthesisBlock(nn.Module):
    """All layers of one resolution: upsampling convolution (not at 4 px), convolution, colours where it has them.

    Args:
        in_channels: channels from the block below; 0 at 4 px, which starts from a learnt constant.
        out_channels: channels of this block.
        w_dim: size of the styles.
        resolution: height and width, pixels.
        img_channels: colours; 0 where this block gives none.
        residual: add the block's input to its output; not at 4 px.
        taps: FIR filter of the upsampling.
        clamp: bound on activations, or None.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        *,
        img_channels: int = 3,
        residual: bool = False,
        taps: Sequence[float] = (1.0, 3.0, 3.0, 1.0),
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.first = in_channels == 0
        self.num_convs = 1 if self.first else 2
        self.register_buffer("resample_filter", fir_kernel(taps))
        if self.first:
            self.const = nn.Parameter(standard_normal(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(
                in_channels, out_channels, w_dim, resolution, upsample=True, taps=taps, clamp=clamp
            )
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, taps=taps, clamp=clamp)
        self.torgb = ToRGB(out_channels, img_channels, w_dim, clamp=clamp) if img_channels else None
        self.skip = ResidualPath(in_channels, out_channels, taps=taps) if residual and not self.first else None

    def convolve(
        self,
        x: Float[Tensor, "batch in height width"] | None,
        ws: Float[Tensor, "batch convs w_dim"],
        noise_mode: NoiseMode,
    ) -> Float[Tensor, "batch out out_height out_width"]:
        """The block's features from those of the block below (None at 4 px)."""
        if x is None:
            x = self.const[None].expand(ws.shape[0], -1, -1, -1).contiguous(memory_format=torch.channels_last)
            return self.conv1(x, ws[:, 0], noise_mode)
        return self.join(x, self.conv1(self.conv0(x, ws[:, 0], noise_mode), ws[:, 1], noise_mode))

    def join(
        self, x: Float[Tensor, "batch in height width"], out: Float[Tensor, "batch out out_height out_width"]
    ) -> Float[Tensor, "batch out out_height out_width"]:
        """What the convolutions made of the block's input, with the residual path where there is one."""
        # The sum of two paths keeps the variance of one (StyleGAN2, section 4.1).
        return out if self.skip is None else (self.skip(x) + out) * math.sqrt(0.5)

    def upsample_rgb(
        self, rgb: Float[Tensor, "batch colour half_height half_width"]
    ) -> Float[Tensor, "batch colour height width"]:
        """The image so far, at this block's resolution."""
        return fir_upsample(rgb, self.resample_filter)

    def colour(
        self,
        x: Float[Tensor, "batch channel height width"],
        w: Float[Tensor, "batch w_dim"],
        rgb: Float[Tensor, "batch colour height width"] | None,
    ) -> Float[Tensor, "batch colour height width"] | None:
        """The image so far with this block's colours.

        Args:
            x: features of this block.
            w: style of the colours.
            rgb: the image so far at this block's resolution; None before the first block that gives colours.
        """
        if self.torgb is None:
            return rgb
        colours: Tensor = self.torgb(x, w)
        return colours if rgb is None else rgb + colours


class SynthesisNetwork(nn.Module):
    """Styles to image: blocks from 4 px upwards, which reach the image as the architecture says.

    Args:
        w_dim: size of the styles.
        channels: resolution in pixels to channels, for 4, 8, ... up to the image's.
        img_channels: colours.
        taps: FIR filter of the resampling.
        clamp: bound on activations, or None.
        architecture: skip, resnet or orig.
    """

    def __init__(
        self,
        w_dim: int,
        channels: Mapping[int, int],
        *,
        img_channels: int = 3,
        taps: Sequence[float] = (1.0, 3.0, 3.0, 1.0),
        clamp: float | None = None,
        architecture: Architecture = "skip",
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.img_channels = img_channels
        self.resolutions = sorted(channels)
        self.num_ws = 2 * len(self.resolutions)
        below = 0
        for resolution in self.resolutions:
            out = channels[resolution]
            coloured = architecture == "skip" or resolution == self.resolutions[-1]
            block = SynthesisBlock(
                below,
                out,
                w_dim,
                resolution,
                img_channels=img_channels if coloured else 0,
                residual=architecture == "resnet",
                taps=taps,
                clamp=clamp,
            )
            self.add_module(f"b{resolution}", block)
            below = out

    def block(self, resolution: int) -> SynthesisBlock:
        """The block that works at `resolution` pixels."""
        block = self.get_submodule(f"b{resolution}")
        assert isinstance(block, SynthesisBlock)
        return block

    def first_ws(self, resolution: int) -> int:
        """Index of the first style that the block at `resolution` uses.

        4 px: convolution 0, colours 1. Every later block: convolutions i and i + 1, colours i + 2, which the next
        block's first convolution shares.
        """
        return 0 if resolution == 4 else 2 * self.resolutions.index(resolution) - 1

    def forward(
        self, ws: Float[Tensor, "batch num_ws w_dim"], noise_mode: NoiseMode = "const"
    ) -> Float[Tensor, "batch colour height width"]:
        x: Tensor | None = None
        rgb: Tensor | None = None
        for resolution in self.resolutions:
            block, i = self.block(resolution), self.first_ws(resolution)
            x = block.convolve(x, ws[:, i : i + block.num_convs], noise_mode)
            rgb = block.colour(x, ws[:, i + block.num_convs], None if rgb is None else block.upsample_rgb(rgb))
        assert rgb is not None
        return rgb


class Generator(nn.Module):
    """StyleGAN2's generator: z to image in [-1, 1] (unclamped).

    Args:
        z_dim: size of z.
        w_dim: size of the styles.
        channels: resolution in pixels to channels, from 4 up to the image's.
        mapping_layers: fully connected layers of the mapping network.
        mapping_lr_multiplier: learning rate of the mapping network relative to the optimizer's.
        img_channels: colours.
        taps: FIR filter of the resampling.
        clamp: bound on activations, or None.
        architecture: how blocks reach the image.
        num_fp16_res: finest resolutions, counted from the image's, in which the file's authors computed in float16 (4
            in most of NVIDIA's files). The network itself computes in its weights' type; a backbone asked for "fp16"
            follows this number.
    """

    def __init__(
        self,
        z_dim: int,
        w_dim: int,
        channels: Mapping[int, int],
        *,
        mapping_layers: int = 8,
        mapping_lr_multiplier: float = 0.01,
        img_channels: int = 3,
        taps: Sequence[float] = (1.0, 3.0, 3.0, 1.0),
        clamp: float | None = None,
        architecture: Architecture = "skip",
        num_fp16_res: int = 0,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.w_dim = w_dim
        self.resolution = max(channels)
        self.channels = dict(channels)
        self.architecture = architecture
        self.num_fp16_res = num_fp16_res
        self.synthesis = SynthesisNetwork(
            w_dim, channels, img_channels=img_channels, taps=taps, clamp=clamp, architecture=architecture
        )
        self.mapping = MappingNetwork(
            z_dim, w_dim, self.synthesis.num_ws, num_layers=mapping_layers, lr_multiplier=mapping_lr_multiplier
        )

    def forward(
        self, z: Float[Tensor, "batch z_dim"], truncation: float = 1.0, noise_mode: NoiseMode = "const"
    ) -> Float[Tensor, "batch colour height width"]:
        images: Tensor = self.synthesis(self.mapping(z, truncation), noise_mode)
        return images
