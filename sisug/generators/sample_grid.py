"""Pictures of a generator in training (before stage 1): the same latents at every validation."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sisug.common.image_grid import make_grid
from sisug.errors import check_range
from sisug.generators.module import GeneratorModule
from sisug.training.grid_logging import log_grid


class SampleGrid(Callback):
    """Uncurated samples of the averaged weights, of the same latents every time.

    Args:
        rows: of the picture.
        columns: of the picture.
        truncation: 1 for the full range, which is what the generator has learnt.

    Raises:
        ConfigError: no rows or no columns.
    """

    def __init__(self, rows: int = 8, columns: int = 12, truncation: float = 1.0) -> None:
        check_range(rows=rows, columns=columns, above=0)
        self.rows, self.columns, self.truncation = rows, columns, truncation

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._draw(trainer, pl_module, "val/samples")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module, "test/samples")

    def _draw(self, trainer: Trainer, pl_module: LightningModule, name: str) -> None:
        assert isinstance(pl_module, GeneratorModule)
        if not trainer.is_global_zero:
            return
        numbers = torch.arange(self.rows * self.columns, device=pl_module.device)
        images = pl_module.sample(numbers, "grid", self.truncation)
        log_grid(trainer, name, make_grid(torch.split(images, self.columns), [""] * self.rows))
