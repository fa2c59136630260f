"""The shipped experiments that train generators, run for a few batches, and what follows them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from integration.runs import half_written
from PIL import Image

from sisug.generators import load_generator

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*Precision bf16-mixed is not supported by")]

Command = Callable[..., int]


def layers(repository: Path, name: str) -> list[str]:
    files = ("base.yaml", f"train-generator/{name}.yaml", "overlays/smoke.yaml")
    return [part for file in files for part in ("--config", str(repository / "experiments" / file))]


def test_avatars(sisug: Command, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path / "cache"))
    small = [
        f"--data.init_args.{split}_length={length}" for split, length in (("train", 64), ("val", 16), ("test", 16))
    ]
    assert sisug("fit", *layers(repository, "avatars"), *small) == 0
    run = tmp_path / "runs/generator-avatars/version_0"
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert sisug("generator", "convert", run / "checkpoints/best.ckpt", "mine.safetensors", "--precision", "fp16") == 0
    sidecar = json.loads((tmp_path / "mine.json").read_text())
    assert sidecar["measured"]["val/frechet_avatars-judge-unet-v1"]["generated"] == 2000
    assert sidecar["data"] | {"style": ""} == {
        "drawn": "avatars",
        "images": 64,
        "style": "",
        "resolution": 64,
        "flip": True,
    }
    assert load_generator(tmp_path / "mine.safetensors").resolution == 64
    assert half_written(tmp_path / "runs") == []


def test_a_folder_then_stage_1_on_the_generator_of_it(
    sisug: Command, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    draw = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(draw.integers(0, 256, (80, 70, 3), np.uint8)).save(tmp_path / f"photos/{i}.png")
    assert sisug("fit", *layers(repository, "images"), "--data.init_args.folder", "photos") == 0
    best = tmp_path / "runs/generator-images/version_0/checkpoints/best.ckpt"
    assert sisug("generator", "convert", best, "mine.safetensors") == 0
    sidecar = json.loads((tmp_path / "mine.json").read_text())
    assert sidecar["data"]["folder"] == "photos"
    assert sidecar["data"]["images"] == 20

    files = ("base.yaml", "rearranger/file.yaml", "overlays/smoke.yaml")
    stage1 = [part for file in files for part in ("--config", str(repository / "experiments" / file))]
    assert sisug("fit", *stage1, "--model.init_args.generator", "mine.safetensors") == 0
    assert (tmp_path / "runs/rearranger-file/version_0/checkpoints/last.ckpt").exists()
