"""Layout, look and realism of rearranged images: each figure against a direct computation, and its record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rearranger.small import quiet_trainer, small_module
from sklearn.metrics import jaccard_score

from sisug.data.latents import LatentDataModule
from sisug.errors import CheckpointError
from sisug.generators import load_generator
from sisug.labels.label_sets import AVATARS
from sisug.metrics import LookDifference
from sisug.rearranger import Rearrangement, RearrangerModule
from sisug.rearranger.quality import RearrangementQuality
from sisug.segmentation.judge import Judge
from sisug.segmentation.loading import load_judge, save_judge
from sisug.segmentation.network import JudgeNetwork
from sisug.types import Latents

SMALL: dict[str, Any] = {"encoder": "tu-resnet10t", "decoder_channels": (8, 8, 8), "detail_channels": 4}
FIGURES = ("layout_miou", "layout_miou_source", "look", "look_unrelated", "frechet_judge", "frechet_judge_plain")
PAIRS = 10


@pytest.fixture(scope="module")
def judge_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained judge that names all sorts of classes: its head is turned up."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = JudgeNetwork(AVATARS.num_classes, **SMALL)
        with torch.no_grad():
            for parameter in network.head.parameters():
                parameter *= 20
    path = tmp_path_factory.mktemp("judge") / "small.safetensors"
    save_judge(Judge(network, AVATARS, "small", 16), path, SMALL, {})
    return path


def with_codebook(module: RearrangerModule) -> RearrangerModule:
    generator = torch.Generator().manual_seed(0)
    centroids = torch.randn(module.codebook.centroids.shape, generator=generator)
    module.codebook.update(centroids, 1.0, torch.ones(len(centroids)), 0)
    return module


@pytest.fixture
def module(tiny_generator_file: Path) -> RearrangerModule:
    return with_codebook(small_module(tiny_generator_file))


class Keep(Callback):
    """Keeps what validation and test give."""

    def __init__(self) -> None:
        self.done: list[Rearrangement] = []

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        self.done.append(outputs)

    on_test_batch_end = on_validation_batch_end

    def images(self, name: str) -> torch.Tensor:
        return torch.cat([getattr(done, name) for done in self.done])


def data(batch_size: int = 4) -> LatentDataModule:
    return LatentDataModule(16, val_pairs=PAIRS, test_pairs=PAIRS, batch_size=batch_size, seed=3)


def scores(
    module: RearrangerModule, judge_file: Path, folder: Path, keep: Keep, batch_size: int = 4
) -> dict[str, float]:
    trainer = quiet_trainer(folder, RearrangementQuality(str(judge_file)), keep)
    (found,) = trainer.validate(module, datamodule=data(batch_size), verbose=False)
    return {name: found[f"val/{name}"] for name in FIGURES}


def frechet(a: torch.Tensor, b: torch.Tensor) -> float:
    """The formula; fewer samples than features, so the trace of the root comes from the samples' products."""
    x, y = (rows.double().numpy() for rows in (a, b))
    between = np.square(x.mean(axis=0) - y.mean(axis=0)).sum()
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    root = np.linalg.norm(x @ y.T, ord="nuc")
    return float(between + (np.square(x).sum() + np.square(y).sum() - 2 * root) / (len(x) - 1))


def test_figures_equal_a_direct_computation(module: RearrangerModule, judge_file: Path, tmp_path: Path) -> None:
    keep, judge = Keep(), load_judge(judge_file)
    found = scores(module, judge_file, tmp_path, keep)
    images = {name: keep.images(name) for name in ("source", "target", "result")}
    masks = {name: judge.segment(x) for name, x in images.items()}
    assert len(masks["target"].unique()) > 2  # the judge sees something
    for name, figure in (("result", "layout_miou"), ("source", "layout_miou_source")):
        # scikit-learn's macro mean is over the classes that are in either, as ours.
        expected = jaccard_score(masks["target"].flatten(), masks[name].flatten(), average="macro")
        assert found[figure] == pytest.approx(expected, rel=1e-5)
    for name, figure in (("result", "look"), ("target", "look_unrelated")):
        look = LookDifference(AVATARS.num_classes)
        look.update(images[name], images["source"], masks[name], masks["source"])
        assert found[figure] == pytest.approx(float(look.compute()), rel=1e-5)


