"""Tests of the Fréchet distance against closed forms and scipy's matrix square root."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from sisug.errors import ConfigError, DataError
from sisug.metrics import FrechetDistance


class Pixels(nn.Module):
    """Features are the pixels themselves, so that a test can choose them."""

    num_features = 6

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


class Network(nn.Module):
    """A small trained-looking extractor whose mode matters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1))
        self.num_features = 4

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).flatten(1)


def samples(count: int, seed: int, shift: float = 0.0, scale: float = 0.2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(6, 6, generator=torch.Generator().manual_seed(99)) / 3
    return (torch.randn(count, 6, generator=generator) @ mixing * scale + shift).clamp(-1, 1).reshape(count, 3, 1, 2)


def distance(real: Tensor, generated: Tensor, batch: int = 64, **options: object) -> float:
    metric = FrechetDistance(Pixels(), "pixels", **options)
    for side, images in ((True, real), (False, generated)):
        for chunk in images.split(batch):
            metric.update(chunk, real=side)
    return float(metric.compute())


def by_scipy(real: Tensor, generated: Tensor) -> float:
    a, b = (x.flatten(1).double().numpy() for x in (real, generated))
    root = scipy.linalg.sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)).real
    mean = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return float(mean + np.trace(np.cov(a, rowvar=False) + np.cov(b, rowvar=False) - 2 * root))


def test_it_equals_the_formula_with_scipys_matrix_root() -> None:
    real, generated = samples(300, 0), samples(250, 1, shift=0.1, scale=0.3)
    expected = by_scipy(real, generated)
    assert expected > 0.05
    assert distance(real, generated) == pytest.approx(expected, rel=1e-5)


def test_two_independent_gaussians_have_the_closed_form() -> None:
    # Diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2, reached exactly by whitened samples.
    raw = samples(400, 2).flatten(1).double()
    white = raw - raw.mean(dim=0)
    white = white @ torch.linalg.inv(torch.linalg.cholesky(white.T.cov())).T
    first = torch.tensor([0.05, 0.1, 0.02, 0.08, 0.01, 0.04])
    second = torch.tensor([0.1, 0.1, 0.05, 0.02, 0.03, 0.04])
    shift = torch.tensor([0.2, 0.0, -0.1, 0.0, 0.05, 0.0])
    sets = [(white * s + m).float().reshape(-1, 3, 1, 2) for s, m in ((first, 0 * shift), (second, shift))]
    assert max(float(s.abs().max()) for s in sets) < 1  # nothing was clamped
    expected = float(shift.square().sum() + (first - second).square().sum())
    assert distance(*sets) == pytest.approx(expected, rel=1e-4)


def test_identical_sets_are_at_distance_zero() -> None:
    real = samples(100, 0)
    assert 0 <= distance(real, real) < 1e-6


def test_neither_batch_size_nor_order_matters() -> None:
    real, generated = samples(120, 0), samples(90, 1, shift=0.1)
    expected = distance(real, generated)
    assert distance(real, generated, batch=1) == pytest.approx(expected, rel=1e-6)
    shuffled = real[torch.randperm(120, generator=torch.Generator().manual_seed(3))]
    assert distance(shuffled, generated, batch=37) == pytest.approx(expected, rel=1e-6)


def test_halves_from_two_ranks_add_up() -> None:
    real, generated = samples(120, 0), samples(90, 1, shift=0.1)
    ranks = [FrechetDistance(Pixels(), "pixels") for _ in range(2)]
    for rank, metric in enumerate(ranks):
        metric.update(real[rank::2], real=True)
        metric.update(generated[rank * 30 : 30 + rank * 60], real=False)
    ranks[0].merge_state(ranks[1])
    assert float(ranks[0].compute()) == pytest.approx(by_scipy(real, generated), rel=1e-5)


def test_images_are_clamped() -> None:
    real, generated = samples(100, 0), samples(100, 1)
    beyond = generated.clone()
    beyond[:5], generated[:5] = 1.7, 1.0
    assert distance(real, beyond) == pytest.approx(distance(real, generated), rel=1e-6)


