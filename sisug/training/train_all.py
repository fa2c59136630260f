"""`sisug train-all` (all stages): all that ships for a data set, trained within a time on whatever device there is."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import yaml

from sisug.common.folders import check_writable
from sisug.errors import ConfigError, RunError, check_range

logger = logging.getLogger(__name__)

LEAST = 5.0
"""Seconds of training below which a step is not begun."""

SHIPS = {"avatars": "avatars-64"}
"""Names of generators that are trained here, by data set; that of faces comes from the package index."""

CONDITIONS = {"avatars": ["seg", "scribble", "edges", "sketch", "depth"], "faces": ["seg"]}


@dataclass(frozen=True)
class Step:
    """One training and the file that comes out of it.

    Args:
        name: of the run and of the file.
        share: of the time, relative to the other steps.
        fit: options of `sisug fit`, without those that all steps share.
        monitor: what the best checkpoint is best in; None where there is no score, and the last one is taken.
        mode: whether less or more is better.
        export: the subcommand that writes the file; the checkpoint and the file are appended.
    """

    name: str
    share: float
    fit: list[str]
    monitor: str | None
    mode: Literal["min", "max"]
    export: list[str]


def train_all(
    data: str = "avatars",
    minutes: float = 10.0,
    out: Path | None = None,
    conditions: list[str] | None = None,
    experiments: Path = Path("experiments"),
    options: list[str] | None = None,
) -> str:
    """Train generator (avatars), rearranger and mappers one after the other, and export the best checkpoint of each.

    The generator of avatars begins with the one that ships, and the rearranger is trained on what came out. A step that
    ends early leaves its time to the later ones; the same command goes on with each from its last checkpoint.

    Args:
        data: avatars or faces.
        minutes: for all, start-up and validation included, as far as they can be foreseen.
        out: folder of runs and files; runs/train-all-DATA if left out.
        conditions: of the mappers; all that ship if left out.
        experiments: folder with the layers.
        options: more options for every `sisug fit`.

    Returns:
        A line for each file.

    Raises:
        ConfigError: an unknown data set.
        RunError: a training failed.
    """
    if data not in CONDITIONS:
        raise ConfigError(f"data {data!r}", f"there are layers for {', '.join(CONDITIONS)}", "choose one of them")
    check_range(minutes=minutes, above=0)
    folder = out or Path("runs") / f"train-all-{data}"
    check_writable(folder, "folder", "choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * minutes
    # Before the first epoch: the interpreter, the codebook, the labels; after the last: validation and the export.
    overhead = 20.0 if torch.cuda.is_available() else 60.0
    steps = steps_of(data, CONDITIONS[data] if conditions is None else conditions, folder, experiments)
    lines: list[str] = []
    for number, step in enumerate(steps):
        left = ends - time.monotonic() - overhead * (len(steps) - number)
        seconds = left * step.share / sum(each.share for each in steps[number:])
        if seconds < LEAST:
            lines.append(f"{step.name}: not trained, no time left")
            continue
        run = folder / "runs" / step.name / "only"
        _sisug("fit", *fit_options(step, run, seconds, folder, experiments), *(options or []))
        checkpoint = _best(run)
        file = folder / f"{step.name}.safetensors"
        _sisug(*step.export, str(checkpoint), str(file))
        lines.append(f"{file}: {checkpoint.name} of {seconds:.0f} s")
    return "\n".join(lines)


def steps_of(data: str, conditions: list[str], folder: Path, experiments: Path) -> list[Step]:
    """The steps of a data set in their order; later ones read the files of earlier ones.

    Args:
        data: avatars or faces.
        conditions: of the mappers.
        folder: of the files.
        experiments: folder with the layers.
    """
    steps: list[Step] = []
    layers = ["--config", str(experiments / "rearranger" / f"{data}.yaml")]
    if data == "avatars":
        name = SHIPS[data]
        fit = ["--config", str(experiments / "train-generator" / f"{data}.yaml"), "--model.init_args.init", data]
        fit += ["--data.init_args.train_length", "10000"]  # drawn once, before the first step
        export = ["generator", "convert"]
        steps.append(Step(name, 4.0, fit, "val/frechet_avatars-judge-unet-v1", "min", export))
        layers += ["--config", str(experiments / "generator" / f"{data}.yaml")]
        layers += ["--model.init_args.generator", str(folder / f"{name}.safetensors")]
    score = "val/balance" if data == "avatars" else "val/proxy_miou"
    steps.append(Step(f"{data}-rearranger", 4.0, layers, score, "max", ["rearranger", "export"]))
    for condition in conditions:
        layer = experiments / "mapper" / f"{data}.yaml"
        fit = ["--config", str(layer if layer.is_file() else experiments / "mapper" / "file.yaml")]
        fit += ["--model.init_args.rearranger", str(folder / f"{data}-rearranger.safetensors")]
        fit += ["--model.init_args.condition", condition]
        if data == "faces":
            fit += ["--model.init_args.labels", "faces", "--model.init_args.annotations", "faces"]
        monitor = "val/balance" if data == "avatars" else None
        steps.append(Step(f"{data}-{condition}", 1.0, fit, monitor, "max", ["mapper", "export"]))
    return steps


def fit_options(step: Step, run: Path, seconds: float, folder: Path, experiments: Path) -> list[str]:
    """Options of a step's training, which ends by its time, and goes on where an earlier call ended.

    Args:
        step: what to train.
        run: folder of the run, ROOT/NAME/VERSION.
        seconds: of training.
        folder: for the layers that are written for this step.
        experiments: folder with the layers.
    """
    options = ["--config", str(experiments / "base.yaml"), *step.fit]
    if torch.cuda.is_available():
        options += ["--config", str(experiments / "overlays" / "gpu.yaml")]
    if step.monitor is not None and step.export[0] != "generator":  # whose own layer keeps the best
        best = {"filename": "best", "monitor": step.monitor, "mode": step.mode, "save_top_k": 1}
        best |= {"save_on_train_epoch_end": True, "enable_version_counter": False}
        layer = folder / f"{step.name}-best.yaml"
        callback = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": best}
        layer.write_text(yaml.safe_dump({"trainer": {"callbacks+": [callback]}}))
        options += ["--config", str(layer)]
    limit = {"class_path": "sisug.training.time_limit.TimeLimit", "init_args": {"seconds": round(seconds, 1)}}
    time_layer = folder / f"{step.name}-time.yaml"
    time_layer.write_text(yaml.safe_dump({"trainer": {"callbacks+": [limit]}}))
    options += ["--config", str(time_layer), "--trainer.max_epochs", "-1", "--ckpt_path", "last"]
    where = ["--run.root", str(run.parents[1]), "--run.name", run.parent.name, "--run.version", run.name]
    return [*options, *where, "--trainer.enable_progress_bar", "false"]


def _best(run: Path) -> Path:
    best, last = (run / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    return best if best.is_file() else last


def _sisug(*arguments: str) -> None:
    """Run a subcommand in a process of its own, which frees a GPU's memory for the next."""
    logger.info("sisug %s", " ".join(arguments))
    code = subprocess.run([sys.executable, "-m", "sisug", *arguments], check=False).returncode
    if code:
        raise RunError(
            f"sisug {arguments[0]} ended with exit code {code}",
            "its own message stands above",
            "correct what it says, and give the same command again: it goes on from there",
        )