def test_realism_is_measured_against_plain_samples_of_their_own(
    module: RearrangerModule, judge_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, judge, plain = Keep(), load_judge(judge_file), []
    forward = type(module.generator).forward
    monkeypatch.setattr(type(module.generator), "forward", lambda *a: plain.append(forward(*a)) or plain[-1])
    found = scores(module, judge_file, tmp_path, keep)
    drawn = torch.cat(plain)
    assert len(drawn) == PAIRS
    for name in ("source", "target"):
        nearest = torch.cdist(drawn.flatten(1), keep.images(name).flatten(1)).min()
        assert float(nearest) > 1e-3  # else the distance would rest on shared images
    rows = {name: judge.features(keep.images(name)) for name in ("result", "target")}
    for name, figure in (("result", "frechet_judge"), ("target", "frechet_judge_plain")):
        assert found[figure] == pytest.approx(frechet(judge.features(drawn.clamp(-1, 1)), rows[name]), rel=1e-3)


class Copying(RearrangerModule):
    """Gives back the target as the result: another layout and look, but a perfect rearrangement for the judge."""

    def rearrange(self, z: Latents, z_target: Latents) -> Rearrangement:
        done = super().rearrange(z, z_target)
        return Rearrangement(**(vars(done) | {"result": done.target}))


class Standing(RearrangerModule):
    """Gives back the source as the result."""

    def rearrange(self, z: Latents, z_target: Latents) -> Rearrangement:
        done = super().rearrange(z, z_target)
        return Rearrangement(**(vars(done) | {"result": done.source}))


def test_what_it_means_to_copy_the_target_or_to_stay(
    tiny_generator_file: Path, judge_file: Path, tmp_path: Path
) -> None:
    copied = scores(with_codebook(small_module(tiny_generator_file, Copying)), judge_file, tmp_path, Keep())
    assert copied["layout_miou"] == 1
    assert copied["look"] == copied["look_unrelated"] > 0
    assert copied["frechet_judge"] == copied["frechet_judge_plain"]
    stayed = scores(with_codebook(small_module(tiny_generator_file, Standing)), judge_file, tmp_path, Keep())
    assert stayed["layout_miou"] == stayed["layout_miou_source"] < 1
    assert stayed["look"] == 0
    assert stayed["look_unrelated"] == copied["look_unrelated"]


def test_figures_do_not_depend_on_the_batch_size(module: RearrangerModule, judge_file: Path, tmp_path: Path) -> None:
    few, many = (scores(module, judge_file, tmp_path, Keep(), size) for size in (3, PAIRS))
    assert few == pytest.approx(many, rel=1e-3)


def test_every_validation_starts_afresh(module: RearrangerModule, judge_file: Path, tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, RearrangementQuality(str(judge_file)))
    first, second = (trainer.validate(module, datamodule=data(), verbose=False)[0] for _ in range(2))
    assert first == second


def test_a_test_leaves_a_record_of_each_figure(
    module: RearrangerModule, judge_file: Path, tmp_path: Path, tiny_generator_file: Path
) -> None:
    trainer = quiet_trainer(tmp_path, RearrangementQuality(str(judge_file)))
    trainer.validate(module, datamodule=data(), verbose=False)  # its pairs are none of the test's
    assert not (tmp_path / "evaluation").exists()
    (found,) = trainer.test(module, datamodule=data(), verbose=False)
    judge = load_judge(judge_file)
    assert {path.stem for path in (tmp_path / "evaluation").iterdir()} == set(FIGURES)
    for name in FIGURES:
        record = json.loads((tmp_path / "evaluation" / f"{name}.json").read_text())
        assert record["metric"] == f"test/{name}"
        assert record["value"] == pytest.approx(found[f"test/{name}"], rel=1e-5)
        assert record["split"] == "test"
        assert record["samples"]["pairs"] == PAIRS
        assert record["seeds"] == {"latents": 3}
        assert "small" in (record["extractor"], record["segmenter"])
        assert record["fingerprints"]["generator"] == load_generator(tiny_generator_file).fingerprint
        assert record["fingerprints"]["judge"] == judge.fingerprint


def test_the_judge_is_no_part_of_what_is_trained_or_saved(
    module: RearrangerModule, judge_file: Path, tmp_path: Path
) -> None:
    names = set(module.state_dict())
    quality = RearrangementQuality(str(judge_file))
    before = quality.judge.fingerprint
    trainer = quiet_trainer(tmp_path, quality)
    trainer.fit(module, datamodule=data())
    assert set(module.state_dict()) == names
    assert load_judge(judge_file).fingerprint == before
    assert not any(parameter.requires_grad for parameter in quality.judge.parameters())
    assert quality.state_dict() == {}


def test_a_judge_that_is_not_there() -> None:
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        RearrangementQuality("none.safetensors")
