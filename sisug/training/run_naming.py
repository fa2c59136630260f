"""Which folder a run gets (every stage): `ROOT/NAME/VERSION` for all loggers of a config, and the newest run to resume."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

LIGHTNINGS_NAME = "lightning_logs"
"""The name that Lightning's loggers have when none is given."""


def file_loggers(logger: object) -> list[Namespace]:
    """The configs of the loggers that keep files of their own (CSV, TensorBoard), in order.

    Args:
        logger: the parsed value of `trainer.logger`: one logger, a list, a bool or None.
    """
    each = logger if isinstance(logger, list) else [logger]
    return [one for one in each if isinstance(one, Namespace) and issubclass(_class_of(one), _FILE_LOGGERS)]


def place_run(logger: Namespace, *, root: str | None, name: str | None, version: str | None) -> Path:
    """Write a run's place into a logger's `init_args`, and return the folder.

    Args:
        logger: from `file_loggers`; changed in place.
        root: folder of all runs, or None for the logger's own `save_dir`.
        name: the experiment, or None for the logger's own name ("default" where it has none).
        version: the run, or None for the logger's own version (the next free `version_N` where it has none).
    """
    init_args = logger["init_args"]
    if root is not None:
        init_args["save_dir"] = root
    if name is not None:
        init_args["name"] = name
    elif init_args["name"] in (None, LIGHTNINGS_NAME):
        init_args["name"] = "default"
    experiment = Path(init_args["save_dir"]) / init_args["name"]
    if version is not None:
        init_args["version"] = version
    elif init_args["version"] is None:
        init_args["version"] = next_version(experiment)
    own = init_args["version"]
    return experiment / (f"version_{own}" if isinstance(own, int) else own)


def next_version(experiment: Path) -> str:
    """The next free `version_N` among an experiment's runs, as Lightning numbers them."""
    numbers = [int(match[1]) for run in _runs(experiment) if (match := re.fullmatch(r"version_(\d+)", run.name))]
    return f"version_{max(numbers, default=-1) + 1}"


def newest_last_checkpoint(experiment: Path) -> Path | None:
    """The `last.ckpt` that was written last among an experiment's runs, or None."""
    found = [path for run in _runs(experiment) for path in (run / "checkpoints").glob("last*.ckpt")]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


_FILE_LOGGERS = (CSVLogger, TensorBoardLogger)


def _runs(experiment: Path) -> list[Path]:
    return [path for path in experiment.iterdir() if path.is_dir()] if experiment.is_dir() else []


def _class_of(config: Namespace) -> type:
    module, _, name = str(config["class_path"]).rpartition(".")
    found = getattr(import_module(module), name)
    assert isinstance(found, type)
    return found
