"""MobileStyleGAN in plain PyTorch (generators): StyleGAN2's look from depthwise convolutions and inverse wavelets.

Written from the paper (S. Belousov, "MobileStyleGAN: A Lightweight Convolutional Neural Network for High-Fidelity Image
Synthesis", 2021, arXiv 2104.04767) and checked against the published graphs. Demodulation is not computed: the paper
drops it and the published weights have it folded in.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

LEAKY_SLOPE = 0.2
EPSILON = 1e-8
CONSTANT_SIZE = 4
"""Height and width of the learnt constant, pixels."""

STYLES_PER_BLOCK = 3
"""One of the wavelet, two of the convolutions."""


class MappingNetwork(nn.Module):
    """z to w: unit second moment, then linear layers with leaky ReLUs.

    Args:
        z_dim: size of z.
        w_dim: size of w.
        num_layers: linear layers.
    """

    def __init__(self, z_dim: int, w_dim: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(z_dim if i == 0 else w_dim, w_dim) for i in range(num_layers))

    def forward(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch w_dim"]:
        x = z * (z.square().mean(1, keepdim=True) + EPSILON).rsqrt()
        for layer in self.layers:
            x = F.leaky_relu(layer(x), LEAKY_SLOPE)
        return x


class StyledConv(nn.Module):
    """Modulation, 3x3 convolution, constant noise, bias, leaky ReLU: what makes the first features of the constant.

    Args:
        channels: that come in and go out.
        w_dim: size of the style.
        size: height and width, pixels.
    """

    noise: Tensor

    def __init__(self, channels: int, w_dim: int, size: int) -> None:
        super().__init__()
        self.style = nn.Linear(w_dim, channels)
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.empty(channels))
        self.register_buffer("noise", torch.empty(1, 1, size, size))

    def forward(
        self, x: Float[Tensor, "batch channel size size"], w: Float[Tensor, "batch w_dim"]
    ) -> Float[Tensor, "batch channel size size"]:
        x = x * self.style(w).to(x.dtype)[:, :, None, None]
        x = F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype), padding=1)
        return F.leaky_relu(x + self.noise.to(x.dtype), LEAKY_SLOPE)


class SeparableConv(nn.Module):
    """Modulation, depthwise 3x3 convolution, pointwise convolution, constant noise, bias, leaky ReLU.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
        w_dim: size of the style.
        size: height and width, pixels.
    """

    noise: Tensor

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, size: int) -> None:
        super().__init__()
        self.style = nn.Linear(w_dim, in_channels)
        self.depthwise = nn.Parameter(torch.empty(in_channels, 1, 3, 3))
        self.pointwise = nn.Parameter(torch.empty(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.register_buffer("noise", torch.empty(1, 1, size, size))

    def forward(
        self, x: Float[Tensor, "batch in height width"], w: Float[Tensor, "batch w_dim"]
    ) -> Float[Tensor, "batch out height width"]:
        x = x * self.style(w).to(x.dtype)[:, :, None, None]
        x = F.conv2d(x, self.depthwise.to(x.dtype), padding=1, groups=x.shape[1])
        x = F.conv2d(x, self.pointwise.to(x.dtype), self.bias.to(x.dtype))
        return F.leaky_relu(x + self.noise.to(x.dtype), LEAKY_SLOPE)


def inverse_wavelet(
    x: Float[Tensor, "batch band_channel height width"],
) -> Float[Tensor, "batch channel height2 width2"]:
    """Haar synthesis by sums and differences, without its factor of 1/2, which the weights before it hold.

    Args:
        x: four bands one after another: means, vertical, horizontal and diagonal details.
    """
    mean, vertical, horizontal, diagonal = x.chunk(4, dim=1)
    upper, lower = mean + vertical, mean - vertical
    upper_change, lower_change = horizontal + diagonal, horizontal - diagonal
    corners = (upper + upper_change, upper - upper_change, lower + lower_change, lower - lower_change)
    return F.pixel_shuffle(torch.stack(corners, dim=2).flatten(1, 2), 2)


class Block(nn.Module):
    """From one resolution to the next: inverse wavelet, two separable convolutions.

    Args:
        in_channels: four bands of what the convolutions take.
        out_channels: channels that go out.
        w_dim: size of the styles.
        size: height and width that go out, pixels.
    """

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, size: int) -> None:
        super().__init__()
        self.style = nn.Linear(w_dim, in_channels)
        self.conv1 = SeparableConv(in_channels // 4, out_channels, w_dim, size)
        self.conv2 = SeparableConv(out_channels, out_channels, w_dim, size)

    def forward(
        self, x: Float[Tensor, "batch in half_height half_width"], ws: Float[Tensor, "batch 3 w_dim"]
    ) -> Float[Tensor, "batch out height width"]:
        x = inverse_wavelet(x * self.style(ws[:, 0]).to(x.dtype)[:, :, None, None])
        return self.conv2(self.conv1(x, ws[:, 1]), ws[:, 2])


class Colors(nn.Module):
    """Features to an image of twice their size: modulated pointwise convolution to four bands, inverse wavelet.

    Args:
        channels: that come in.
        w_dim: size of the style.
    """

    def __init__(self, channels: int, w_dim: int) -> None:
        super().__init__()
        self.style = nn.Linear(w_dim, channels)
        self.weight = nn.Parameter(torch.empty(12, channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(12))

    def forward(
        self, x: Float[Tensor, "batch channel half_height half_width"], w: Float[Tensor, "batch w_dim"]
    ) -> Float[Tensor, "batch 3 height width"]:
        x = x * self.style(w).to(x.dtype)[:, :, None, None]
        return inverse_wavelet(F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype)))


class MobileStyleGAN(nn.Module):
    """The whole generator; its weights are those of a file, there is no initialization to train from.

    Args:
        z_dim: size of z.
        w_dim: size of w.
        channels: resolution in pixels to channels, for 4, 8, ... up to half the image's.
        mapping_layers: linear layers of the mapping network.
    """

    def __init__(self, z_dim: int, w_dim: int, channels: Mapping[int, int], mapping_layers: int) -> None:
        super().__init__()
        self.z_dim, self.w_dim = z_dim, w_dim
        self.channels = dict(channels)
        self.sizes = tuple(sorted(channels))
        self.resolution = 2 * self.sizes[-1]
        self.num_ws = STYLES_PER_BLOCK * (len(self.sizes) - 1) + 2
        self.mapping = MappingNetwork(z_dim, w_dim, mapping_layers)
        first = channels[CONSTANT_SIZE]
        self.constant = nn.Parameter(torch.empty(first, CONSTANT_SIZE, CONSTANT_SIZE))
        self.first = StyledConv(first, w_dim, CONSTANT_SIZE)
        self.blocks = nn.ModuleList(
            Block(channels[size // 2], channels[size], w_dim, size) for size in self.sizes if size != CONSTANT_SIZE
        )
        self.colors = Colors(channels[self.sizes[-1]], w_dim)

    def first_style(self, size: int) -> int:
        """Index of the first style that acts at `size` pixels."""
        return 0 if size == CONSTANT_SIZE else 1 + STYLES_PER_BLOCK * (self.sizes.index(size) - 1)

    def begin(self, w: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "batch channel 4 4"]:
        """Features at 4 px."""
        x = self.constant.expand(len(w), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        return self.first(x, w)

    def grow(
        self, x: Float[Tensor, "batch channel height width"], ws: Float[Tensor, "batch num_ws w_dim"], size: int
    ) -> Float[Tensor, "batch channel2 height2 width2"]:
        """Features at `size` pixels from those at half of it."""
        i = self.first_style(size)
        return self.blocks[self.sizes.index(size) - 1](x, ws[:, i : i + STYLES_PER_BLOCK])

    def forward(self, ws: Float[Tensor, "batch num_ws w_dim"]) -> Float[Tensor, "batch 3 height width"]:
        """Styles to images in [-1, 1] (with some overshoot)."""
        x = self.begin(ws[:, 0])
        for size in self.sizes[1:]:
            x = self.grow(x, ws, size)
        return self.colors(x, ws[:, -1])
