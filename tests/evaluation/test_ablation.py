"""Protocol ablation: its cells, trainings that go on exactly, scores against the tests of stage 1, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation.pieces import measure, part, write_judge
from rearranger.small import quiet_trainer
from torch import Tensor

from sisug.data.latents import LatentDataModule
from sisug.errors import CodebookError, ConfigError, DataError
from sisug.evaluation.ablation import FIGURES, Ablation
from sisug.evaluation.ablation_training import Training
from sisug.evaluation.commands import identity_of, make_protocol
from sisug.metrics import Interval
from sisug.rearranger import RearrangerModule
from sisug.rearranger.quality import RearrangementQuality

BASE: dict[str, Any] = {
    "split": 8, "clusters": 4, "normalisation": "instance", "width": 8, "key_channels": 8, "bands": 2, "refinement": 1,
}  # fmt: skip

CLUSTERING = {"sample_images": 8, "rows_per_image": 32, "iterations": 4, "restarts": 1, "refresh_every": 6}

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_judge(tmp_path_factory.mktemp("judge")))


def small(generator: Path, judge: str, **settings: Any) -> Ablation:
    few = {"images": 8, "checkpoint_every": 4, "train_batch": 4, "pairs": 6, "seeds": (0,)}
    shared = {"generator": str(generator), "judge": judge, "base": BASE, "clustering": CLUSTERING}
    return Ablation(**(few | shared | settings))


def training(generator: Path, **settings: Any) -> Training:
    few: dict[str, Any] = {"images": 8, "checkpoint_every": 4, "batch_size": 4, "precision": "32-true", "seed": 1}
    return Training({"generator": str(generator), **BASE}, clustering=CLUSTERING, **(few | settings))


def test_one_setting_is_changed_at_a_time_or_all_are_crossed(tiny_generator_file: Path, judge: str) -> None:
    grid = {"style_weight": [0.0, 2.0], "clusters": [4, 6]}  # 2.0 is the default, 4 that of the base
    cells = small(tiny_generator_file, judge, grid=grid).cells
    assert list(cells) == ["as it is", "style_weight = 0.0", "clusters = 6"]
    assert cells["clusters = 6"] == BASE | {"clusters": 6}
    crossed = small(tiny_generator_file, judge, grid=grid, crossed=True).cells
    assert list(crossed) == [
        "as it is",
        "style_weight = 0.0, clusters = 4",
        "style_weight = 0.0, clusters = 6",
        "style_weight = 2.0, clusters = 6",
    ]


def test_scores_are_those_of_a_test_of_stage_1(tiny_generator_file: Path, judge: str, tmp_path: Path) -> None:
    """With Lightning's own Trainer, data and callback, and another size of batches."""
    protocol = small(tiny_generator_file, judge, base=BASE | {"style_weight": 0.0}, seeds=(0, 5))
    report = measure(protocol, tmp_path / "run")
    (row,) = report.tables[0].rows
    (folder,) = (tmp_path / "run" / "rearrangers").iterdir()
    module = RearrangerModule(str(tiny_generator_file), **BASE)
    module.load_state_dict(torch.load(folder / "last.ckpt", weights_only=True)["state_dict"])
    values = []
    for seed in (0, 5):
        trainer = quiet_trainer(tmp_path, RearrangementQuality(judge))
        data = LatentDataModule(4, test_pairs=6, batch_size=3, seed=seed)
        (expected,) = trainer.test(module, datamodule=data, verbose=False)
        values.append(part(tmp_path / "run", f"{folder.name}-seed{seed}"))
        measured = {f"test/{key}": value for key, value in values[-1].items()}
        assert measured == pytest.approx(expected, rel=1e-5, abs=1e-6)
    for figure, cell in zip(FIGURES, row[1:], strict=True):
        assert isinstance(cell, Interval)
        assert cell.mean == pytest.approx((values[0][figure] + values[1][figure]) / 2)
    # What is there is neither trained nor scored again.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.suffix != ".md"}
    again = measure(protocol, tmp_path / "run")
    assert again.tables == report.tables
    for path, time in before.items():
        assert path.name == "report.json" or path.is_dir() or path.stat().st_mtime_ns == time


