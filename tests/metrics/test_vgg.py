"""The VGG-16 trunk against torchvision's with the same weights, and what distances in it promise."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from sisug.metrics import FrechetDistance, PerceptualDistance, VGGDistance, VGGFeatures, vgg

CUTS = (0, 4, 9, 16, 23, 30)
"""Where torchvision's VGG-16 begins a stage: at its pooling layers."""

BGR_MEAN = (104.00698793, 116.66876762, 122.67891434)


@pytest.fixture(scope="module")
def reference() -> list[nn.Sequential]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = make_layers(cfgs["D"], batch_norm=False).requires_grad_(False)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
        return [layers[first:last] for first, last in pairwise(CUTS)]


@pytest.fixture(autouse=True)
def weights(reference: list[nn.Sequential], monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {"mean": torch.tensor(BGR_MEAN[::-1]).view(1, 3, 1, 1)}
    for number, stage in enumerate(reference):
        convolutions = [layer for layer in stage if isinstance(layer, nn.Conv2d)]
        for place, layer in enumerate(convolutions):
            tensors |= {f"stages.{number}.{place}.{kind}": value for kind, value in layer.state_dict().items()}
    monkeypatch.setattr(vgg, "hed_tensors", lambda: tensors)


def images(seed: int, count: int = 2) -> Tensor:
    noise = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(noise, size=(256, 256), mode="bilinear").clamp(-1, 1)


def test_features_are_means_of_torchvisions_stages(reference: list[nn.Sequential]) -> None:
    given = images(0)
    values = (given + 1) * 127.5 - torch.tensor(BGR_MEAN[::-1]).view(1, 3, 1, 1)
    expected = []
    for number, stage in enumerate(reference):
        values = stage(values)
        if number in (2, 4):
            expected.append((values / values.norm(dim=1, keepdim=True)).mean(dim=(2, 3)))
    extractor = VGGFeatures()
    torch.testing.assert_close(extractor(given), torch.cat(expected, dim=1), atol=1e-4, rtol=1e-3)
    assert extractor.num_features == 256 + 512
    assert FrechetDistance(extractor).name == "vgg_hed"


def test_equal_images_are_at_no_distance_and_blur_is_further_than_noise_of_a_byte() -> None:
    given = images(1)
    distance = VGGDistance()
    assert distance(given, given).tolist() == [0.0, 0.0]
    blurred = nn.functional.avg_pool2d(given, 9, stride=1, padding=4)
    nearly = given + (torch.rand(given.shape, generator=torch.Generator().manual_seed(0)) - 0.5) / 127.5
    assert (distance(given, blurred) > 10 * distance(given, nearly)).all()
    torch.testing.assert_close(distance(given, blurred), distance(blurred, given))
    score = PerceptualDistance(distance, distance.name)
    score.update(given, blurred)
    torch.testing.assert_close(score.compute(), distance(given, blurred).mean())
