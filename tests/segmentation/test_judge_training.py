"""Training the judge: loss against a closed form, degradations, a run that learns, and the export of its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from sisug.data.avatars.datamodule import AvatarsDataModule
from sisug.errors import CheckpointError, ConfigError, DataError
from sisug.labels.label_sets import AVATARS, LabelSet
from sisug.segmentation.commands import export
from sisug.segmentation.degradation import degrade
from sisug.segmentation.loading import load_judge
from sisug.segmentation.losses import SegmentationLoss
from sisug.segmentation.module import JudgeModule
from sisug.segmentation.network import JudgeNetwork


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_loss_is_cross_entropy_plus_dice() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=stream())
    masks = torch.randint(0, 3, (2, 4, 5), generator=stream())
    masks[0, 0, 0] = 255
    weight = (masks != 255).float()
    probability = logits.softmax(dim=1)
    target = torch.stack([(masks == label).float() for label in range(3)], dim=1)
    cross_entropy = -(probability.log() * target).sum() / weight.sum()
    overlap = 2 * (probability * target).sum((0, 2, 3))
    size = ((probability + target) * weight[:, None]).sum((0, 2, 3))
    expected = cross_entropy + 0.7 * (1 - overlap / size).mean()
    assert torch.isclose(SegmentationLoss(0.7)(logits, masks), expected, rtol=1e-5)


def test_degradation_touches_the_chosen_share_only() -> None:
    images = torch.rand(64, 3, 16, 16, generator=stream()) * 2 - 1
    assert torch.equal(degrade(images, 0.0, stream()), images)
    some = degrade(images, 0.5, stream())
    untouched = (some == images).flatten(1).all(dim=1)
    assert 16 < int(untouched.sum()) < 48
    everything = degrade(images, 1.0, stream())
    assert not (everything == images).flatten(1).all(dim=1).any()
    assert float(everything.abs().max()) <= 1
    assert torch.equal(everything, degrade(images, 1.0, stream()))
    assert not torch.equal(everything, degrade(images, 1.0, stream(1)))


def test_network_keeps_the_size_and_sees_single_pixels() -> None:
    torch.manual_seed(0)
    network = JudgeNetwork(5, decoder_channels=(8, 8, 8), detail_channels=8).eval()
    images = torch.zeros(1, 3, 32, 48)
    assert network(images).shape == (1, 5, 32, 48)
    changed = images.clone()
    changed[0, :, 9, 9] = 1
    with torch.no_grad():
        difference = (network(changed) - network(images)).abs().sum(dim=1)[0]
    assert float(difference[9, 9]) > 3 * float(difference.mean())
    assert [stage.shape[-1] for stage in network.stages(images)] == [24, 12, 6]
    assert tuple(stage.shape[1] for stage in network.stages(images)) == network.stage_channels


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> AvatarsDataModule:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SISUG_CACHE", str(tmp_path_factory.mktemp("cache")))
        module = AvatarsDataModule(32, train_length=16, val_length=8, test_length=8, batch_size=8, flip=False)
        module.prepare_data()
        module.setup("fit")
        module.setup("test")
    return module


def quick_trainer(folder: Path, epochs: int) -> Trainer:
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers
def test_learns_and_exports_what_it_learnt(
    data: AvatarsDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path))
    torch.manual_seed(0)
    module = JudgeModule(decoder_channels=(16, 16, 16), detail_channels=8, degraded=0.0, learning_rate=1e-2)
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        before = float(module.loss(module.network(batch["image"]), batch["mask"]))
    trainer = quick_trainer(tmp_path, 12)
    trainer.fit(module, data)
    module.eval()
    with torch.no_grad():
        after = float(module.loss(module.network(batch["image"]), batch["mask"]))
    assert after < 0.6 * before
    assert int(module.images_seen) == 12 * 16
    assert 0 < float(trainer.callback_metrics["val/miou"]) < 1

    checkpoint = tmp_path / "last.ckpt"
    trainer.save_checkpoint(checkpoint)
    content = torch.load(checkpoint, weights_only=True)
    assert LabelSet.from_dict(content["label_set"]) == AVATARS
    line = export(checkpoint, tmp_path / "out" / "judge.safetensors", name="trial", test_length=8)
    judge = load_judge(tmp_path / "out" / "judge.safetensors")
    record = json.loads((tmp_path / "out" / "judge.json").read_text())
    assert judge.name == "trial" in line
    assert judge.resolution == 32
    assert record["training"]["images_seen"] == 192
    assert set(record["measured"]["iou"]) == set(AVATARS.classes)
    metrics = trainer.test(module, data, verbose=False)[0]
    assert record["measured"]["miou"] == pytest.approx(metrics["test/miou"], abs=0.01)  # float16 moves a few pixels


@pytest.mark.filterwarnings("ignore")
def test_one_seed_gives_one_judge(data: AvatarsDataModule, tmp_path: Path) -> None:
    weights = []
    for disturbance in (1, 2):
        torch.manual_seed(0)
        module = JudgeModule(decoder_channels=(8, 8, 8), detail_channels=4)
        torch.manual_seed(disturbance)  # order and degradations come from their own streams
        quick_trainer(tmp_path, 1).fit(module, data)
        weights.append(torch.cat([parameter.flatten() for parameter in module.network.parameters()]))
    assert torch.equal(weights[0], weights[1])


def test_unknown_label_sets_are_refused() -> None:
    with pytest.raises(DataError, match="avatars"):
        JudgeModule(labels="moon")


def test_export_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    out = tmp_path / "judge.safetensors"
    with pytest.raises(CheckpointError, match="no such file"):
        export(tmp_path / "missing.ckpt", out)
    with pytest.raises(ConfigError, match="suffix"):
        export(tmp_path / "missing.ckpt", tmp_path / "judge.pt")
    (tmp_path / "noise.ckpt").write_bytes(b"noise")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    for name, message in (("noise.ckpt", "no file that torch wrote"), ("other.ckpt", "not of a JudgeModule")):
        with pytest.raises(CheckpointError, match=message):
            export(tmp_path / name, out)
    assert not out.exists()
