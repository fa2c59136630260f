"""Layers that StyleGAN2's generator and discriminator share (generators): equalised linear maps, FIR resampling,
modulation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

LEAKY_SLOPE = 0.2
# sqrt(2) keeps the variance through a leaky ReLU (StyleGAN2, appendix B: activations are scaled, weights are not).
ACTIVATION_GAIN = math.sqrt(2.0)


def leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2 times sqrt(2)."""
    return F.leaky_relu(x, LEAKY_SLOPE) * ACTIVATION_GAIN


def normalise_second_moment(x: Float[Tensor, "*batch channel"]) -> Float[Tensor, "*batch channel"]:
    """Scale vectors to a mean square of one: what StyleGAN2 does to z before its mapping network."""
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-8)


def standard_normal(*shape: int, gain: float = 1.0) -> Tensor:
    """Initial weights: standard normal numbers times `gain`.

    On the meta device, where a network waits for a file's tensors, nothing is drawn and no operation is asked for:
    PyTorch's first one there imports for a second.
    """
    weights = torch.empty(shape)
    return weights if weights.is_meta else weights.normal_().mul_(gain)


def fir_kernel(taps: Sequence[float] = (1.0, 3.0, 3.0, 1.0)) -> Float[Tensor, "taps taps"]:
    """Outer product of a 1-D filter with itself, of sum one (StyleGAN2, appendix B: [1, 3, 3, 1])."""
    total = sum(taps) ** 2
    return torch.tensor([[a * b / total for b in taps] for a in taps], dtype=torch.float32)


def fir_filter(
    x: Float[Tensor, "batch channel height width"],
    kernel: Float[Tensor, "taps taps"],
    *,
    padding: tuple[int, int],
    gain: float = 1.0,
) -> Float[Tensor, "batch channel out_height out_width"]:
    """Filter every channel with the same kernel.

    Args:
        x: any feature map.
        kernel: filter of sum one; flipped by nothing, so it should be symmetric or given flipped.
        padding: zeros (before, after) on both axes.
        gain: factor on the result; 4 where zeros were inserted between pixels.
    """
    before, after = padding
    if before != after:
        x, before = F.pad(x, (before, after, before, after)), 0
    filtered: Tensor = _DepthwiseFilter.apply(x, kernel * gain, before)
    return filtered


class _DepthwiseFilter(torch.autograd.Function):
    """Depthwise convolution with a fixed kernel, whose gradient is the same operation again.

    PyTorch's own gradient of a gradient goes through every group of the convolution by itself, which made the gradient
    penalty two times as slow.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.padding = padding
        channels = x.shape[1]
        # In channels_last this is several times as fast as the alternatives on CPUs.
        weight = kernel.to(x.dtype).expand(channels, 1, *kernel.shape)
        return F.conv2d(x, weight, padding=padding, groups=channels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (kernel,) = ctx.saved_tensors
        gradient: Tensor = _DepthwiseFilter.apply(gradients[0], kernel.flip(0, 1), kernel.shape[0] - 1 - ctx.padding)
        return gradient, None, None


def fir_upsample(
    x: Float[Tensor, "batch channel height width"], kernel: Float[Tensor, "taps taps"]
) -> Float[Tensor, "batch channel height2 width2"]:
    """Double the size: insert zeros, then filter with gain 4 (the RGB skip of StyleGAN2)."""
    batch, channels, height, width = x.shape
    if kernel.shape[0] == 4:
        # The transposed convolution inserts the zeros and filters in one pass; the kernel is symmetric.
        weight = (kernel * 4).to(x.dtype).expand(channels, 1, *kernel.shape)
        return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=channels)
    spread = x.new_zeros(batch, channels, height, 2, width, 2)
    spread[:, :, :, 0, :, 0] = x
    taps = kernel.shape[0]
    padding = ((taps + 1) // 2, (taps - 2) // 2)
    return fir_filter(spread.reshape(batch, channels, 2 * height, 2 * width), kernel, padding=padding, gain=4.0)


class FullyConnected(nn.Module):
    """Equalised linear layer: weights are stored divided by `lr_multiplier` and scaled at run time.

    Args:
        in_features: size of the input vectors.
        out_features: size of the output vectors.
        activate: apply the leaky ReLU.
        lr_multiplier: learning rate of this layer relative to the optimizer's (0.01 in the mapping network).
        bias_init: initial bias, before the multiplier (1 for style affines).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activate: bool = False,
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(standard_normal(out_features, in_features, gain=1.0 / lr_multiplier))
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))
        self.activate = activate
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Float[Tensor, "batch in"]) -> Float[Tensor, "batch out"]:
        x = F.linear(x, (self.weight * self.weight_gain).to(x.dtype), (self.bias * self.bias_gain).to(x.dtype))
        return leaky_relu(x) if self.activate else x


