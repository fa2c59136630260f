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


def test_architectures_differ_by_the_residual_path_alone():
    """`orig` is the residual discriminator without its `skip` weights and without the factor of the sum."""
    resnet, orig = (Discriminator({4: 8, 8: 6, 16: 4}, architecture=name) for name in ("resnet", "orig"))
    shared = {key: value for key, value in resnet.state_dict().items() if ".skip." not in key}
    assert shared.keys() == orig.state_dict().keys()
    assert {key for key in resnet.state_dict() if ".skip." in key} == {
        f"b{r}.skip.{name}" for r in (8, 16) for name in ("weight", "resample_filter")
    }
    orig.load_state_dict(shared)
    x = torch.randn(2, 3, 16, 16)
    expected = x
    for name in ("b16.fromrgb", "b16.conv0", "b16.conv1", "b8.conv0", "b8.conv1"):
        expected = orig.get_submodule(name)(expected)
    assert torch.equal(orig.features(x)[-1], expected)
    assert torch.equal(orig(x), orig.b4(expected))
    assert (orig(x) - resnet(x)).abs().max() > 1e-3