def test_an_interrupted_training_goes_on_as_if_it_were_unbroken(
    tiny_generator_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = training(tiny_generator_file, images=12).run(tmp_path / "unbroken", CPU)
    step = RearrangerModule.training_step

    def interrupted(self: RearrangerModule, batch: dict[str, Tensor], batch_idx: int) -> None:
        if int(self.images_seen) == 8:
            raise RuntimeError("the power went")
        step(self, batch, batch_idx)

    monkeypatch.setattr(RearrangerModule, "training_step", interrupted)
    with pytest.raises(RuntimeError, match="power"):
        training(tiny_generator_file, images=12).run(tmp_path / "broken", CPU)
    monkeypatch.setattr(RearrangerModule, "training_step", step)
    broken = training(tiny_generator_file, images=12).run(tmp_path / "broken", CPU)
    one, other = (torch.load(file, weights_only=True)["state_dict"] for file in (unbroken, broken))
    assert int(one["images_seen"]) == 12
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_trainings_of_other_seeds_differ_and_the_interval_is_over_them(
    tiny_generator_file: Path, judge: str, tmp_path: Path
) -> None:
    report = measure(small(tiny_generator_file, judge, training_seeds=(0, 1), seeds=(0,)), tmp_path / "run")
    layout = report.tables[0].rows[0][1]
    assert isinstance(layout, Interval)
    assert layout.repeats == 2
    assert layout.high > layout.low
    assert any("2 trainings" in note for note in report.tables[0].notes)


def test_a_cell_that_diverges_is_told_and_ends_no_other(
    tiny_generator_file: Path, judge: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = Training.scores

    def scores_or_nan(self: Training, *arguments: Any) -> dict[str, float]:
        if self.settings.get("style_weight") == 0:
            raise DataError("generated images hold NaN", "a generator that diverged", "go back")
        return scores(self, *arguments)

    monkeypatch.setattr(Training, "scores", scores_or_nan)
    protocol = small(tiny_generator_file, judge, grid={"style_weight": [0.0]})
    report = measure(protocol, tmp_path / "run")
    assert isinstance(report.tables[0].rows[0][1], Interval)
    assert report.tables[0].rows[1][1:] == ("failed",) * len(FIGURES)
    assert "style_weight = 0.0 failed: generated images hold NaN" in report.tables[0].notes[-1]
    monkeypatch.setattr(Training, "scores", scores)  # the failure is not kept
    assert isinstance(measure(protocol, tmp_path / "run").tables[0].rows[1][1], Interval)


def test_what_cannot_be_trained_is_refused_before_anything_is(tiny_generator_file: Path, judge: str) -> None:
    with pytest.raises(ConfigError, match="grid with stile_weight"):
        small(tiny_generator_file, judge, grid={"stile_weight": [0.0]})
    with pytest.raises(ConfigError, match="clustering with seed"):
        small(tiny_generator_file, judge, clustering={"seed": 1})
    with pytest.raises(ConfigError, match="let each divide"):
        small(tiny_generator_file, judge, images=10)
    with pytest.raises(ConfigError, match="pairs 1"):
        small(tiny_generator_file, judge, pairs=1)
    with pytest.raises(ConfigError, match="no value"):
        make_protocol("ablation", {"grid": {"clusters": []}})
    with pytest.raises(ConfigError, match="split 9"):
        identity_of(small(tiny_generator_file, judge, grid={"split": [9]}))
    with pytest.raises(CodebookError, match="1 clusters"):
        identity_of(small(tiny_generator_file, judge, grid={"clusters": [1]}))
    with pytest.raises(ConfigError, match="style_weight"):
        identity_of(small(tiny_generator_file, judge, grid={"style_weight": ["strong"]}))
    with pytest.raises(ConfigError, match="sample_images 0"):
        identity_of(small(tiny_generator_file, judge, clustering={"sample_images": 0}))
