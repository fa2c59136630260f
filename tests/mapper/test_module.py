"""MapperModule under Lightning's Trainer: who learns what, what stays frozen, and what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from mapper.mappers import module_of
from rearranger.small import quiet_trainer

from sisug.data.latents import LatentDataModule
from sisug.errors import CheckpointError, ConfigError, FingerprintMismatch
from sisug.generators import Generator
from sisug.generators.native import write_native
from sisug.labels.label_sets import AVATARS
from sisug.mapper import MapperModule, SynthesisGrid, load_mapper, write_mapper
from sisug.rearranger.trained import load_rearranger


def train(module: MapperModule, folder: Path, images: int = 8, **settings: Any) -> Trainer:
    trainer = quiet_trainer(folder, **settings)
    trainer.fit(module, datamodule=LatentDataModule(images, val_pairs=4, test_pairs=4, batch_size=4))
    return trainer


PAPER = {"rearranger_learning_rate": 0.0, "adversarial_weight": 0.0}
"""The rearranger stays as it is, as in the paper."""

PARTS = {"generator", "codebook", "rearranger", "mapper", "reader", "discriminator"}


def parts(module: MapperModule) -> dict[str, dict[str, torch.Tensor]]:
    names = [name for name, _ in module.named_children() if name in PARTS]
    return {
        name: {key: value.clone() for key, value in module.get_submodule(name).state_dict().items()} for name in names
    }


def changed(before: dict[str, dict[str, torch.Tensor]], module: MapperModule) -> set[str]:
    now = parts(module)
    return {name for name in before if any(not torch.equal(now[name][k], v) for k, v in before[name].items())}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"condition": "seg"}, {"mapper", "reader", "rearranger", "discriminator"}),
        ({"condition": "seg", **PAPER}, {"mapper", "reader"}),
        ({"condition": "depth", "shots": 0, "adversarial_weight": 0.0}, {"mapper", "reader", "rearranger"}),
        ({"condition": "edges", "labels": None, "reading_weight": 0.0, **PAPER}, {"mapper"}),
        (
            {"condition": "edges", "labels": None, "reading_weight": 0.0},
            {"mapper", "rearranger", "discriminator"},
        ),
        ({"condition": "sketch", "shots": 2, "rearranger_learning_rate": 0.0}, {"mapper", "reader", "discriminator"}),
    ],
)
def test_what_learns(rearranger_file: Path, tmp_path: Path, settings: dict[str, Any], expected: set[str]) -> None:
    module = module_of(rearranger_file, **settings)
    before = parts(module)
    trainer = train(module, tmp_path)
    assert changed(before, module) == expected
    assert int(module.images_seen) == 8
    logged = set(trainer.logged_metrics)
    assert {"val/proxy_miou", "val/proxy_accuracy"} <= logged
    assert module.reader is None or not any(p.requires_grad for p in module.reader.parameters())


def test_the_gradient_penalty_weighs_half_of_gamma_for_every_step_it_stands_for(
    rearranger_file: Path, tmp_path: Path
) -> None:
    settings = {"condition": "edges", "labels": None, "reading_weight": 0.0, "r1_gamma": 3.0, "r1_every": 4}
    module, losses = module_of(rearranger_file, **settings), []
    backward = module.manual_backward
    module.manual_backward = lambda loss: (losses.append(float(loss.detach())), backward(loss))  # type: ignore[method-assign]
    logged = train(module, tmp_path, images=4, limit_val_batches=0).logged_metrics
    assert float(logged["train/r1"]) > 0
    expected = logged["train/discriminator"] + 3 / 2 * 4 * logged["train/r1"]
    assert losses[1] == pytest.approx(float(expected), rel=1e-5)


def test_the_reading_term_alone_reaches_the_mapper(rearranger_file: Path, tmp_path: Path) -> None:
    """Through the reader, the generator and the rearranger, all of them frozen."""
    module = module_of(rearranger_file, proxy_weight=0.0, free_share=1.0, **PAPER)
    module.rearranger.refine_out.weight.data.add_(0.1)
    before = parts(module)
    train(module, tmp_path)
    assert "mapper" in changed(before, module)
    assert "rearranger" not in changed(before, module)


def test_a_resumed_run_equals_an_unbroken_one(rearranger_file: Path, tmp_path: Path) -> None:
    whole = module_of(rearranger_file)
    train(whole, tmp_path / "a", max_epochs=2)
    first = module_of(rearranger_file)
    trainer = train(first, tmp_path / "b", max_epochs=1)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    second = module_of(rearranger_file)
    trainer = quiet_trainer(tmp_path / "c", max_epochs=2)
    data = LatentDataModule(8, val_pairs=4, test_pairs=4, batch_size=4)
    trainer.fit(second, datamodule=data, ckpt_path=tmp_path / "half.ckpt")
    assert second.lesson == whole.lesson
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_a_checkpoint_explains_itself_and_loads_without_flags(rearranger_file: Path, tmp_path: Path) -> None:
    module = module_of(rearranger_file)
    trainer = train(module, tmp_path)
    trainer.save_checkpoint(tmp_path / "mapper.ckpt")
    content = torch.load(tmp_path / "mapper.ckpt", weights_only=True)
    assert not any(name.startswith("generator.") for name in content["state_dict"])
    trained = load_mapper(tmp_path / "mapper.ckpt")
    assert trained.condition.labels == AVATARS
    assert trained.lesson["shots"] == 1
    assert sum(trained.lesson["seen"].values()) == 16 * 16
    masks = torch.randint(0, 11, (3, 16, 16))
    encoded = trained.condition.from_mask(masks)
    expected = module.map_condition(encoded)
    assert torch.equal(trained.layouts(encoded), expected)
    ws = module.generator.map(torch.randn(3, 6), 0.9)
    source = trained.rearranger.pipeline.source(ws)
    rearranged = trained.rearranger.pipeline.rearrange(source, expected)
    torch.testing.assert_close(rearranged.map, module.rearranger(source.features, source.mask, expected, ws).map)

    write_mapper(trained, tmp_path / "small.safetensors", note="test")
    again = load_mapper(tmp_path / "small.safetensors")
    assert again.lesson == trained.lesson
    for name, value in trained.rearranger.codebook.state_dict().items():
        assert torch.equal(value, again.rearranger.codebook.state_dict()[name]), name
    half = (again.layouts(encoded).argmax(1) == expected.argmax(1)).float().mean()
    assert half > 0.98, "half precision changes hardly a cell"


def test_a_rearranger_checkpoint_of_stage_1_loads_with_averaged_weights(
    tiny_generator_file: Path, tmp_path: Path
) -> None:
    from rearranger.small import small_module
    from rearranger.small import train as train_rearranger

    stage1 = small_module(tiny_generator_file)
    trainer = train_rearranger(stage1, tmp_path)
    trainer.save_checkpoint(tmp_path / "rearranger.ckpt")
    trained = load_rearranger(tmp_path / "rearranger.ckpt")
    z = torch.randn(2, 6)
    source = trained.pipeline.source(trained.generator.map(z, trained.truncation))
    with stage1.average.average(stage1.rearranger):
        expected = stage1.rearranger(source.features, source.mask, source.mask.flip(0), source.ws)
    torch.testing.assert_close(trained.pipeline.rearrange(source, source.mask.flip(0)).map, expected.map)
    with pytest.raises(CheckpointError, match="checkpoint of another stage"):
        load_mapper(tmp_path / "rearranger.ckpt")


def test_another_generator_is_refused(rearranger_file: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = tmp_path / "other.safetensors"
    write_native(other, Generator(6, 7, {4: 8, 8: 8, 16: 6}, mapping_layers=2))
    with pytest.raises(FingerprintMismatch, match="has other weights"):
        module_of(rearranger_file, generator=str(other))


def test_a_moved_generator_is_asked_for(tiny_generator_file: Path, rearranger_file: Path, tmp_path: Path) -> None:
    from sisug.common.network_file import read_network_file, write_network_file

    tensors, record = read_network_file(rearranger_file, "sisug-rearranger-1", (), "it", "")
    record["generator"] |= {"source": str(tmp_path / "gone.safetensors")}
    moved = tmp_path / "moved.safetensors"
    record.pop("sha256")
    write_network_file(moved, "sisug-rearranger-1", tensors, record, exact=("codebook.",))
    with pytest.raises(CheckpointError, match="where is it now"):
        load_rearranger(moved)
    assert load_rearranger(moved, str(tiny_generator_file)).generator.resolution == 16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": None}, "without a label set|without labels"),
        ({"condition": "edges", "labels": None}, "without labels"),
        ({"condition": "crayon"}, "condition 'crayon'"),
        ({"free_share": 1.5}, "free_share 1.5"),
        ({"width": 12}, "multiple of 8"),
        ({"shots": -1}, "shots -1"),
    ],
)
def test_contradictions_are_refused_before_training(
    rearranger_file: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        module_of(rearranger_file, **settings)


def test_no_labels_at_all_is_refused_when_training_begins(rearranger_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no labels"):
        train(module_of(rearranger_file, judge=None), tmp_path)


def test_files_of_something_else_are_refused(rearranger_file: Path, tiny_generator_file: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no file"):
        load_rearranger(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="there is no such file"):
        load_rearranger(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match="is no record of a sisug-rearranger-1"):
        load_rearranger(tiny_generator_file)
    with pytest.raises(CheckpointError, match="is no record of a sisug-mapper-1"):
        load_mapper(rearranger_file)
    (tmp_path / "broken.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="no file that torch wrote"):
        load_mapper(tmp_path / "broken.ckpt")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(rearranger_file.read_bytes()[:-1] + b"?")
    damaged.with_suffix(".json").write_bytes(rearranger_file.with_suffix(".json").read_bytes())
    with pytest.raises(CheckpointError, match="checksum"):
        load_rearranger(damaged)


def test_grid_shows_conditions_masks_and_looks(
    rearranger_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sisug.training import grid_logging

    drawn: list[Any] = []
    monkeypatch.setattr(grid_logging, "log_grid", lambda trainer, name, grid: drawn.append((name, grid)))
    trainer = quiet_trainer(tmp_path, SynthesisGrid(3))
    trainer.fit(module_of(rearranger_file), datamodule=LatentDataModule(8, val_pairs=4, test_pairs=4, batch_size=4))
    ((name, grid),) = drawn
    assert name == "val/synthesised"
    assert grid.height == 7 * (16 + 2) + 2
    with pytest.raises(ConfigError, match="columns 0"):
        SynthesisGrid(0)
