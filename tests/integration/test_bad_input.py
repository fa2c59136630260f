"""Input that cannot work, and runs that are interrupted: a message, an exit code, and nothing half-written."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from integration.runs import Layers, Process, half_written, load

Command = Callable[..., int]
Start = Callable[..., Process]


@pytest.fixture
def generators(tmp_path: Path, tiny_generator_file: Path) -> Path:
    """A folder of files that are no generators."""
    folder = tmp_path / "generators"
    folder.mkdir()
    whole = tiny_generator_file.read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.safetensors").touch()
    (folder / "text.safetensors").write_text("a generator")
    (folder / "folder.safetensors").mkdir()
    return folder


WHILE_BUILDING = [
    (("--model.generator", "none.safetensors"), "'none.safetensors' was not found", "name a preset"),
    (("--model.generator", "generators/cut.safetensors"), "cut.safetensors", "copy it again"),
    (("--model.generator", "generators/empty.safetensors"), "is empty", "copy it again"),
    (("--model.generator", "generators/text.safetensors"), "text.safetensors", "copy it again"),
    (("--model.generator", "generators/folder.safetensors"), "cannot be opened", "check the path"),
    (("--model.split", "5"), "split 5", "choose one of them"),
    (("--model.clusters", "1"), "1 clusters", "set clusters within that range"),
    (("--model.own_share", "1.5"), "own_share 1.5", "choose shares"),
    (("--data.batch_size", "1"), "batch_size 1", "raise the smaller numbers"),
    (("--data.images_per_epoch", "2"), "images_per_epoch 2", "raise the smaller numbers"),
]
BEFORE_BUILDING = [
    (("--run.root", "tiny.yaml"), "cannot be made", "--run.root"),
    (("--ckpt_path", "none.ckpt"), "none.ckpt does not exist", "give the path"),
]


@pytest.mark.parametrize(("arguments", "state", "remedy"), WHILE_BUILDING + BEFORE_BUILDING)
@pytest.mark.usefixtures("generators")
def test_refused_before_anything_is_written(
    sisug: Command,
    tiny: Layers,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    state: str,
    remedy: str,
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert sisug("fit", *tiny, *arguments) == 2
    error = capsys.readouterr().err
    assert state in error
    assert "Cause: " in error
    assert remedy in error.partition("Remedy: ")[2]
    assert "Traceback" not in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that root cannot write either")
def test_a_run_folder_that_cannot_be_written(sisug: Command, tiny: Layers, capsys: pytest.CaptureFixture[str]) -> None:
    assert sisug("fit", *tiny, "--run.root", "/proc/runs") == 2
    error = capsys.readouterr().err
    assert "/proc/runs/tiny/version_0 cannot be written" in error
    assert "Remedy: change its permissions" in error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_folder_without_permission(
    sisug: Command, tiny: Layers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir(mode=0o500)
    assert sisug("fit", *tiny) == 2
    assert "Remedy: change its permissions" in capsys.readouterr().err


def test_more_clusters_than_rows(
    sisug: Command, tiny: Layers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layer = tmp_path / "tiny.yaml"
    layer.write_text(layer.read_text().replace("rows_per_image: 32", "rows_per_image: 4"))
    assert sisug("fit", *tiny, "--model.clusters", 40) == 2
    error = capsys.readouterr().err
    assert "32 rows for 40 clusters. Cause: every cluster needs a row of its own. Remedy: collect at least 40" in error
    assert "Traceback" not in error
    assert half_written(tmp_path / "runs") == []
    assert not list((tmp_path / "runs").rglob("*.ckpt"))


def test_training_without_clustering(
    sisug: Command, tiny: Layers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layer = tmp_path / "tiny.yaml"
    layer.write_text(layer.read_text().partition("  callbacks+:")[0])
    assert sisug("fit", *tiny) == 2
    assert "train with the OnlineClustering callback" in capsys.readouterr().err


@pytest.fixture
def trained(sisug: Command, tiny: Layers, tmp_path: Path) -> Path:
    assert sisug("fit", *tiny, "--trainer.max_epochs", 1, "--run.name", "trained") == 0
    return tmp_path / "runs/trained/version_0/checkpoints/last.ckpt"


def test_checkpoints_that_do_not_fit(
    sisug: Command, tiny: Layers, tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from sisug.generators import Generator
    from sisug.generators.native import write_native

    with torch.random.fork_rng():
        torch.manual_seed(1)
        write_native(tmp_path / "other.safetensors", Generator(6, 7, {4: 8, 8: 8, 16: 6}, mapping_layers=2))
    content = load(trained)
    content.pop("generator")
    torch.save(content, tmp_path / "nameless.ckpt")
    (tmp_path / "cut.ckpt").write_bytes(trained.read_bytes()[:-2000])
    cases: list[tuple[tuple[Any, ...], str, str]] = [
        (("--ckpt_path", trained, "--model.clusters", 7), "shape (4,", "config.yaml beside it"),
        (("--ckpt_path", trained, "--model.generator", "other.safetensors"), "tiny.safetensors", "give that generator"),
        (("--ckpt_path", "nameless.ckpt"), "holds no rearranger", "that `sisug fit` wrote"),
        (("--ckpt_path", "cut.ckpt"), "cut short", "another checkpoint"),
        (("--ckpt_path", "tiny.yaml"), "no file that torch wrote", "another checkpoint"),
    ]
    for arguments, state, remedy in cases:
        assert sisug("fit", *tiny, *arguments) == 2, arguments
        error = capsys.readouterr().err
        assert state in error, arguments
        assert remedy in error.partition("Remedy: ")[2], arguments
        assert "Traceback" not in error
    assert not list((tmp_path / "runs/tiny").rglob("*.ckpt"))
    assert half_written(tmp_path / "runs") == []


def test_validation_and_test_need_a_trained_codebook(
    sisug: Command, tiny: Layers, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("validate", "test"):
        assert sisug(command, *tiny) == 2
        error = capsys.readouterr().err
        assert "the codebook has no centroids" in error
        assert "--ckpt_path" in error


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_says_how_to_go_on(start: Start, tiny: Layers, tmp_path: Path, name: str) -> None:
    interrupt = "--trainer.callbacks+=integration.run_callbacks.SignalAt"
    run = start("fit", *tiny, interrupt, "--trainer.callbacks.images=20", f"--trainer.callbacks.name={name}")
    code = run.wait()
    output = run.output()
    assert code in (130, 143, -signal.SIGTERM), output
    assert "--ckpt_path last" in output
    assert "Traceback" not in output
    assert half_written(tmp_path / "runs") == []
    assert int(load(tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt")["state_dict"]["images_seen"]) == 16


@pytest.mark.slow
def test_an_interrupt_from_outside(start: Start, tiny: Layers, tmp_path: Path) -> None:
    run = start("fit", *tiny, "--trainer.max_epochs", 100_000)
    last = tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt"
    for _ in range(1200):
        if last.exists() or run.process.poll() is not None:
            break
        signal.sigtimedwait([], 0.1)
    run.process.send_signal(signal.SIGINT)
    assert run.wait(60) == 130, run.output()
    assert "Interrupted" in run.output()
    assert half_written(tmp_path / "runs") == []
