"""StyleGAN2's networks as its papers write them, for benchmarks and tests to compare with (generators).

Nothing of sisug but its networks' weights. Convolutions and gradients are PyTorch's own.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sisug.generators import Discriminator
from sisug.generators.layers import FullyConnected
from sisug.generators.stylegan2 import MappingNetwork, NoiseMode, SynthesisNetwork


def plain_styles(mapping: MappingNetwork, z: Tensor) -> Tensor:
    """Latents to one style each, before they are given to the layers."""
    x = z / (z.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    for i in range(mapping.num_layers):
        layer = mapping.get_submodule(f"fc{i}")
        assert isinstance(layer, FullyConnected)
        x = activated(linear(layer, x))
    return x


def plain_images(
    synthesis: SynthesisNetwork, ws: Tensor, noise_mode: NoiseMode = "const", *, transposed: bool = False
) -> Tensor:
    """Styles to images; `transposed` upsamples by transposed convolutions, as the authors' code does."""
    x = rgb = torch.zeros(0)
    for resolution in synthesis.resolutions:
        block, first = synthesis.block(resolution), synthesis.first_ws(resolution)
        below = x
        if block.first:
            x, layers = block.const.repeat(len(ws), 1, 1, 1), [block.conv1]
        else:
            layers = [block.conv0, block.conv1]
        for i, layer in enumerate(layers):
            styles = linear(layer.affine, ws[:, first + i])
            x = modulated(x, layer.weight, styles, upsample=layer.upsample, transposed=transposed)
            if noise_mode != "none":
                drawn = torch.randn(len(x), 1, resolution, resolution, dtype=x.dtype)
                noise = drawn if noise_mode == "random" else layer.noise_const
                x = x + layer.noise_strength * noise
            x = activated(x + layer.bias[:, None, None])
            if layer.clamp is not None:
                x = x.clamp(-layer.clamp, layer.clamp)
        if block.skip is not None:
            reduced = F.conv2d(below, block.skip.weight / math.sqrt(below.shape[1]))
            x = (x + filtered(zeros_between(reduced), padding=2, gain=4.0)) / math.sqrt(2)
        colours = block.torgb
        if colours is None:
            continue
        styles = linear(colours.affine, ws[:, first + len(layers)]) / math.sqrt(x.shape[1])
        added = modulated(x, colours.weight, styles, demodulate=False) + colours.bias[:, None, None]
        if colours.clamp is not None:
            added = added.clamp(-colours.clamp, colours.clamp)
        rgb = added if rgb.numel() == 0 else filtered(zeros_between(rgb), padding=2, gain=4.0) + added
    return rgb


def plain_logits(discriminator: Discriminator, images: Tensor) -> Tensor:
    """Images to logits."""
    x = images
    for resolution in discriminator.resolutions:
        block: Any = discriminator.get_submodule(f"b{resolution}")
        if block.fromrgb is not None:
            x = activated(convolved(block.fromrgb, x))
        below = x
        x = activated(convolved(block.conv0, x, padding=1))
        x = activated(convolved(block.conv1, filtered(x, padding=2), stride=2))
        if block.skip is not None:
            x = (x + convolved(block.skip, filtered(below, padding=1), stride=2)) / math.sqrt(2)
    last = discriminator.b4
    x = activated(convolved(last.conv, with_spread(x), padding=1))
    return linear(last.out, activated(linear(last.fc, x.flatten(1))))


def linear(layer: FullyConnected, x: Tensor) -> Tensor:
    """Equalised linear map (ProGAN, section 4.1)."""
    multiplier = layer.bias_gain
    return F.linear(x, layer.weight * (multiplier / math.sqrt(x.shape[1])), layer.bias * multiplier)


def activated(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the variance."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def modulated(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    demodulate: bool = True,
    upsample: bool = False,
    transposed: bool = False,
) -> Tensor:
    """Convolution with weights of each sample's own, as one group a sample (StyleGAN2, section 2.2, appendix B)."""
    batch, size = len(x), x.shape[2]
    weights = weight * styles[:, None, :, None, None]  # equation 1
    if demodulate:
        weights = weights / (weights.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).sqrt()  # equation 3
    if upsample and transposed:
        groups = weights.transpose(1, 2).flatten(0, 1)
        out = F.conv_transpose2d(x.reshape(1, -1, size, size), groups, stride=2, groups=batch)
        return filtered(out.reshape(batch, -1, 2 * size + 1, 2 * size + 1), padding=1, gain=4.0)
    if upsample:
        # With all of the filter's margin, which the convolution then takes off. Weights are stored as transposed
        # convolutions read them.
        x, weights, padding = filtered(zeros_between(x), padding=3, gain=4.0), weights.flip(3, 4), 0
    else:
        padding = weight.shape[2] // 2
    out = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weights.flatten(0, 1), padding=padding, groups=batch)
    return out.reshape(batch, -1, *out.shape[2:])


def convolved(layer: Any, x: Tensor, *, padding: int = 0, stride: int = 1) -> Tensor:
    """Equalised convolution of the discriminator."""
    weight = layer.weight / math.sqrt(layer.weight[0].numel())
    return F.conv2d(x, weight, layer.bias, padding=padding, stride=stride)


def zeros_between(x: Tensor) -> Tensor:
    """Zeros between pixels."""
    out = x.new_zeros(*x.shape[:2], 2 * x.shape[2] - 1, 2 * x.shape[3] - 1)
    out[:, :, ::2, ::2] = x
    return out


def filtered(x: Tensor, *, padding: int, gain: float = 1.0) -> Tensor:
    """Every channel filtered by [1, 3, 3, 1] in both directions."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype) / 8
    kernel = (gain * torch.outer(line, line)).repeat(x.shape[1], 1, 1, 1)
    return F.conv2d(x, kernel, padding=padding, groups=x.shape[1])


def with_spread(x: Tensor) -> Tensor:
    """Standard deviation over groups of 4 samples as one more channel (ProGAN, section 3)."""
    groups = x.reshape(min(4, len(x)), -1, *x.shape[1:])
    variance = (groups - groups.mean(dim=0)).square().mean(dim=0)
    spread = (variance + 1e-8).sqrt().mean(dim=(1, 2, 3)).repeat(len(groups))
    return torch.cat([x, spread[:, None, None, None].expand(-1, 1, *x.shape[2:])], dim=1)
