"""Pictures of what the rearranger does (stage 1), written at every validation and sent to the loggers."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from sisug.errors import ConfigError
from sisug.proxies.palette import colour_proxy_masks
from sisug.rearranger.module import RearrangerModule
from sisug.rearranger.result import Rearrangement
from sisug.training.grid_logging import log_grid
from sisug.training.image_grid import GridRow, make_grid

LABELS = ("source", "target mask", "target", "result", "self")


class RearrangementGrid(Callback):
    """Source, target mask, the target's own image, the result and the self-reconstruction, a column a pair.

    Args:
        columns: pairs in the picture, at most; they are the first of the first batch, so the same in every validation.

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
        outputs: Rearrangement,  # type: ignore[override]  # whatever the step returns
        batch: dict[str, object],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._draw(trainer, pl_module, outputs, batch_idx, "val/rearranged")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Rearrangement,  # type: ignore[override]  # whatever the step returns
        batch: dict[str, object],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._draw(trainer, pl_module, outputs, batch_idx, "test/rearranged")

    def _draw(
        self, trainer: Trainer, pl_module: LightningModule, done: Rearrangement, batch_idx: int, name: str
    ) -> None:
        if batch_idx == 0 and not trainer.sanity_checking and isinstance(pl_module, RearrangerModule):
            log_grid(trainer, name, make_grid(grid_rows(done, pl_module.codebook.clusters, self.columns), LABELS))


def grid_rows(done: Rearrangement, clusters: int, columns: int) -> list[GridRow]:
    """Rows of the picture, in the order of LABELS."""
    size = done.source.shape[2]
    return [
        done.source[:columns],
        colour_proxy_masks(done.target_mask[:columns], clusters, size),
        done.target[:columns],
        done.result[:columns],
        done.reconstruction[:columns],
    ]
