"""The judge: frozen, at any image size, its features, and its files; the shipped one reads held-out avatars."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import jaccard_score
from torchmetrics.image.fid import FrechetInceptionDistance
from torchvision.transforms.functional import gaussian_blur

from sisug.data.avatars.dataset import AvatarsDataset
from sisug.errors import CheckpointError
from sisug.labels.label_sets import AVATARS
from sisug.segmentation.commands import measure
from sisug.segmentation.judge import Judge, JudgeFeatures
from sisug.segmentation.loading import JUDGES, load_judge, save_judge
from sisug.segmentation.network import JudgeNetwork

SMALL = {"encoder": "tu-resnet10t", "decoder_channels": (8, 8, 8), "detail_channels": 4}


@pytest.fixture
def judge() -> Judge:
    torch.manual_seed(0)
    return Judge(JudgeNetwork(AVATARS.num_classes, **SMALL), AVATARS, "small", 32)


@pytest.fixture(scope="module")
def shipped() -> Judge:
    return load_judge("avatars")


@pytest.fixture(scope="module")
def avatars() -> tuple[torch.Tensor, torch.Tensor]:
    dataset = AvatarsDataset("test", 48, 64)
    samples = [dataset[index] for index in range(len(dataset))]
    return torch.stack([s["image"] for s in samples]), torch.stack([s["mask"] for s in samples])


def test_is_frozen_and_in_eval_whatever_is_called(judge: Judge) -> None:
    judge.train().requires_grad_(True)
    torch.nn.ModuleList([judge, JudgeFeatures(judge)]).train()
    assert not any(module.training for module in judge.modules())
    assert not any(parameter.requires_grad for parameter in judge.parameters())
    before = {key: value.clone() for key, value in judge.state_dict().items()}
    judge.segment(torch.randn(4, 3, 32, 32))
    assert all(torch.equal(value, before[key]) for key, value in judge.state_dict().items())


def test_gradients_pass_through_to_the_images(judge: Judge) -> None:
    for read in (judge, judge.features):
        images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
        read(images).square().sum().backward()
        assert images.grad is not None
        assert float(images.grad.abs().sum()) > 0


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (100, 60), (17, 40)])
def test_masks_have_the_images_size(judge: Judge, height: int, width: int) -> None:
    masks = judge.segment(torch.rand(2, 3, height, width) * 2 - 1)
    assert masks.shape == (2, height, width)
    assert masks.dtype == torch.int64
    assert 0 <= int(masks.min()) <= int(masks.max()) < 11


def test_features_are_rows_of_the_declared_length(judge: Judge) -> None:
    extractor = JudgeFeatures(judge)
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    assert extractor(images).shape == (3, judge.num_features)
    assert 64 <= extractor.num_features == judge.num_features <= 256
    assert torch.allclose(extractor(images)[1:2], extractor(images[1:2]), atol=1e-5)


def test_torchmetrics_takes_the_features(judge: Judge) -> None:
    fid = FrechetInceptionDistance(feature=JudgeFeatures(judge))
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    fid.update(images, real=True)
    fid.update(images, real=False)
    assert abs(float(fid.compute())) < 1e-3


def test_fingerprint_follows_the_weights(judge: Judge) -> None:
    other = Judge(judge.network, AVATARS, "other name", 32)
    assert other.fingerprint == judge.fingerprint
    with torch.no_grad():
        judge.network.head[-1].bias[3] += 1e-3
    assert Judge(judge.network, AVATARS, "small", 32).fingerprint != other.fingerprint


# Files


@pytest.fixture
def saved(judge: Judge, tmp_path: Path) -> Path:
    path = tmp_path / "judges" / "small.safetensors"
    save_judge(judge, path, SMALL, {"measured": {"miou": 0.5}})
    return path


def test_written_judges_are_read_again(judge: Judge, saved: Path) -> None:
    loaded = load_judge(saved)
    assert (loaded.name, loaded.labels, loaded.resolution) == ("small", AVATARS, 32)
    for key, value in judge.network.state_dict().items():
        assert torch.allclose(loaded.network.state_dict()[key].float(), value.float(), rtol=1e-3, atol=1e-6), key
    assert loaded.fingerprint == load_judge(str(saved)).fingerprint
    assert sorted(path.name for path in saved.parent.iterdir()) == ["small.json", "small.safetensors"]
    record = json.loads(saved.with_suffix(".json").read_text())
    assert record["measured"] == {"miou": 0.5}
    assert record["sha256"] == hashlib.sha256(saved.read_bytes()).hexdigest()


def change_record(path: Path, **fields: object) -> None:
    record = path.with_suffix(".json")
    record.write_text(json.dumps(json.loads(record.read_text()) | fields))


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def other_label_set(path: Path) -> None:
    labels = AVATARS.to_dict()
    change_record(path, label_set=labels | {"classes": labels["classes"][:-1], "palette": labels["palette"][:-1]})


def other_weights(path: Path) -> None:
    weights = load_file(path)
    weights.pop("head.1.bias")
    save_file(weights, path)
    change_record(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda path: path.unlink(), "there is no file .*small.safetensors"),
        (lambda path: path.with_suffix(".json").unlink(), "there is no file .*small.json"),
        (lambda path: path.with_suffix(".json").write_text("{"), "cannot be read"),
        (lambda path: path.with_suffix(".json").write_text("[]"), "is no record of a sisug-judge-1"),
        (lambda path: change_record(path, format="sisug-judge-9"), "is no record of a sisug-judge-1"),
        (
            lambda path: path.with_suffix(".json").write_text('{"format": "sisug-judge-1"}'),
            "has no name, .*, label_set, sha256",
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:-10]), "checksum"),
        (flip_a_byte, "checksum"),
        (other_label_set, "do not fit together"),
        (other_weights, "do not fit together"),
        (lambda path: change_record(path, architecture={**SMALL, "detail_channels": 5}), "do not fit together"),
        (lambda path: change_record(path, architecture={**SMALL, "depth": 5}), "do not fit together"),
    ],
)
def test_unusable_files_are_named_with_a_remedy(damage: Callable[[Path], None], cause: str, saved: Path) -> None:
    damage(saved)
    with pytest.raises(CheckpointError, match=f"{cause}.*sisug judge export.*avatars"):
        load_judge(saved)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match="comes with the project: avatars"):
        load_judge("portraits")


# The judge that ships


def test_shipped_files_are_small_and_tell_their_story(shipped: Judge) -> None:
    path = JUDGES["avatars"]
    assert path.stat().st_size <= 3e6
    record = json.loads(path.with_suffix(".json").read_text())
    assert shipped.labels == AVATARS
    assert shipped.name == path.stem == record["name"]
    assert record["measured"]["miou"] >= 0.88
    assert "2000" in record["measured"]["protocol"]
    assert record["training"]["images_seen"] > 0


def test_shipped_judge_reads_held_out_avatars(shipped: Judge, avatars: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, masks = avatars
    found = shipped.segment(images)
    iou = jaccard_score(masks.flatten(), found.flatten(), average=None, labels=range(11))
    assert iou.mean() >= 0.88  # 48 images say less than the 2,000 of the record
    assert iou.min() >= 0.7
    again = measure(shipped, AvatarsDataset("test", 48, 64), batch_size=20)
    assert np.allclose(again.iou, iou, atol=1e-5)


def test_shipped_judge_reads_other_sizes_and_blurred_images(
    shipped: Judge, avatars: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, masks = avatars[0][:16], avatars[1][:16]
    large = AvatarsDataset("test", 16, 128)
    at_128 = shipped.segment(torch.stack([large[index]["image"] for index in range(16)]))
    true_128 = torch.stack([large[index]["mask"] for index in range(16)])
    assert float((at_128 == true_128).float().mean()) > 0.95
    blurred = torch.nn.functional.avg_pool2d(images, 3, 1, 1)
    assert float((shipped.segment(blurred) == masks).float().mean()) > 0.94


def frechet(first: torch.Tensor, second: torch.Tensor) -> float:
    """Closed form between two Gaussians, with the matrix root from eigenvalues."""
    means = (first.mean(0) - second.mean(0)).double()
    covariances = [torch.cov(rows.double().T) for rows in (first, second)]
    values, vectors = torch.linalg.eigh(covariances[0])  # torch, not numpy, whose threads get in each other's way
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    roots = torch.linalg.eigvalsh(root @ covariances[1] @ root).clamp_min(0).sqrt()
    return float(means.square().sum() + covariances[0].trace() + covariances[1].trace() - 2 * roots.sum())


def test_features_tell_quality_and_content(shipped: Judge) -> None:
    datasets = (AvatarsDataset("test", 100, 64), AvatarsDataset("val", 100, 64))
    samples = [[dataset[index] for index in range(100)] for dataset in datasets]
    real, plain = (torch.stack([s["image"] for s in part]) for part in samples)
    hat = torch.stack([(s["mask"] == AVATARS.number("hat")).any() for s in samples[1]])

    def distance(images: torch.Tensor) -> float:
        with torch.no_grad():
            return frechet(shipped.features(real), shipped.features(images))

    blurred = [gaussian_blur(plain, [7, 7], [sigma, sigma]) for sigma in (0.6, 1.2)]
    noise = torch.randn(plain.shape, generator=torch.Generator().manual_seed(0))
    noisy = [(plain + level * noise).clamp(-1, 1) for level in (0.1, 0.2)]
    base = distance(plain)
    assert base < distance(blurred[0]) < distance(blurred[1])
    assert base < distance(noisy[0]) < distance(noisy[1])
    assert distance(blurred[1]) > 4 * base
    assert distance(plain[~hat]) > 1.1 * base
