"""Pictures of what the mapper does (stage 2), written at every validation and sent to the loggers."""

from __future__ import annotations

from lightning.pytorch import LightningModule
from PIL import Image

from sisug.common.image_grid import GridRow, make_grid
from sisug.mapper.module import MapperModule
from sisug.mapper.result import Synthesis
from sisug.proxies.palette import colour_proxy_masks
from sisug.training.grid_logging import FirstBatchGrid


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
        if not isinstance(module, MapperModule):
            return None
        clusters, size, n = module.codebook.clusters, outputs.target.shape[2], self.columns
        rows: list[GridRow] = [
            outputs.target[:n],
            module.condition.show(outputs.condition[:n]),
            colour_proxy_masks(outputs.true_mask[:n], clusters, size),
            colour_proxy_masks(outputs.proxy_mask[:n], clusters, size),
            *(each[:n] for each in outputs.results),
        ]
        looks = [f"look {i}" for i in range(len(outputs.results))]
        return make_grid(rows, ["sample", module.condition.name, "its proxy", "mapped", *looks])
