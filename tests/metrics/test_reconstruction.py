"""Tests of PSNR against scikit-image and of LPIPS without any download."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor, nn
from torchvision import models

from sisug.errors import DataError
from sisug.metrics import PerceptualDistance, ReconstructionPSNR, _once, lpips_if_available
from sisug.metrics.guards import clean_images


def images(seed: int, batch: int = 5) -> Tensor:
    return torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def noisy(target: Tensor) -> Tensor:
    amounts = torch.tensor([0.01, 0.02, 0.05, 0.1, 0.3]).reshape(-1, 1, 1, 1)
    return (target + amounts * images(9)).clamp(-1, 1)


def test_psnr_is_the_mean_over_images_of_scikit_images() -> None:
    target = images(0)
    result = noisy(target)
    metric = ReconstructionPSNR()
    metric.update(result[:2], target[:2])
    metric.update(result[2:], target[2:])
    values = [peak_signal_noise_ratio(t.numpy(), r.numpy(), data_range=2) for t, r in zip(target, result, strict=True)]
    assert float(metric.compute()) == pytest.approx(np.mean(values), rel=1e-5)
    of_mean_error = peak_signal_noise_ratio(target.numpy(), result.numpy(), data_range=2)
    assert float(metric.compute()) > of_mean_error + 1


def test_psnr_of_a_known_error() -> None:
    metric = ReconstructionPSNR()
    metric.update(torch.full((1, 3, 4, 4), 0.2), torch.zeros(1, 3, 4, 4))
    assert float(metric.compute()) == pytest.approx(20, abs=1e-4)  # 10 log10(4 / 0.04)


def test_a_perfect_image_counts_100_db_and_overshoot_is_clamped() -> None:
    metric = ReconstructionPSNR()
    metric.update(torch.full((1, 3, 4, 4), 1.5), torch.ones(1, 3, 4, 4))
    metric.update(torch.full((1, 3, 4, 4), 0.2), torch.zeros(1, 3, 4, 4))
    assert float(metric.compute()) == pytest.approx(60, abs=1e-4)


def test_halves_from_two_ranks_add_up() -> None:
    target = images(0)
    whole, first, second = (ReconstructionPSNR() for _ in range(3))
    whole.update(noisy(target), target)
    first.update(noisy(target)[:1], target[:1])
    second.update(noisy(target)[1:], target[1:])
    first.merge_state(second)
    assert float(first.compute()) == pytest.approx(float(whole.compute()), rel=1e-6)


def test_bad_images_are_refused() -> None:
    metric = ReconstructionPSNR()
    with pytest.raises(DataError, match="target images hold NaN"):
        metric.update(images(0), images(0) / 0 * 0)
    with pytest.raises(DataError, match="resize one to the other"):
        metric.update(images(0), images(0)[:, :, ::2])
    with pytest.raises(DataError, match="before compute"):
        metric.compute()
    with pytest.raises(DataError, match=r"images / 127\.5 - 1"):
        clean_images(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "images")
    with pytest.raises(DataError, match="add the batch dimension"):
        clean_images(torch.zeros(3, 4, 4), "images")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("a download was tried"))
    monkeypatch.setattr(_once, "SAID", set())
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("backbone", ["alex", "vgg", "squeeze"])
def test_without_weights_lpips_is_left_out_and_the_log_says_why_once(
    hub: Path, backbone: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert lpips_if_available(backbone) is None
        assert lpips_if_available(backbone) is None
    assert len(caplog.records) == 1
    assert str(hub) in caplog.text
    assert "download https://" in caplog.text


def squeezenet_file() -> str:
    return models.SqueezeNet1_1_Weights.DEFAULT.url.rsplit("/", 1)[-1]


def test_damaged_weights_leave_lpips_out(hub: Path, caplog: pytest.LogCaptureFixture) -> None:
    (hub / squeezenet_file()).write_bytes(b"half a file")
    with caplog.at_level(logging.WARNING):
        assert lpips_if_available("squeeze") is None
    assert "Delete the file" in caplog.text


def test_with_weights_lpips_is_a_frozen_metric(hub: Path) -> None:
    torch.manual_seed(0)
    torch.save(models.squeezenet1_1(weights=None).state_dict(), hub / squeezenet_file())
    metric = lpips_if_available("squeeze")
    assert metric is not None
    assert metric.name == "lpips-squeeze"
    owner = nn.Module()
    owner.metric = metric
    owner.train()
    assert not list(owner.parameters())
    assert not owner.state_dict()
    target = images(0)
    for chunk in (slice(0, 1), slice(1, 5)):
        metric.update(target[chunk] * 1.2, target[chunk])  # outside [-1, 1], which torchmetrics itself would refuse
    value = float(metric.compute())
    assert value > 0
    network = metric.network.network
    torch.testing.assert_close(value, float(network((target * 1.2).clamp(-1, 1), target).mean()), rtol=1e-4, atol=0)
    metric.reset()
    metric.update(target, target)
    assert float(metric.compute()) == pytest.approx(0, abs=1e-6)


def test_perceptual_distance_is_the_mean_over_pairs() -> None:
    class Gap(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return (first - second).abs().mean(dim=(1, 2, 3), keepdim=True)

    metric = PerceptualDistance(Gap(), "gap")
    metric.update(torch.full((1, 3, 2, 2), 0.3), torch.zeros(1, 3, 2, 2))
    metric.update(torch.full((3, 3, 2, 2), 0.1), torch.zeros(3, 3, 2, 2))
    assert float(metric.compute()) == pytest.approx(0.15, rel=1e-5)
