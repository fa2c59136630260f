"""Where a run's files lie (every stage), and the check, before any work, that they can be written."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger

from sisug.common.folders import check_writable
from sisug.errors import DiskFullError, RunError

logger = logging.getLogger(__name__)


def run_folder(trainer: Trainer) -> Path:
    """The folder that holds a run's checkpoints, config, grids and metrics.

    It is the first logger's own folder, as for Lightning's checkpoints: `save_dir/name/version`. (`trainer.log_dir`
    names `save_dir` alone for W&B, which all runs share.) Only the main process writes there; on other ranks the
    answer may differ, since each builds its own loggers.

    Args:
        trainer: with loggers attached; without one, `default_root_dir` is the folder.
    """
    loggers = [each for each in trainer.loggers if not isinstance(each, DummyLogger)]
    return folder_of(loggers[0]) if loggers else Path(trainer.default_root_dir)


def folder_of(logger: Logger) -> Path:
    """The folder of one logger's run."""
    if isinstance(logger, CSVLogger | TensorBoardLogger):
        return Path(logger.log_dir)
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(logger.save_dir or ".") / str(logger.name) / version


def check_run_folder(folder: Path, min_free_gb: float = 1.0) -> None:
    """Refuse a run folder that cannot be written, or a disk that is nearly full; nothing is created.

    Args:
        folder: the run's folder, which need not exist yet.
        min_free_gb: smallest free space in GB (1e9 bytes).

    Raises:
        RunError: the folder is a file, cannot be written, or the disk has less free space.
    """
    nearest = check_writable(folder, "run folder", "choose another folder with --run.root")
    free_gb = shutil.disk_usage(nearest).free / 1e9
    if free_gb < min_free_gb:
        raise DiskFullError(
            f"{free_gb:.2f} GB are free on the disk of the run folder {folder}",
            f"checkpoints and grids need room; the limit is {min_free_gb:g} GB",
            "free some space, choose another disk with --run.root, or lower min_free_gb of the callback RunFolder",
        )


def check_unused(folder: Path) -> None:
    """Refuse to start a run in a folder that has checkpoints of another one.

    Raises:
        RunError: there is a checkpoint in it.
    """
    if any((folder / "checkpoints").glob("*.ckpt")):
        raise RunError(
            f"the run folder {folder} holds another run",
            "a new run would mix its checkpoints and metrics with that one's",
            "continue that run with `--ckpt_path last`, leave out --run.version, or choose another",
        )


class RunFolder(Callback):
    """Checks, before training starts, that the run's files can be written.

    Args:
        min_free_gb: smallest free space in GB (1e9 bytes) with which a run may start.

    Source: our choice: a run that cannot save itself should fail in its first second, not in its last.
    """

    def __init__(self, min_free_gb: float = 1.0) -> None:
        self.min_free_gb = min_free_gb

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        error: RunError | None = None
        if trainer.is_global_zero:
            try:
                check_run_folder(run_folder(trainer), self.min_free_gb)
            except RunError as found:
                error = found
        # All ranks raise, else the others would wait for the first one for ever.
        error = trainer.strategy.broadcast(error)
        if error is not None:
            raise error
