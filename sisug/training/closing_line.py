"""The line a run ends with (every stage): where its files are, what it did, and how to go on after an interruption."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from sisug.training.run_folder import run_folder

logger = logging.getLogger(__name__)


class ClosingLine(Callback):
    """Says at the end of `fit` where checkpoint, grids and metrics are, how many images were seen and how long it took.

    After an interruption or an error it says which checkpoint is left and how to continue from it.
    """

    def __init__(self) -> None:
        self._began: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.monotonic()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self._began is not None:
            logger.info("Done: %s. %s", self._what(pl_module), _where(run_folder(trainer)))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not trainer.is_global_zero or self._began is None:
            return  # nothing had been trained, so the error speaks for itself
        asked = isinstance(exception, KeyboardInterrupt | SIGTERMException) or was_terminated(exception)
        how = "Interrupted" if asked else "Stopped by an error"
        checkpoint = newest_checkpoint(run_folder(trainer))
        if checkpoint is None:
            rest = "No checkpoint had been written yet, so there is nothing to continue from"
        else:
            rest = (
                f"The newest checkpoint is {checkpoint}; continue from it with the same command plus "
                '`--ckpt_path last` (through make: ARGS="--ckpt_path last")'
            )
        logger.warning("%s after %s. %s", how, self._what(pl_module), rest)

    def _what(self, pl_module: LightningModule) -> str:
        assert self._began is not None
        seconds = round(time.monotonic() - self._began)
        hours, minutes = divmod(seconds // 60, 60)
        duration = f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s"
        seen = getattr(pl_module, "images_seen", None)
        return f"{int(seen):,} images seen, {duration}" if isinstance(seen, Tensor) else duration


def was_terminated(error: BaseException) -> bool:
    """Whether an error says that a SIGTERM to the whole job ended a data worker before the main process heard of it."""
    return isinstance(error, RuntimeError) and "killed by signal: Terminated" in str(error)


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of a run folder that was written last, or None."""
    checkpoints = list((folder / "checkpoints").glob("*.ckpt"))
    return max(checkpoints, key=lambda path: path.stat().st_mtime, default=None)


def _where(folder: Path) -> str:
    parts = [
        ("checkpoint", newest_checkpoint(folder)),
        ("grids", folder / "grids"),
        ("metrics", folder / "metrics.csv"),
    ]
    found = [f"{what} {path}" for what, path in parts if path is not None and path.exists()]
    return ", ".join(found) if found else f"Run folder {folder}"
