"""Features of an untrained network: the same for everybody, apart for other images."""

from __future__ import annotations

import pytest
import torch

from sisug.metrics import FrechetDistance, RandomFeatures


def test_weights_come_from_the_seed_alone() -> None:
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a = RandomFeatures().eval()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    b = RandomFeatures().eval()
    assert torch.equal(a(images), b(images))
    assert not torch.equal(RandomFeatures(seed=1).eval()(images), a(images))
    assert (a.name, RandomFeatures(1).name) == ("random-resnet18-0", "random-resnet18-1")
    assert a(images).shape == (2, a.num_features)


@pytest.mark.filterwarnings("ignore:.*singular")
def test_other_images_are_farther_than_more_of_the_same() -> None:
    torch.manual_seed(0)
    distance = FrechetDistance(RandomFeatures(), "random", keep_real=True)
    smooth = [torch.rand(300, 3, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3) * 2 - 1 for _ in range(2)]
    noise = torch.rand(300, 3, 32, 32) * 2 - 1
    distance.update(smooth[0], real=True)
    distance.update(smooth[1], real=False)
    near = float(distance.compute())
    distance.reset()
    distance.update(noise, real=False)
    assert float(distance.compute()) > 2 * near
