"""Tests of the official FID, KID, precision and recall against torch-fidelity itself, with weights of the same file."""

from __future__ import annotations

import logging
import pickle
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from metrics.inception_file import write_random_inception
from PIL import Image
from torch import Tensor

from sisug.errors import CheckpointError, RunError
from sisug.metrics import FrechetDistance, InceptionFeatures, RealismScores, _once
from sisug.metrics import inception as inception_file


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_inception(tmp_path_factory.mktemp("inception") / "random.pth")


def bytes_of(count: int, seed: int, size: int = 24) -> np.ndarray:
    """Patches of colour with noise: pictures that random features tell apart."""
    random = np.random.default_rng(seed)
    patches = random.integers(0, 256 - 40 * seed, (count, 3, 3, 3)).repeat(size // 3, 1).repeat(size // 3, 2)
    return np.clip(patches + random.normal(0, 20, patches.shape), 0, 255).astype(np.uint8)


def as_images(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def write_folder(folder: Path, pixels: np.ndarray) -> Path:
    folder.mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index:03}.png")
    return folder


def by_torch_fidelity(real: Path, generated: Path, weights: Path, layer: str, count: int) -> dict[str, float]:
    layers = {f"feature_layer_{metric}": layer for metric in ("fid", "kid", "prc")}
    result: dict[str, float] = torch_fidelity.calculate_metrics(
        input1=str(generated),
        input2=str(real),
        fid=True,
        kid=True,
        prc=True,
        kid_subsets=1,
        kid_subset_size=count,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights),
        batch_size=4,
        save_cpu_ram=True,  # no worker processes
        cuda=False,
        cache=False,
        verbose=False,
        **layers,
    )
    return result


@pytest.mark.parametrize(
    ("feature", "count"), [(64, 16), pytest.param(2048, 10, marks=pytest.mark.slow)], ids=["layer-64", "layer-2048"]
)
def test_they_equal_torch_fidelity_on_the_same_two_folders(
    tmp_path: Path, weights: Path, feature: int, count: int
) -> None:
    sides = {"real": bytes_of(count, 0), "generated": bytes_of(count, 1)}
    folders = {name: write_folder(tmp_path / name, pixels) for name, pixels in sides.items()}
    expected = by_torch_fidelity(folders["real"], folders["generated"], weights, str(feature), count)
    scores = RealismScores(InceptionFeatures(weights, feature))
    for name, pixels in sides.items():
        for part in as_images(pixels).split(6):
            scores.update(part, real=name == "real")
    result = scores.compute()
    assert expected["frechet_inception_distance"] > 0
    assert result.frechet == pytest.approx(expected["frechet_inception_distance"], rel=1e-3)
    assert result.kernel == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-3)
    assert result.precision == pytest.approx(expected["precision"], abs=1e-6)
    assert result.recall == pytest.approx(expected["recall"], abs=1e-6)


def test_features_are_torch_fidelitys_on_the_bytes(weights: Path) -> None:
    pixels = bytes_of(2, 0)
    extractor = InceptionFeatures(weights, 64)
    images = as_images(pixels)
    direct = extractor.network(torch.from_numpy(pixels).permute(0, 3, 1, 2))[0]
    assert torch.equal(extractor(images), direct)
    images[0, 0, 0, 0] = 1.2  # would wrap around to another colour
    pixels[0, 0, 0, 0] = 255
    direct = extractor.network(torch.from_numpy(pixels).permute(0, 3, 1, 2))[0]
    assert torch.equal(extractor(images), direct)


def test_batches_and_order_change_nothing(weights: Path) -> None:
    extractor = InceptionFeatures(weights, 64)
    real, generated = (as_images(bytes_of(7, seed)) for seed in (0, 1))
    values = []
    for batch, first, second in ((7, real, generated), (4, real.flip(0), generated.flip(0)), (1, real, real.flip(0))):
        metric = FrechetDistance(extractor)
        for side, images in ((True, first), (False, second)):
            for part in images.split(batch):
                metric.update(part, real=side)
        values.append(float(metric.compute()))
    assert values[1] == pytest.approx(values[0], rel=1e-6)
    assert values[2] < 1e-6 < 1e-3 * values[0]  # a set and itself, with fewer images than features


def test_the_name_tells_the_weights(weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _once.SAID.clear()
    before = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        first = InceptionFeatures(weights)
    assert torch.equal(torch.get_rng_state(), before)
    other = InceptionFeatures(write_random_inception(tmp_path / "other.pth", seed=1), 192)
    assert first.name == f"inception-{first.fingerprint[:8]}"
    assert other.name == f"inception-{other.fingerprint[:8]}-192"
    assert first.fingerprint != other.fingerprint
    assert not first.official
    assert "not hold the Inception weights of published numbers" in caplog.text
    assert inception_file.OFFICIAL == "6726825d"
    assert FrechetDistance(first).extractor.fingerprint == first.fingerprint


class Rogue:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("the file's code was run",))


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"missing\.pth cannot be used.*github"):
        InceptionFeatures(tmp_path / "missing.pth")
    half = tmp_path / "half.pth"
    half.write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match=r"half\.pth cannot be used"):
        InceptionFeatures(half)
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="Missing key"):
        InceptionFeatures(tmp_path / "other.pth")
    (tmp_path / "rogue.pth").write_bytes(pickle.dumps(Rogue()))
    with pytest.raises(CheckpointError, match=r"rogue\.pth was not opened"):
        InceptionFeatures(tmp_path / "rogue.pth")


def test_without_access_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def no_network(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(RunError, match=r"no route to host.*download https://github.*inception=FILE"):
        InceptionFeatures()


def test_the_download_is_checked_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    asked: list[str] = []

    def fetch(url: str, file: str, hash_prefix: str, progress: bool) -> None:
        asked.append(hash_prefix)
        Path(file).write_bytes(weights.read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    first, second = InceptionFeatures(feature=64), InceptionFeatures(feature=64)
    assert asked == ["6726825d"]
    assert first.fingerprint == second.fingerprint
    assert (tmp_path / "checkpoints" / inception_file.FILE).is_file()
