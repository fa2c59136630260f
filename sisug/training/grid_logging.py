"""Grids of images in a run (every stage): written to its folder, and sent to the loggers that show images."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image

from sisug.common.image_grid import write_grid
from sisug.errors import ConfigError
from sisug.training.run_folder import run_folder
from sisug.training.throughput import images_seen_of


def log_grid(trainer: Trainer, name: str, grid: Image.Image) -> Path | None:
    """Write a grid to the run folder as `grids/NAME-KIMG.png`, and send it to TensorBoard and W&B where they are used.

    Args:
        trainer: of a module with a buffer `images_seen`.
        name: as in the loggers ("val/rearranged"); slashes become dashes in the file name.
        grid: from `make_grid`.

    Returns:
        The file, or None on ranks other than the first, which write nothing.

    Raises:
        ConfigError: the module does not count images.
        RunError: the disk is full.
    """
    if not trainer.is_global_zero:
        return None
    seen = int(images_seen_of(trainer.lightning_module))
    path = run_folder(trainer) / "grids" / f"{name.replace('/', '-')}-{seen // 1000:06d}.png"
    write_grid(grid, path)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, np.asarray(grid), global_step=seen, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(name, images=[grid], caption=[f"{seen / 1000:g} kimg"])
    return path


class FirstBatchGrid(Callback):
    """A picture of the first batch of every validation and test: always of the same samples.

    Args:
        columns: samples in the picture, at most.

    Raises:
        ConfigError: no columns.
    """

    name: str

    def __init__(self, columns: int = 12) -> None:
        if columns < 1:
            raise ConfigError(f"columns {columns}", "a picture needs one", "set 1 or more")
        self.columns = columns

    @abstractmethod
    def picture(self, module: LightningModule, outputs: Any) -> Image.Image | None:
        """The grid of what a step returned; None where the module is of another stage."""

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == 0 and not trainer.sanity_checking:
            self._draw(trainer, pl_module, outputs, "val")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == 0:
            self._draw(trainer, pl_module, outputs, "test")

    def _draw(self, trainer: Trainer, module: LightningModule, outputs: Any, stage: str) -> None:
        grid = self.picture(module, outputs)
        if grid is not None:
            log_grid(trainer, f"{stage}/{self.name}", grid)
