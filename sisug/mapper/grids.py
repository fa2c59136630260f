"""Pictures of what the mapper does (stage 2), written at every validation and sent to the loggers."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from sisug.errors import ConfigError
from sisug.mapper.module import MapperModule
from sisug.mapper.result import Synthesis
from sisug.proxies.palette import colour_proxy_masks
from sisug.training.grid_logging import log_grid
from sisug.training.image_grid import GridRow, make_grid


class SynthesisGrid(Callback):
    """A column a condition: the sample that it was made from, the condition, that sample's proxy mask, the mapper's,
    and the image in three looks.

    Args:
        columns: conditions in the picture, at most; they are the first of the first batch, so the same in every
            validation.

    Raises:
        ConfigError: no columns.
    """

    def __init__(self, columns: int = 12) -> None:
        if columns < 1:
            raise ConfigError(f"columns {columns}", "a picture needs one", "set 1 or more")
        self.columns = columns

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Synthesis,  # type: ignore[override]  # whatever the step returns
        batch: dict[str, object],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._draw(trainer, pl_module, outputs, batch_idx, "val/synthesised")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Synthesis,  # type: ignore[override]  # whatever the step returns
        batch: dict[str, object],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._draw(trainer, pl_module, outputs, batch_idx, "test/synthesised")

    def _draw(self, trainer: Trainer, pl_module: LightningModule, done: Synthesis, batch_idx: int, name: str) -> None:
        if batch_idx or trainer.sanity_checking or not isinstance(pl_module, MapperModule):
            return
        clusters, size, n = pl_module.codebook.clusters, done.target.shape[2], self.columns
        rows: list[GridRow] = [
            done.target[:n],
            pl_module.condition.show(done.condition[:n]),
            colour_proxy_masks(done.true_mask[:n], clusters, size),
            colour_proxy_masks(done.proxy_mask[:n], clusters, size),
            *(each[:n] for each in done.results),
        ]
        labels = [
            "sample",
            pl_module.condition.name,
            "its proxy",
            "mapped",
            *(f"look {i}" for i in range(len(done.results))),
        ]
        log_grid(trainer, name, make_grid(rows, labels))
