"""The sweep files of experiments/: accepted by W&B, their command lines as W&B's own agent builds them, and trained."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
import yaml
from PIL import Image

from sisug.errors import ConfigError
from sisug.sweeps.search import next_values, violations
from sisug.sweeps.sweep_file import read_sweep

REPOSITORY = Path(__file__).parents[2]
FILES = sorted((REPOSITORY / "experiments" / "sweeps").glob("*.yaml"))
RUN = [{"class_path": "sisug.training.run_folder.RunFolder"}]
JUDGE = {"class_path": "sisug.segmentation.loading.judge_features", "init_args": {"judge": "avatars"}}
FREE = {"class_path": "sisug.metrics.random_features.RandomFeatures"}


def quality(class_path: str, **init_args: Any) -> list[dict[str, Any]]:
    return [*RUN, {"class_path": class_path, "init_args": init_args}]


GENERATOR = {"model": {"init_args": {"channel_base": 64, "channel_max": 8, "z_dim": 8, "w_dim": 8}}}
SMALL: dict[str, dict[str, Any]] = {
    "rearranger": {
        "data": {"init_args": {"batch_size": 4, "images_per_epoch": 4, "val_pairs": 4}},
        "trainer": {
            "callbacks": [
                *quality(
                    "sisug.proxies.OnlineClustering",
                    sample_images=16,
                    restarts=1,
                    refresh_every=1000,
                    freeze_after=1000,
                ),
                *quality("sisug.rearranger.quality.RearrangementQuality", judge="avatars")[1:],
            ]
        },
    },
    "mapper": {
        "model": {"init_args": {"reader_images": 16, "segmenter_steps": 1, "looks": 1}},
        "data": {"init_args": {"batch_size": 4, "images_per_epoch": 4, "val_pairs": 4}},
        "trainer": {"callbacks": quality("sisug.mapper.DrawnConditionQuality", judge="avatars", val_masks=4)},
    },
    "generator": GENERATOR
    | {
        "data": {"init_args": {"train_length": 16, "val_length": 8, "test_length": 8, "batch_size": 4}},
        "trainer": {
            "callbacks": quality("sisug.generators.quality.GeneratorQuality", samples=8, extractor=JUDGE),
            "limit_train_batches": 1,
        },
    },
    "generator-images": GENERATOR
    | {
        "data": {"init_args": {"images_per_epoch": 4, "batch_size": 4}},
        "trainer": {"callbacks": quality("sisug.generators.quality.GeneratorQuality", samples=8, extractor=FREE)},
    },
}
"""Layers that make a run of seconds out of an experiment: few images, small networks, the callbacks that score."""


def by_agent(path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    """The command that W&B's own agent starts for a run with these values, caught at the start of the process."""
    from wandb import wandb_agent

    started: list[list[str]] = []

    class Caught:
        def __init__(self, command: list[str], **others: Any) -> None:
            started.append(command)

    monkeypatch.setattr(wandb_agent, "AgentProcess", Caught)
    monkeypatch.setenv("WANDB_DIR", str(folder))
    monkeypatch.setenv("WANDB_SWEEP_ID", "abcd1234")
    monkeypatch.setenv("WANDB_RUN_ID", "")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", "")
    config = yaml.safe_load(path.read_text())
    agent = wandb_agent.Agent.__new__(wandb_agent.Agent)  # its __init__ asks W&B's server
    agent._sweep_command = config["command"]
    agent._in_jupyter, agent._function, agent._forward_signals, agent._run_processes = False, None, False, {}
    arguments = {name: {"value": value} for name, value in values.items()}
    agent._command_run({"run_id": "1e5", "program": config["program"], "args": arguments})
    return started[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_wandb_accepts_the_file(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    assert violations(config) == []
    assert config["method"] == "bayes"
    assert config["early_terminate"]["type"] == "hyperband"
    assert {"name", "project", "program", "command", "metric", "parameters"} <= set(config)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_command_is_that_of_wandbs_agent(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sweep = read_sweep(path)
    values = next_values(sweep.config, [])
    assert values is not None
    theirs, ours = by_agent(path, values, monkeypatch, tmp_path), sweep.command(values)
    assert theirs[:2] == ["/usr/bin/env", "python"]
    assert ours[1] == sys.executable
    assert theirs[2:] == ours[2:]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # wandb's
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_agents_command_trains_and_logs_the_metric(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sisug: Callable[..., int]
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(8):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8)).save(
            pictures / f"{number}.png"
        )
    monkeypatch.setenv("DATA", str(pictures))
    config = yaml.safe_load(path.read_text())
    values = next_values(config, [])
    assert values is not None
    command = by_agent(path, values, monkeypatch, tmp_path)
    assert command[2:5] == ["-m", "sisug", "fit"]
    small = tmp_path / "small.yaml"
    small.write_text(yaml.safe_dump(SMALL[path.stem]))
    # The agent's own arguments stay last, but for those that a run of seconds cannot have.
    place = command.index("experiments/overlays/sweep.yaml") + 1
    ours = ["--config", str(small), f"--run.root={tmp_path}", "--run.name=try"]
    arguments = [*command[4:place], *ours, *command[place:], "--trainer.max_epochs=1"]
    arguments += ["--data.init_args.images_per_epoch=4"] * (path.stem == "mapper")
    arguments += ["--data.init_args.batch_size=4"] * path.stem.startswith("generator")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(REPOSITORY)
    try:
        assert sisug(*arguments, "--trainer.enable_model_summary=false") == 0
    finally:
        wandb.finish()
    with (tmp_path / "try" / "run-1e5" / "metrics.csv").open() as file:
        logged = [row.get(config["metric"]["name"]) for row in csv.DictReader(file)]
    assert [value for value in logged if value], "the metric of the sweep is not logged"


def broken(tmp_path: Path, **changes: Any) -> Path:
    config = yaml.safe_load(FILES[0].read_text()) | changes
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in config.items() if value is not None}))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "magic"}, "magic"),
        ({"program": None}, "program"),
        ({"metric": None}, "metric"),
        ({"parameters": {"a": {"min": 2.0, "max": 1.0}}}, "less than"),
        ({"parameters": {"a": {"parameters": {"b": {"value": 1}}}}}, "no command line"),
        ({"parameters": 3}, "names"),
    ],
)
def test_a_file_that_wandb_would_refuse_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_sweep(broken(tmp_path, **changes))


def test_an_unknown_macro_is_named(tmp_path: Path) -> None:
    sweep = read_sweep(broken(tmp_path, command=["${env}", "${args_json}"]))
    with pytest.raises(ConfigError, match="args_json"):
        sweep.command({})


def test_values_are_plain_numbers_and_come_again() -> None:
    config = yaml.safe_load(FILES[0].read_text())
    first, again, other = (next_values(config, [], seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert first is not None
    assert {type(value) for value in first.values()} <= {int, float, str}
