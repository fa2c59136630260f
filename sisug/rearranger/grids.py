"""Pictures of what the rearranger does (stage 1), written at every validation and sent to the loggers."""

from __future__ import annotations

import torch.nn.functional as F
from lightning.pytorch import LightningModule
from PIL import Image

from sisug.common.image_grid import GridRow, make_grid
from sisug.proxies.palette import colour_proxy_masks
from sisug.rearranger.base_module import StageOneModule
from sisug.rearranger.result import Rearrangement
from sisug.training.grid_logging import FirstBatchGrid

LARGEST = 256
"""Height and width of an image in the picture, pixels, at most."""

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
        if not isinstance(module, StageOneModule):
            return None
        return make_grid(grid_rows(outputs, module.codebook.clusters, self.columns), LABELS)


def grid_rows(done: Rearrangement, clusters: int, columns: int) -> list[GridRow]:
    """Rows of the picture, in the order of LABELS."""
    size = min(done.source.shape[2], LARGEST)
    images = (done.source, done.target, done.result, done.reconstruction)
    source, target, result, reconstruction = (
        F.interpolate(image[:columns], size=(size, size), mode="bilinear", antialias=True) for image in images
    )
    return [source, colour_proxy_masks(done.target_mask[:columns], clusters, size), target, result, reconstruction]
