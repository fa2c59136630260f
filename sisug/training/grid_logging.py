"""Grids of images in a run (every stage): written to its folder, and sent to the loggers that show images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image

from sisug.training.image_grid import write_grid
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