def _energy(weight: Float[Tensor, "out in k k"]) -> Float[Tensor, "out in"]:
    """Sum of squares over the pixels of a kernel.

    Pixel by pixel, which is quick however the weights lie in memory: a sum over the last two dimensions took up to 20
    times as long, as much as the convolution itself at small sizes.
    """
    first, *others = weight.flatten(2).unbind(2)
    energy = first.square()
    for pixel in others:
        energy = torch.addcmul(energy, pixel, pixel)
    return energy


def modulated_conv(
    x: Float[Tensor, "batch in height width"],
    weight: Float[Tensor, "out in k k"],
    styles: Float[Tensor, "batch in"],
    *,
    bias: Float[Tensor, " out"] | None = None,
    gain: float = 1.0,
    demodulate: bool = True,
    upsample_kernel: Float[Tensor, "taps taps"] | None = None,
) -> Float[Tensor, "batch out out_height out_width"]:
    """Convolution whose weights are scaled per sample and input channel (StyleGAN2, section 2.2, equations 1 to 3).

    Activations are scaled instead of weights, which is equal up to rounding and keeps one convolution for the batch.
    What scales the output and what is added to it go over it in one pass. Where the features are float16, weights and
    styles are divided by their largest magnitudes, which demodulation makes up for, so that nothing overflows on the
    way (as StyleGAN2-ADA does, Karras et al. 2020, arXiv 2006.06676).

    Args:
        x: features.
        weight: shared weights, as NVIDIA's PyTorch files store them.
        styles: factor per sample and input channel.
        bias: added to the output, not scaled by anything.
        gain: factor on the output of the convolution.
        demodulate: scale the output so that each output channel keeps unit variance.
        upsample_kernel: FIR kernel; when given the output has twice the size.
    """
    scale: Tensor | None = None
    if demodulate:
        energy = styles.float().square() @ _energy(weight.float()).t()
        scale = torch.rsqrt(energy + 1e-8) * gain
        if x.dtype == torch.float16:
            fan_in = weight[0].numel()
            largest_weight = weight.float().abs().amax(dim=(1, 2, 3)) * math.sqrt(fan_in) + 1e-8
            largest_style = styles.float().abs().amax(dim=1, keepdim=True) + 1e-8
            weight, styles = weight / largest_weight[:, None, None, None], styles / largest_style
            scale = scale * largest_weight * largest_style
    elif gain != 1.0:
        styles = styles * gain
    out = x * styles.to(x.dtype)[:, :, None, None]
    if upsample_kernel is None:
        # Without demodulation the convolution can add the bias by itself.
        own_bias = bias.to(x.dtype) if bias is not None and scale is None else None
        out = F.conv2d(out, weight.to(x.dtype), own_bias, padding=weight.shape[-1] // 2)
        if scale is None:
            return out
    else:
        out = F.conv_transpose2d(out, weight.to(x.dtype).transpose(0, 1), stride=2)
        taps = upsample_kernel.shape[0]
        out = fir_filter(out, upsample_kernel, padding=((taps - 1) // 2, (taps - 2) // 2), gain=4.0)
    # All of the convolution's type, which autocast may have chosen: a wider one would widen all that follows.
    added = None if bias is None else bias.to(out.dtype)[None, :, None, None]
    if scale is None:
        return out if added is None else out + added
    scale = scale.to(out.dtype)[:, :, None, None]
    return out * scale if added is None else torch.addcmul(added, out, scale)
