"""Resume: a run that was stopped, or killed, and continued ends with the tensors of an unbroken one, to the bit."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from integration.runs import Layers, Process, differences, half_written, load

Command = Callable[..., int]
Start = Callable[..., Process]


STATE = ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step", "generator", "loops")
"""All of a checkpoint but the callbacks' notes (paths, times) and the settings, which differ by the run's length."""


def assert_equal_end(unbroken: Path, resumed: Path) -> None:
    a, b = ({key: load(path).get(key) for key in STATE} for path in (unbroken, resumed))
    assert {"codebook.centroids", "codebook.fitted_at", "images_seen", "average.images"} <= a["state_dict"].keys()
    assert len(a["optimizer_states"]) == 2
    assert all(state["state"] for state in a["optimizer_states"])
    assert differences(a, b) == []


def fitted_at(path: Path) -> int:
    return int(load(path)["state_dict"]["codebook.fitted_at"])


@pytest.mark.parametrize(
    ("precision", "normalisation"),
    [("32-true", "look-free"), pytest.param("bf16-mixed", "instance", marks=pytest.mark.slow)],
)
def test_resumed_equals_unbroken(
    sisug: Command, tiny: Layers, tmp_path: Path, precision: str, normalisation: str
) -> None:
    common = ("fit", *tiny, "--trainer.precision", precision, "--model.normalisation", normalisation)
    assert sisug(*common, "--run.name", "unbroken") == 0
    unbroken = tmp_path / "runs/unbroken/version_0/checkpoints/last.ckpt"

    assert sisug(*common, "--trainer.max_epochs", 2) == 0
    middle = tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt"
    assert int(load(middle)["state_dict"]["images_seen"]) == 16
    assert fitted_at(middle) == 12  # refreshed before the break, in the middle of an epoch
    kept = Path(shutil.copy(middle, tmp_path / "middle.ckpt"))
    assert differences(load(middle)["state_dict"], load(unbroken)["state_dict"])  # the comparison can fail

    assert sisug(*common, "--ckpt_path", "last") == 0
    assert_equal_end(unbroken, middle)  # went on in its folder, over the same name
    assert fitted_at(middle) == 24  # and after it
    if precision == "32-true":
        assert sisug(*common, "--run.name", "by-file", "--ckpt_path", kept) == 0
        assert_equal_end(unbroken, tmp_path / "runs/by-file/version_0/checkpoints/last.ckpt")


@pytest.mark.slow
def test_killed_in_an_epoch_and_resumed_equals_unbroken(start: Start, tiny: Layers, tmp_path: Path) -> None:
    killer = ("--trainer.callbacks+=integration.run_callbacks.SignalAt", "--trainer.callbacks.images=20")
    assert start("fit", *tiny, "--run.name", "unbroken").wait() == 0
    assert start("fit", *tiny, *killer).wait() == -signal.SIGKILL
    last = tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt"
    assert int(load(last)["state_dict"]["images_seen"]) == 16  # 20 were seen: part of an epoch is lost
    assert half_written(tmp_path / "runs") == []

    assert start("fit", *tiny, "--ckpt_path", "last").wait() == 0
    assert_equal_end(tmp_path / "runs/unbroken/version_0/checkpoints/last.ckpt", last)


@pytest.mark.slow
def test_killed_while_saving_and_resumed_equals_unbroken(start: Start, tiny: Layers, tmp_path: Path) -> None:
    killer = "--trainer.callbacks+=integration.run_callbacks.KillWhileSaving"
    assert start("fit", *tiny, "--run.name", "unbroken").wait() == 0
    assert start("fit", *tiny, killer).wait() == -signal.SIGKILL
    last = tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt"
    assert int(load(last)["state_dict"]["images_seen"]) == 8  # the one before, whole

    assert start("fit", *tiny, "--ckpt_path", "last").wait() == 0
    assert_equal_end(tmp_path / "runs/unbroken/version_0/checkpoints/last.ckpt", last)
    assert half_written(tmp_path / "runs") == []
