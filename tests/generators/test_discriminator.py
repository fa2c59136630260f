"""The discriminator against closed forms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sisug.generators import Discriminator
from sisug.generators.discriminator import EqualisedConv, minibatch_std
from sisug.generators.layers import fir_kernel


def test_minibatch_std_of_equal_samples_is_zero_and_of_two_known_groups_is_theirs():
    same = torch.ones(4, 2, 4, 4)
    assert minibatch_std(same)[:, -1].max() < 1e-3
    # Groups of 4 out of 8 are strided: samples 0, 2, 4, 6 and 1, 3, 5, 7.
    x = torch.zeros(8, 2, 4, 4)
    x[::2] = torch.tensor([1.0, 1.0, 3.0, 3.0])[:, None, None, None]
    out = minibatch_std(x)[:, -1, 0, 0]
    torch.testing.assert_close(out[::2], torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(out[1::2], torch.zeros(4), atol=1e-3, rtol=0)


@pytest.mark.parametrize("batch", [1, 3, 6, 8])
def test_any_batch_size_gives_one_logit_a_sample(batch):
    discriminator = Discriminator({4: 8, 8: 6, 16: 4})
    assert discriminator(torch.randn(batch, 3, 16, 16)).shape == (batch, 1)


def test_downsampling_convolution_filters_first():
    conv = EqualisedConv(2, 3, 3, downsample=True, activate=False)
    x = torch.randn(1, 2, 8, 8)
    blurred = torch.stack([F.conv2d(F.pad(c[None, None], (2, 2, 2, 2)), fir_kernel()[None, None])[0, 0] for c in x[0]])
    expected = F.conv2d(blurred[None], conv.weight * conv.weight_gain, stride=2)
    torch.testing.assert_close(conv(x), expected)


def test_features_go_from_fine_to_coarse():
    discriminator = Discriminator({4: 8, 8: 6, 16: 4, 32: 2})
    shapes = [tuple(f.shape[1:]) for f in discriminator.features(torch.randn(2, 3, 32, 32))]
    assert shapes == [(4, 16, 16), (6, 8, 8), (8, 4, 4)]
