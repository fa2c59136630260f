"""MobileStyleGAN in plain PyTorch (generators): StyleGAN2's look from depthwise convolutions and inverse wavelets.

Written from the paper (S. Belousov, "MobileStyleGAN: A Lightweight Convolutional Neural Network for High-Fidelity Image
Synthesis", 2021, arXiv 2104.04767) and checked against the published graphs. Demodulation is not computed: the paper
drops it and the published weights have it folded in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

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

STRIP = 4 << 20
"""Bytes of a block's features that are computed together on a CPU; a few times as many are in use at once."""

SMALLEST_STRIP = 8
"""Rows; two more are computed at each side."""


class Rows(NamedTuple):
    """A range of rows of an image or of features.

    Args:
        top: the first one.
        bottom: the one after the last.
    """

    top: int
    bottom: int


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
        x = F.conv2d(x * self.style(w)[:, :, None, None], self.weight, self.bias, padding=1)
        return F.leaky_relu_(x.add_(self.noise), LEAKY_SLOPE)


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
        self, x: Float[Tensor, "batch in height width"], style: Float[Tensor, "batch in"], rows: Rows
    ) -> tuple[Float[Tensor, "batch out height2 width"], Rows]:
        """Features of all rows that the given ones suffice for.

        Args:
            x: features of some rows.
            style: what their channels are multiplied with.
            rows: which ones they are.

        Returns:
            New features, and which rows they are.
        """
        depthwise = self.depthwise.to(x.dtype)
        if len(x) == 1:  # a style is part of the few weights then, and costs nothing
            depthwise = depthwise * style.to(x.dtype)[0, :, None, None, None]
        else:
            x = x * style.to(x.dtype)[:, :, None, None]
        x = F.conv2d(x, depthwise, padding=1, groups=x.shape[1])
        # At the edges of the image the padding is the right neighbor, elsewhere it stands for rows that are not here.
        inner = Rows(rows.top + (rows.top > 0), rows.bottom - (rows.bottom < self.noise.shape[2]))
        x = x[:, :, inner.top - rows.top : inner.bottom - rows.top]
        x = pointwise_conv(x, self.pointwise.to(x.dtype), self.bias.to(x.dtype))
        x = x.add_(self.noise[:, :, inner.top : inner.bottom].to(x.dtype))
        return F.leaky_relu_(x, LEAKY_SLOPE), inner


def pointwise_conv(
    x: Float[Tensor, "batch in height width"], weight: Float[Tensor, "out in 1 1"], bias: Float[Tensor, " out"]
) -> Float[Tensor, "batch out height width"]:
    """A convolution of one cell.

    Args:
        x: features.
        weight: of each output.
        bias: of each output.
    """
    # A dilation means nothing to one cell. But with it PyTorch calls oneDNN on a CPU, where otherwise it often calls
    # MKL, which takes twice the time on processors that are not Intel's.
    return F.conv2d(x, weight, bias, dilation=2 if x.device.type == "cpu" else 1)


