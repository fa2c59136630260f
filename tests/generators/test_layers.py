"""Layers of StyleGAN2 against straightforward computations of the published formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d

from sisug.generators.layers import (
    FullyConnected,
    fir_filter,
    fir_kernel,
    fir_upsample,
    modulated_conv,
    normalise_second_moment,
)


def scipy_resample(image: np.ndarray, taps: list[float], *, up: int, down: int, before: int, after: int, gain: float):
    """Insert zeros, pad, filter, drop pixels, as the definition says, with scipy's convolution."""
    line = np.asarray(taps) / np.sum(taps)
    spread = np.zeros((image.shape[0] * up, image.shape[1] * up))
    spread[::up, ::up] = image
    padded = np.pad(spread, (before, after))
    return convolve2d(padded, np.outer(line, line), mode="valid")[::down, ::down] * gain


@pytest.mark.parametrize("taps", [[1.0, 3.0, 3.0, 1.0], [1.0, 2.0, 1.0], [1.0, 4.0, 6.0, 6.0, 4.0, 1.0]])
def test_upsampling_equals_scipy(taps):
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64)
    expected = [
        scipy_resample(c.numpy(), taps, up=2, down=1, before=(len(taps) + 1) // 2, after=(len(taps) - 2) // 2, gain=4.0)
        for c in x[0]
    ]
    out = fir_upsample(x, fir_kernel(taps).double())
    torch.testing.assert_close(out[0], torch.tensor(np.stack(expected)), atol=1e-6, rtol=1e-6)


def test_downsampling_equals_scipy():
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    expected = scipy_resample(x[0, 0].numpy(), [1, 3, 3, 1], up=1, down=2, before=1, after=1, gain=1.0)
    out = fir_filter(x, fir_kernel().double(), padding=(1, 1))[:, :, ::2, ::2]
    torch.testing.assert_close(out[0, 0], torch.tensor(expected), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("taps", [[1.0, 3.0, 3.0, 1.0], [1.0, 2.0, 5.0]], ids=["symmetric", "lopsided"])
@pytest.mark.parametrize("padding", [(1, 1), (2, 2), (2, 1)], ids=str)
def test_filter_has_the_gradients_of_a_convolution(taps, padding):
    """Its gradient is written by hand; first and second order against finite differences, and against PyTorch's own."""
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    kernel = fir_kernel(taps).double()
    assert torch.autograd.gradcheck(lambda x: fir_filter(x, kernel, padding=padding), (x,))
    assert torch.autograd.gradgradcheck(lambda x: fir_filter(x, kernel, padding=padding).square(), (x,))
    padded = F.pad(x, (padding[0], padding[1]) * 2)
    expected = F.conv2d(padded, kernel.expand(3, 1, *kernel.shape), groups=3)
    torch.testing.assert_close(fir_filter(x, kernel, padding=padding), expected)


def test_modulated_convolution_keeps_the_type_that_autocast_chose():
    x, weight, styles = torch.randn(2, 4, 6, 6), torch.randn(5, 4, 3, 3), torch.randn(2, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert modulated_conv(x, weight, styles).dtype == torch.bfloat16


@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_modulated_convolution_equals_the_formula(upsample, demodulate, biased):
    """Weights scaled and normalised per sample, one sample at a time, as StyleGAN2, section 2.2."""
    x, weight = torch.randn(3, 4, 6, 6, dtype=torch.float64), torch.randn(5, 4, 3, 3, dtype=torch.float64)
    styles = torch.randn(3, 4, dtype=torch.float64) + 1
    kernel = fir_kernel().double()
    bias = torch.randn(5, dtype=torch.float64) if biased else None
    expected = []
    for image, style in zip(x, styles, strict=True):
        scaled = weight * style[None, :, None, None]
        if demodulate:
            scaled = scaled / (scaled.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if upsample:
            spread = torch.zeros(1, 4, 11, 11, dtype=torch.float64)
            spread[0, :, ::2, ::2] = image
            # A transposed convolution correlates with the flipped kernel over the spread-out input.
            y = F.conv2d(spread, scaled.flip(2, 3), padding=2)
            y = torch.stack(
                [
                    torch.tensor(scipy_resample(c.numpy(), [1, 3, 3, 1], up=1, down=1, before=1, after=1, gain=4.0))
                    for c in y[0]
                ]
            )[None]
        else:
            y = F.conv2d(image[None], scaled, padding=1)
        y = 1.5 * y[0]
        expected.append(y if bias is None else y + bias[:, None, None])
    out = modulated_conv(
        x,
        weight,
        styles,
        bias=bias,
        gain=1.5,
        demodulate=demodulate,
        upsample_kernel=kernel if upsample else None,
    )
    torch.testing.assert_close(out, torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_fully_connected_scales_at_run_time():
    layer = FullyConnected(7, 3, activate=True, lr_multiplier=0.01, bias_init=2.0)
    x = torch.randn(4, 7)
    y = x.numpy() @ (layer.weight.detach().numpy().T * 0.01 / np.sqrt(7)) + 0.02
    expected = np.where(y > 0, y, 0.2 * y) * np.sqrt(2)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_latents_are_normalised_to_unit_mean_square():
    z = normalise_second_moment(torch.randn(5, 64) * 7)
    torch.testing.assert_close(z.square().mean(dim=1), torch.ones(5))
