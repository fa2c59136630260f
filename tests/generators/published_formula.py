"""StyleGAN2 computed straight from the papers, in float64: what every loaded file has to give (generators).

Slow and plain on purpose: weights are made for each sample (Karras et al. 2020a, section 2.2, equations 1 to 3), zeros
are inserted, filters are convolutions. Nothing of sisug is used. Weights are named and oriented as in NVIDIA's PyTorch
files, where the upsampling convolution stores its kernel for a transposed convolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]


def blocks_of(weights: Weights) -> list[int]:
    """Resolutions of the blocks, from 4 px."""
    names = {name.removeprefix("synthesis.").split(".")[0] for name in weights}
    return sorted(int(name[1:]) for name in names if name[0] == "b" and name[1:].isdigit())


def styles(
    weights: Weights,
    z: Tensor,
    *,
    truncation: float = 1.0,
    label: int | None = None,
    lr_multiplier: float = 0.01,
) -> Tensor:
    """W of every z: (batch, w_dim)."""
    x = _unit(z.double())
    if label is not None:
        embedded = _embedding(weights, label).expand(len(z), -1)
        x = torch.cat([x, _unit(embedded)], dim=1)
    x = _perceptron(weights, x, lr_multiplier)
    centre = weights["mapping.w_avg"].double()
    return centre + truncation * (x - centre)


def image(weights: Weights, ws: Tensor, *, clamp: float | None = None) -> Tensor:
    """Image of styles (batch, layer, w_dim), with constant noise; the architecture is that of the weights' names."""
    ws = ws.double()
    blocks = blocks_of(weights)
    skips = all(f"synthesis.b{r}.torgb.weight" in weights for r in blocks)
    x = weights["synthesis.b4.const"].double().expand(len(ws), -1, -1, -1)
    rgb = None
    layer = 0
    for r in blocks:
        block = {name: value.double() for name, value in _part(weights, f"synthesis.b{r}.").items()}
        residual = None
        if r > 4:
            gain = 1.0
            if "skip.weight" in block:
                thin = block["skip.weight"] / math.sqrt(x.shape[1])
                residual = _double_size(F.conv2d(x, thin), block["skip.resample_filter"]) * math.sqrt(0.5)
                gain = math.sqrt(0.5)
            x = _synthesis_layer(_part(block, "conv0."), x, ws[:, layer], clamp, up=True)
            x = _synthesis_layer(_part(block, "conv1."), x, ws[:, layer + 1], clamp, gain=gain)
            layer += 2
        else:
            x = _synthesis_layer(_part(block, "conv1."), x, ws[:, layer], clamp)
            layer += 1
        if residual is not None:
            x = x + residual
        if rgb is not None:
            rgb = _double_size(rgb, block["resample_filter"])
        if skips or r == blocks[-1]:
            colours = _colours(_part(block, "torgb."), x, ws[:, layer], clamp)
            rgb = colours if rgb is None else rgb + colours
    assert rgb is not None
    return rgb