def inverse_wavelet(
    x: Float[Tensor, "batch band_channel height width"],
) -> Float[Tensor, "batch channel height2 width2"]:
    """Haar synthesis by sums and differences, without its factor of 1/2, which the weights before it hold.

    Args:
        x: four bands one after another: means, vertical, horizontal and diagonal details.
    """
    mean, vertical, horizontal, diagonal = x.permute(0, 2, 3, 1).chunk(4, dim=3)
    upper, lower = mean + vertical, mean - vertical
    upper_change, lower_change = horizontal + diagonal, horizontal - diagonal
    rows = [torch.stack((a + b, a - b), dim=3) for a, b in ((upper, upper_change), (lower, lower_change))]
    return torch.stack(rows, dim=2).flatten(1, 2).flatten(2, 3).permute(0, 3, 1, 2)


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
        self.size = size
        self.style = nn.Linear(w_dim, in_channels)
        self.conv1 = SeparableConv(in_channels // 4, out_channels, w_dim, size)
        self.conv2 = SeparableConv(out_channels, out_channels, w_dim, size)

    def styles(self, ws: Float[Tensor, "batch 3 w_dim"]) -> list[Float[Tensor, "batch _"]]:
        """What the channels are multiplied with, in front of the wavelet and of each convolution."""
        return [self.style(ws[:, 0]), self.conv1.style(ws[:, 1]), self.conv2.style(ws[:, 2])]

    def forward(
        self,
        x: Float[Tensor, "batch in half_height half_width"],
        styles: Sequence[Float[Tensor, "batch _"]],
        rows: Rows | None = None,
    ) -> Float[Tensor, "batch out height width"]:
        """Features of this block.

        Args:
            x: features of the block before, all rows.
            styles: those of `styles`.
            rows: the rows that are asked for, an even number from an even one on; None for all.
        """
        rows = rows or Rows(0, self.size)
        taken = Rows(max(rows.top - 2, 0), min(rows.bottom + 2, self.size))  # a neighbor for each convolution
        x = x[:, :, taken.top // 2 : taken.bottom // 2] * styles[0].to(x.dtype)[:, :, None, None]
        x, taken = self.conv1(inverse_wavelet(x), styles[1], taken)
        x, taken = self.conv2(x, styles[2], taken)
        assert taken == rows
        return x


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
        self, x: Float[Tensor, "batch channel half_height half_width"], style: Float[Tensor, "batch channel"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Rows of an image, in float32, from the same rows of its features.

        Args:
            x: features.
            style: what their channels are multiplied with.
        """
        # Nothing stands between weights and wavelet, so the few weights are transformed in place of the image.
        bands = torch.cat([self.weight.flatten(1), self.bias[:, None]], dim=1)
        corners = inverse_wavelet(bands[None, :, :, None]).reshape(3, -1, 2, 2)  # color, input, row, column
        corners = corners.permute(2, 3, 0, 1).reshape(12, -1, 1, 1).to(x.dtype)
        weight, bias = corners[:, :-1], corners[:, -1].flatten()
        if len(x) == 1:
            weight = weight * style.to(x.dtype)[0, :, None, None]
        else:
            x = x * style.to(x.dtype)[:, :, None, None]
        batch, _, height, width = x.shape
        image = pointwise_conv(x, weight, bias).float().permute(0, 2, 3, 1).reshape(batch, height, width, 2, 2, 3)
        return image.transpose(2, 3).reshape(batch, 2 * height, 2 * width, 3).permute(0, 3, 1, 2)


class MobileStyleGAN(nn.Module):
    """The whole generator; its weights are those of a file, there is no initialization to train from.

    On a CPU, where no gradients are asked for, large features are made in strips that stay in its caches; the rows
    where strips meet are computed twice.

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
        """Features at `size` pixels from those at half of it.

        Args:
            x: features; their type is that of the computation.
            ws: all styles.
            size: height and width that go out.
        """
        block, styles = self._block(ws, size)
        strips = strips_of(x, self.channels[size], size)
        if strips is None:
            return block(x, styles)
        out = x.new_empty(len(x), size, size, self.channels[size]).permute(0, 3, 1, 2)
        for samples, rows in strips:
            out[samples, :, rows.top : rows.bottom] = block(x[samples], [style[samples] for style in styles], rows)
        return out

    def color(
        self, x: Float[Tensor, "batch channel half_height half_width"], ws: Float[Tensor, "batch num_ws w_dim"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Images from features at half of their size."""
        return self.colors(x, self.colors.style(ws[:, -1]))

    def finish(
        self, x: Float[Tensor, "batch channel height width"], ws: Float[Tensor, "batch num_ws w_dim"]
    ) -> Float[Tensor, "batch 3 height4 width4"]:
        """Images, in float32, from features at a quarter of their size: the last block and its colors.

        Args:
            x: features; their type is that of the computation.
            ws: all styles.
        """
        size = self.sizes[-1]
        block, styles = self._block(ws, size)
        colors = self.colors.style(ws[:, -1])
        strips = strips_of(x, self.channels[size], size)
        if strips is None:
            return self.colors(block(x, styles), colors)
        out = ws.new_empty(len(x), self.resolution, self.resolution, 3).permute(0, 3, 1, 2)
        for samples, rows in strips:
            features = block(x[samples], [style[samples] for style in styles], rows)
            out[samples, :, 2 * rows.top : 2 * rows.bottom] = self.colors(features, colors[samples])
        return out

    def forward(self, ws: Float[Tensor, "batch num_ws w_dim"]) -> Float[Tensor, "batch 3 height width"]:
        """Styles to images in [-1, 1] (with some overshoot)."""
        x = self.begin(ws[:, 0])
        for size in self.sizes[1:-1]:
            x = self.grow(x, ws, size)
        return self.finish(x, ws)

    def _block(
        self, ws: Float[Tensor, "batch num_ws w_dim"], size: int
    ) -> tuple[Block, list[Float[Tensor, "batch _"]]]:
        block, i = self.blocks[self.sizes.index(size) - 1], self.first_style(size)
        assert isinstance(block, Block)
        return block, block.styles(ws[:, i : i + STYLES_PER_BLOCK])


def strips_of(x: Tensor, channels: int, size: int) -> list[tuple[slice, Rows]] | None:
    """How a block's work is cut so that its features stay in a CPU's caches: which samples, and which rows of them.

    Args:
        x: what the block takes.
        channels: that it gives.
        size: height and width that it gives.

    Returns:
        None where everything is to be done at once: on a GPU, and where gradients may be asked for.
    """
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return None
    row = size * channels * x.element_size()
    if size * row <= STRIP:
        together = STRIP // (size * row)
        return [(slice(i, i + together), Rows(0, size)) for i in range(0, len(x), together)]
    height = max(STRIP // row // 2 * 2, SMALLEST_STRIP)
    tops = range(0, size, height)
    return [(slice(i, i + 1), Rows(top, min(top + height, size))) for i in range(len(x)) for top in tops]
