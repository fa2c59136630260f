"""The contract of the frozen backbone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sisug.errors import ConfigError
from sisug.generators import load_generator
from sisug.generators.backbone import default_split


def test_contract_of_the_shipped_generator():
    backbone = load_generator("avatars")
    assert (backbone.resolution, backbone.split, backbone.feature_channels) == (64, 32, 64)
    assert (backbone.num_ws, backbone.z_dim, backbone.w_dim) == (10, 128, 128)
    assert len(backbone.fingerprint) == 64
    assert load_generator("avatars", 16).fingerprint == backbone.fingerprint


def test_frozen_whatever_is_called(tiny_generator_file):
    backbone = load_generator(tiny_generator_file)
    holder = nn.ModuleDict({"generator": backbone})
    holder.train()
    holder.requires_grad_(True)
    backbone.train(True)
    backbone.requires_grad_(True)
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_gradients_pass_through_but_stay_out_of_the_weights(tiny_generator_file):
    backbone = load_generator(tiny_generator_file, 8)
    ws = backbone.map(torch.randn(2, backbone.z_dim))
    features = backbone.features(ws)
    moved = features.map.clone().requires_grad_(True)
    backbone.render(features._replace(map=moved), ws).square().sum().backward()
    assert moved.grad is not None
    assert moved.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in backbone.parameters())


@pytest.mark.parametrize(("resolution", "split"), [(16, 8), (64, 32), (128, 64), (256, 64), (1024, 64)])
def test_default_split(resolution, split):
    assert default_split(resolution) == split


@pytest.mark.parametrize("split", [0, 5, 128])
def test_wrong_split_names_the_right_ones(split):
    with pytest.raises(ConfigError, match=r"\(4, 8, 16, 32, 64\).*leave the split out for 32"):
        load_generator("avatars", split)
