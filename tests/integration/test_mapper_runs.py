"""Stage 2 from end to end on the shipped experiments: labels, training, test, export and images of drawings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from integration.runs import half_written
from mapper.mappers import random_rearranger
from PIL import Image

from sisug.labels.label_sets import AVATARS
from sisug.rearranger.trained import write_rearranger

Command = Callable[..., int]
EXPERIMENTS = Path(__file__).parents[2] / "experiments"

SHORT = (
    "--model.init_args.reader_images=16",
    "--model.init_args.segmenter_steps=2",
    "--model.init_args.looks=1",
    "--data.init_args.val_pairs=4",
    "--data.init_args.test_pairs=4",
    "--trainer.precision=32-true",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
)
BAD_COUNTS = ("--trainer.callbacks.val_masks=2", "--trainer.callbacks.test_masks=2")


def layers(name: str) -> list[str]:
    files = ("base.yaml", f"mapper/{name}.yaml", "overlays/smoke.yaml")
    return [argument for file in files for argument in ("--config", str(EXPERIMENTS / file))]


@pytest.mark.filterwarnings("ignore")  # two images are too few for a covariance, as the log says
def test_avatars_from_one_label_to_images(
    sisug: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path / "cache"))
    assert sisug("fit", *layers("avatars"), *SHORT, *BAD_COUNTS) == 0, capsys.readouterr().err
    run = tmp_path / "runs/mapper-avatars/version_0"
    assert "val/drawn_miou" in (run / "metrics.csv").read_text()
    assert list((run / "grids").glob("val-synthesised-*.png"))
    checkpoint = run / "checkpoints/last.ckpt"
    assert sisug("test", "--config", run / "config.yaml", "--ckpt_path", checkpoint) == 0
    assert (tmp_path / "runs/mapper-avatars/version_1/evaluation/drawn_iou_hair.json").is_file()

    assert sisug("mapper", "export", checkpoint, tmp_path / "mine.safetensors") == 0
    assert "reads seg" in capsys.readouterr().out
    record = json.loads((tmp_path / "mine.json").read_text())
    assert record["images_seen"] == 64
    assert record["condition"]["label_set"]["name"] == "avatars"
    drawing = EXPERIMENTS.parent / "examples/masks/avatar-1.png"
    arguments = ("--input", drawing, "--seeds", "0,5", "--style-mix=3", "--batch-size=1", "--out", tmp_path / "out")
    assert sisug("generate", "--mapper", tmp_path / "mine.safetensors", *arguments) == 0, capsys.readouterr().err
    with Image.open(tmp_path / "out/avatar-1-seed5.png") as image:
        assert image.size == (64, 64)
    assert half_written(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_labels_of_your_own_on_any_generator(
    sisug: Command, tmp_path: Path, tiny_generator_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rearranger(random_rearranger(tiny_generator_file), tmp_path / "rearranger.safetensors")
    (tmp_path / "classes.json").write_text('{"sky": "#87ceeb", "house": [200, 80, 60]}')
    labels = ("--labels", tmp_path / "classes.json")
    exported = sisug("annotate", "export", tiny_generator_file, tmp_path / "labels", *labels, "--samples", 2)
    assert exported == 0, capsys.readouterr().err
    for number in range(2):
        half = np.zeros((16, 16), np.uint8)
        half[8:] = 1
        Image.fromarray(half).save(tmp_path / f"labels/masks/sample-{number:03d}.png")
    assert sisug("annotate", "check", tmp_path / "labels") == 0
    own = (
        f"--model.init_args.rearranger={tmp_path / 'rearranger.safetensors'}",
        f"--model.init_args.annotations={tmp_path / 'labels'}",
        f"--model.init_args.labels={tmp_path / 'classes.json'}",
    )
    assert sisug("fit", *layers("file"), *SHORT, *own) == 0, capsys.readouterr().err
    content = torch.load(tmp_path / "runs/mapper-file/version_0/checkpoints/last.ckpt", weights_only=True)
    assert content["condition"]["label_set"]["classes"] == ["sky", "house"]
    assert content["lesson"]["seen"] == {"sky": 2 * 8 * 16, "house": 2 * 8 * 16}


def test_a_rearranger_of_another_generator_is_refused(
    sisug: Command, tmp_path: Path, tiny_generator_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = f"--model.init_args.generator={tiny_generator_file}"
    assert sisug("fit", *layers("avatars"), *SHORT, other) == 2
    error = capsys.readouterr().err
    assert "has other weights" in error or "has features of" in error
    assert "Remedy" in error
    assert not list((tmp_path / "runs").rglob("*.ckpt"))


def test_shipped_files_load_and_belong_together() -> None:
    from sisug.mapper.trained import SHIPPED, load_mapper

    avatars = {"avatars-seg", "avatars-edges", "avatars-scribble", "avatars-sketch", "avatars-depth"}
    assert set(SHIPPED) == avatars | {"faces-seg", "faces-edges"}
    for name in avatars:
        path = SHIPPED[name]
        trained = load_mapper(name)
        assert trained.condition.name == name.removeprefix("avatars-")
        assert trained.rearranger.generator.source == "avatars"
        assert trained.lesson["shots"] == 1
        assert trained.condition.labels in (None, AVATARS)
        assert path.stat().st_size < 2_000_000