def test_images_that_are_not_finite_are_refused() -> None:
    images = samples(10, 0)
    images[3, 1] = float("nan")
    with pytest.raises(DataError, match="generated images hold NaN"):
        FrechetDistance(Pixels(), "pixels").update(images, real=False)


@pytest.mark.parametrize(("real", "generated", "text"), [(1, 9, "1 real"), (9, 1, "1 generated"), (0, 0, "0 real")])
def test_too_few_images_are_refused(real: int, generated: int, text: str) -> None:
    metric = FrechetDistance(Pixels(), "pixels")
    for side, count in ((True, real), (False, generated)):
        metric.update(samples(count, 0), real=side)
    with pytest.raises(DataError, match=f"{text}.*before compute"):
        metric.compute()


def test_fewer_images_than_features_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    metric = FrechetDistance(Pixels(), "pixels")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            metric.update(samples(5, 0), real=True)
            metric.update(samples(50, 1), real=False)
            assert torch.isfinite(metric.compute())
            metric.reset()
    assert len(caplog.records) == 1
    assert "5 images for 6 features" in caplog.text


def test_real_statistics_can_be_kept() -> None:
    real, generated = samples(100, 0), samples(100, 1, shift=0.1)
    metric = FrechetDistance(Pixels(), "pixels", keep_real=True)
    metric.update(real, real=True)
    metric.reset()
    assert (metric.real_samples, metric.generated_samples) == (100, 0)
    metric.update(generated, real=False)
    assert float(metric.compute()) == pytest.approx(by_scipy(real, generated), rel=1e-5)


def test_the_extractor_is_frozen_and_no_part_of_the_model() -> None:
    extractor = Network().train()
    metric = FrechetDistance(extractor, "network")
    owner = nn.Module()
    owner.metric = metric
    owner.train()
    assert not list(owner.parameters())
    assert not owner.state_dict()
    assert not extractor.training
    assert not any(p.requires_grad for p in extractor.parameters())
    before = copy.deepcopy(extractor.state_dict())
    extractor.train()  # by someone else who holds it: dropout and batch statistics must stay out of the score
    images = torch.rand(8, 3, 4, 4) * 2 - 1
    metric.update(images, real=True)
    metric.update(images, real=False)
    assert all(torch.equal(value, before[key]) for key, value in extractor.state_dict().items())
    torch.testing.assert_close(metric.real_features_sum, metric.fake_features_sum, rtol=0, atol=0)


def test_precision_of_the_training_does_not_reach_the_score() -> None:
    images = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.manual_seed(0)
    plain = FrechetDistance(Network(), "network")
    torch.manual_seed(0)
    mixed = FrechetDistance(Network(), "network").bfloat16()
    plain.update(images, real=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed.update(images, real=True)
    torch.testing.assert_close(plain.real_features_sum, mixed.real_features_sum, rtol=0, atol=0)
    assert mixed.real_features_sum.dtype == torch.float64


def test_the_extractor_follows_device_moves() -> None:
    extractor = Network()
    FrechetDistance(extractor, "network").to("meta")
    assert {p.device.type for p in extractor.parameters()} == {"meta"}


def test_a_copy_scores_alike() -> None:
    metric = FrechetDistance(Pixels(), "pixels")
    metric.update(samples(50, 0), real=True)
    twin = metric.clone()
    for m in (metric, twin):
        m.update(samples(50, 1), real=False)
    assert torch.equal(metric.compute(), twin.compute())


def test_an_extractor_of_unknown_or_wrong_width_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_features="):
        FrechetDistance(nn.Flatten(), "flat")
    metric = FrechetDistance(nn.Flatten(), "flat", num_features=5)
    with pytest.raises(ConfigError, match=r"\(4, 6\).*correct num_features"):
        metric.update(samples(4, 0), real=True)
    unpooled = FrechetDistance(nn.Identity(), "map", num_features=3)
    with pytest.raises(ConfigError, match="pool feature maps"):
        unpooled.update(samples(4, 0), real=True)
