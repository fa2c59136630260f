"""Pictures of what the rearranger does (stage 1), written at every validation and sent to the loggers."""

from __future__ import annotations

from lightning.pytorch import LightningModule
from PIL import Image

from sisug.common.image_grid import GridRow, make_grid
from sisug.proxies.palette import colour_proxy_masks
from sisug.rearranger.module import RearrangerModule
from sisug.rearranger.result import Rearrangement
from sisug.training.grid_logging import FirstBatchGrid

LABELS = ("source", "target mask", "target", "result", "self")


class RearrangementGrid(FirstBatchGrid):
    """Source, target mask, the target's own image, the result and the self-reconstruction, a column a pair.

    Args:
        columns: pairs in the picture, at most.

    Raises:
        ConfigError: no columns.
    """

    name = "rearranged"

    def picture(self, module: LightningModule, outputs: Rearrangement) -> Image.Image | None:
        if not isinstance(module, RearrangerModule):
            return None
        return make_grid(grid_rows(outputs, module.codebook.clusters, self.columns), LABELS)


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
