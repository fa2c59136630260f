"""Pictures of what the mapper does (stage 2), written at every validation and sent to the loggers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from PIL import Image
from torch import Tensor

from sisug.common.image_grid import GridRow, make_grid
from sisug.mapper.base_module import StageTwoModule
from sisug.mapper.result import Synthesis
from sisug.proxies.palette import colour_proxy_masks
from sisug.training.grid_logging import FirstBatchGrid

LARGEST = 256
"""Height and width of an image in the picture, pixels, at most."""


class SynthesisGrid(FirstBatchGrid):
    """A column a condition: the sample that it was made from, the condition, that sample's proxy mask, the mapper's,
    and the image in three looks.

    Args:
        columns: conditions in the picture, at most.

    Raises:
        ConfigError: no columns.
    """

    name = "synthesised"

    def picture(self, module: LightningModule, outputs: Synthesis) -> Image.Image | None:
        if not isinstance(module, StageTwoModule):
            return None
        clusters, n = module.codebook.clusters, self.columns
        size = min(outputs.target.shape[2], LARGEST)

        def sized(images: Tensor) -> Tensor:
            return F.interpolate(images[:n], (size, size), mode="bilinear", antialias=True)

        rows: list[GridRow] = [
            sized(outputs.target),
            F.interpolate(module.condition.show(outputs.condition[:n]).float(), (size, size)).to(torch.uint8),
            colour_proxy_masks(outputs.true_mask[:n], clusters, size),
            colour_proxy_masks(outputs.proxy_mask[:n], clusters, size),
            *(sized(each) for each in outputs.results),
        ]
        looks = [f"look {i}" for i in range(len(outputs.results))]
        return make_grid(rows, ["sample", module.condition.name, "its proxy", "mapped", *looks])