def logits(weights: Weights, images: Tensor, *, label: int | None = None, lr_multiplier: float = 0.01) -> Tensor:
    """Discriminator's logits (batch, 1); residual where the weights hold skips, else the plain architecture."""
    weights = {name: value.double() for name, value in weights.items()}
    blocks = blocks_of(weights)
    x = images.double()
    for r in reversed(blocks[1:]):
        block = _part(weights, f"b{r}.")
        if "fromrgb.weight" in block:
            x = _activate(_scaled_conv(block, "fromrgb", x))
        main = _activate(_scaled_conv(block, "conv0", x))
        fir = block["conv1.resample_filter"]
        main = _activate(_scaled_conv(block, "conv1", _filter(main, fir, (2, 2)), stride=2))
        if "skip.weight" in block:
            thin = _scaled_conv(block, "skip", _filter(x, fir, (1, 1))[:, :, ::2, ::2])
            main = (main + thin) * math.sqrt(0.5)
        x = main
    size = min(len(x), 4)
    # Samples i, i + batch / size, ... form a group.
    groups = x.reshape(size, -1, *x.shape[1:])
    spread = ((groups - groups.mean(dim=0)).square().mean(dim=0) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    x = torch.cat([x, spread.repeat(size)[:, None, None, None].expand(-1, 1, *x.shape[2:])], dim=1)
    x = _activate(_scaled_conv(weights, "b4.conv", x)).flatten(1)
    x = _activate(_linear(weights, "b4.fc", x))
    out = _linear(weights, "b4.out", x)
    if label is not None:
        condition = _perceptron(weights, _unit(_embedding(weights, label)), lr_multiplier)
        out = (out * condition).sum(dim=1, keepdim=True) / math.sqrt(condition.shape[1])
    return out


def _part(weights: Weights, prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()


def _activate(x: Tensor, clamp: float | None = None, gain: float = 1.0) -> Tensor:
    x = torch.where(x > 0, x, 0.2 * x) * (math.sqrt(2.0) * gain)
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


def _linear(weights: Weights, name: str, x: Tensor, lr_multiplier: float = 1.0) -> Tensor:
    weight, bias = weights[f"{name}.weight"].double(), weights[f"{name}.bias"].double()
    return x @ (weight * (lr_multiplier / math.sqrt(weight.shape[1]))).t() + bias * lr_multiplier


def _embedding(weights: Weights, label: int) -> Tensor:
    """Row of one label, before any normalisation: the linear layer on a one-hot vector."""
    labels = weights["mapping.embed.weight"].shape[1]
    chosen = torch.zeros(1, labels, dtype=torch.float64)
    chosen[0, label] = 1.0
    return _linear(weights, "mapping.embed", chosen)


def _perceptron(weights: Weights, x: Tensor, lr_multiplier: float) -> Tensor:
    layer = 0
    while f"mapping.fc{layer}.weight" in weights:
        x = _activate(_linear(weights, f"mapping.fc{layer}", x, lr_multiplier))
        layer += 1
    return x


def _filter(x: Tensor, fir: Tensor, padding: tuple[int, int], gain: float = 1.0) -> Tensor:
    """Convolve every channel with the filter after padding with zeros (before, after)."""
    before, after = padding
    x = F.pad(x, (before, after, before, after))
    height, width = x.shape[2:]
    out = F.conv2d(x.reshape(-1, 1, height, width), fir.flip(0, 1)[None, None] * gain)
    return out.reshape(*x.shape[:2], *out.shape[2:])


def _with_zeros(x: Tensor) -> Tensor:
    """A zero after every pixel, along both axes."""
    out = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    out[:, :, ::2, ::2] = x
    return out


def _double_size(x: Tensor, fir: Tensor) -> Tensor:
    return _filter(_with_zeros(x), fir, (2, 1), gain=4.0)


def _synthesis_layer(
    weights: Weights, x: Tensor, w: Tensor, clamp: float | None, *, up: bool = False, gain: float = 1.0
) -> Tensor:
    factors = _linear(weights, "affine", w)
    rows = []
    for sample, factor in zip(x, factors, strict=True):
        kernel = weights["weight"] * factor[None, :, None, None]
        kernel = kernel / (kernel.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            # Transposed convolution: every pixel spreads the kernel, so the kernel is flipped for a correlation.
            spread = F.conv2d(F.pad(_with_zeros(sample[None]), (2, 1, 2, 1)), kernel.flip(2, 3))
            rows.append(_filter(spread, weights["resample_filter"], (1, 1), gain=4.0))
        else:
            rows.append(F.conv2d(sample[None], kernel, padding=1))
    out = torch.cat(rows) + weights["noise_const"] * weights["noise_strength"] + weights["bias"][:, None, None]
    return _activate(out, clamp, gain)


def _colours(weights: Weights, x: Tensor, w: Tensor, clamp: float | None) -> Tensor:
    factors = _linear(weights, "affine", w) / math.sqrt(x.shape[1])
    kernels = weights["weight"][None, :, :, 0, 0] * factors[:, None, :]
    out = torch.einsum("boi,bihw->bohw", kernels, x) + weights["bias"][:, None, None]
    return out if clamp is None else out.clamp(-clamp, clamp)


def _scaled_conv(weights: Weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = weights[f"{name}.weight"]
    fan_in = weight[0].numel()
    padding = weight.shape[-1] // 2 if stride == 1 else 0
    bias = weights.get(f"{name}.bias")
    return F.conv2d(x, weight / math.sqrt(fan_in), bias, stride=stride, padding=padding)
