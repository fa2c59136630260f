"""A rearranger's run from end to end: fit, validate, test, and the files that each leaves."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from integration.runs import Layers, half_written, load
from PIL import Image

from sisug.errors import SisugError
from sisug.segmentation.loading import load_judge

Command = Callable[..., int]

TRAIN = {"reconstruction", "image", "perceptual", "mask", "style", "adversarial", "discriminator", "r1"}
CODEBOOK = {"inertia", "empty", "smallest", "largest", "drift", "relabelled", "seconds"}
SCORES = {"proxy_miou", "proxy_accuracy", "self_psnr"}
JUDGED = {"layout_miou", "layout_miou_source", "look", "look_unrelated", "frechet_judge", "frechet_judge_plain"}


def columns(run: Path) -> dict[str, list[float]]:
    """Values of metrics.csv by name."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}


def named(stage: str, names: set[str]) -> set[str]:
    return {f"{stage}/{name}" for name in names}


def test_fit_then_validate_then_test(sisug: Command, tiny: Layers, tmp_path: Path) -> None:
    assert sisug("fit", *tiny) == 0
    trained = tmp_path / "runs/tiny/version_0"
    logged = columns(trained)
    assert named("train", TRAIN) | named("codebook", CODEBOOK) | named("val", SCORES) <= logged.keys()
    assert len(logged["train/reconstruction"]) == 8
    assert len(set(logged["codebook/inertia"])) == 3
    assert len(logged["val/proxy_miou"]) == 4
    with Image.open(trained / "grids/val-rearranged-000000.png") as grid:
        assert grid.width > 3 * 16  # three pairs
        assert grid.height > 5 * 16  # five rows
    checkpoint = trained / "checkpoints/last.ckpt"
    before = checkpoint.read_bytes()

    assert sisug("validate", *tiny, "--ckpt_path", checkpoint) == 0
    again = columns(tmp_path / "runs/tiny/version_1")
    assert again.keys() >= named("val", SCORES)
    for name in named("val", SCORES):
        assert again[name] == pytest.approx(logged[name][-1:], rel=1e-5)

    assert sisug("test", *tiny, "--ckpt_path", checkpoint) == 0
    tested = tmp_path / "runs/tiny/version_2"
    assert columns(tested).keys() >= named("test", SCORES)
    assert list((tested / "grids").iterdir()) == [tested / "grids/test-rearranged-000000.png"]
    assert checkpoint.read_bytes() == before
    assert half_written(tmp_path / "runs") == []


def test_a_checkpoint_brings_its_own_settings_to_a_test(sisug: Command, tiny: Layers, tmp_path: Path) -> None:
    assert sisug("fit", *tiny, "--trainer.max_epochs", 1) == 0
    checkpoint = tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt"
    assert load(checkpoint)["hyper_parameters"]["clusters"] == 4
    assert sisug("test", *tiny, "--model.clusters", 9, "--model.width", 16, "--ckpt_path", checkpoint) == 0
    assert columns(tmp_path / "runs/tiny/version_1")["test/proxy_miou"]


def test_the_judge_scores_a_run(sisug: Command, tiny: Layers, tmp_path: Path) -> None:
    try:
        load_judge("avatars")
    except SisugError as missing:
        pytest.skip(str(missing))
    judge = "--trainer.callbacks+=sisug.rearranger.quality.RearrangementQuality"
    assert sisug("fit", *tiny, judge, "--trainer.max_epochs", 1) == 0
    run = tmp_path / "runs/tiny/version_0"
    assert columns(run).keys() >= named("val", SCORES | JUDGED)
    assert sisug("test", *tiny, judge, "--ckpt_path", run / "checkpoints/last.ckpt") == 0
    tested = tmp_path / "runs/tiny/version_1"
    logged = columns(tested)
    assert logged.keys() >= named("test", SCORES | JUDGED)
    assert {path.name for path in (tested / "evaluation").iterdir()} == {f"{name}.json" for name in JUDGED}
    for name in JUDGED:
        record = json.loads((tested / "evaluation" / f"{name}.json").read_text())
        assert float(record["value"]) == pytest.approx(logged[f"test/{name}"][0], rel=1e-5)
        assert record["samples"]["pairs"] == 10
