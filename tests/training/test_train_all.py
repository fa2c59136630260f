"""Training within a time: the limit ends a run in order, and every step's command line is one that sisug takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from toy_training import ToyData, ToyModule

from sisug.errors import ConfigError
from sisug.training import train_all as module
from sisug.training.time_limit import TimeLimit
from sisug.training.train_all import fit_options, steps_of, train_all

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_the_time_limit_ends_a_run_with_scores_and_can_be_given_again(tmp_path: Path) -> None:
    settings = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    toy = ToyModule()
    began = time.monotonic()
    for seconds in (0.3, 0.2):
        trainer = Trainer(
            max_epochs=-1, default_root_dir=tmp_path / str(seconds), callbacks=[TimeLimit(seconds)], **settings
        )
        trainer.fit(toy, ToyData(images=64))
        assert "val/loss" in trainer.callback_metrics
    assert 0.5 <= time.monotonic() - began < 20
    assert toy.images_seen > 0


def test_no_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="seconds"):
        TimeLimit(0)


@pytest.mark.parametrize("data", ["avatars", "faces"])
def test_every_step_is_a_command_line_that_sisug_takes(
    data: str, tmp_path: Path, sisug: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    steps = steps_of(data, module.CONDITIONS[data], tmp_path, EXPERIMENTS)
    assert [step.name for step in steps][-1].startswith(f"{data}-")
    for step in steps[:3]:  # the mappers differ by the condition alone
        options = fit_options(step, tmp_path / "runs" / step.name / "only", 60.0, tmp_path, EXPERIMENTS)
        assert sisug("fit", *options, "--print_config") == 0, capsys.readouterr().err
        printed = capsys.readouterr().out
        assert "TimeLimit" in printed
        assert step.monitor is None or step.monitor in printed


def test_steps_run_in_order_within_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(module, "_sisug", lambda *arguments: calls.append(arguments))
    text = train_all("avatars", minutes=30, out=tmp_path, conditions=["seg"], experiments=EXPERIMENTS)
    assert [call[:2] if call[0] != "fit" else call[:1] for call in calls] == [
        ("fit",),
        ("generator", "convert"),
        ("fit",),
        ("rearranger", "export"),
        ("fit",),
        ("mapper", "export"),
    ]
    assert str(tmp_path / "avatars-64.safetensors") in calls[2]  # stage 1 on the generator that came out
    assert len(text.splitlines()) == 3


def test_what_has_no_time_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_sisug", lambda *arguments: None)
    text = train_all("faces", minutes=0.01, out=tmp_path, experiments=EXPERIMENTS)
    assert text.splitlines() == ["faces-rearranger: not trained, no time left", "faces-seg: not trained, no time left"]


def test_unknown_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cats"):
        train_all("cats", out=tmp_path)
