"""Random warps move features and the RGB skip alike, and invent nothing."""

from __future__ import annotations

import torch

from sisug.generators import Features
from sisug.rearranger.warping import random_warp


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_features_and_rgb_move_alike():
    features = torch.randn(6, 5, 16, 16)
    warped = random_warp(Features(features, features[:, :3]), stream())
    torch.testing.assert_close(warped.map[:, :3], warped.rgb)
    assert (warped.map - features).abs().mean() > 0.3, "something moved"


def test_values_stay_within_those_of_the_source():
    features = torch.rand(4, 3, 16, 16)
    warped = random_warp(Features(features, features), stream())
    assert warped.map.min() >= features.min()
    assert warped.map.max() <= features.max()
    flat = torch.ones(2, 4, 8, 8)
    torch.testing.assert_close(random_warp(Features(flat, flat[:, :3]), stream()).map, flat)


def test_each_sample_has_its_own_warp_and_a_stream_repeats_it():
    image = torch.rand(1, 3, 16, 16).expand(4, -1, -1, -1)
    first = random_warp(Features(image, image), stream(1)).map
    assert torch.equal(first, random_warp(Features(image, image), stream(1)).map)
    assert not torch.equal(first, random_warp(Features(image, image), stream(2)).map)
    assert all((first[0] - first[i]).abs().mean() > 0.01 for i in range(1, 4))


def test_about_half_of_the_samples_are_mirrored():
    ramp = torch.linspace(0, 1, 32).expand(200, 1, 32, 32)
    warped = random_warp(Features(ramp, ramp.expand(-1, 3, -1, -1)), stream()).map[:, 0, 8:24, 8:24]
    slope = (warped[:, :, -1] - warped[:, :, 0]).mean(dim=1)
    assert 70 < int((slope < 0).sum()) < 130
