"""Images that protocols score (evaluation): each a function of a seed and its own number, whatever else is made."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int64
from torch import Tensor

from sisug.common.seeding import fixed_latents, generator_for
from sisug.conditions.condition import Encoded
from sisug.errors import ConfigError
from sisug.evaluation.held_out import HeldOut, HeldOutBatch
from sisug.generators import GeneratorBackbone
from sisug.labels.label_maps import LabelMap, match_labels
from sisug.mapper.trained import TrainedMapper
from sisug.rearranger.network import LayoutMask
from sisug.rearranger.trained import TrainedRearranger
from sisug.types import Images, ProxyMasks, ProxyWeights, Styles

Numbers = Int64[Tensor, " batch"]
"""Of samples: each has its own latent."""


class Samples:
    """Plain, rearranged and synthesised images of one generator.

    Args:
        generator: frozen.
        truncation: of every sample; 1 for the generator's full range.
        device: to compute on; images come back on it.
    """

    def __init__(self, generator: GeneratorBackbone, truncation: float, device: torch.device) -> None:
        self.generator, self.truncation, self.device = generator.to(device), truncation, device

    def styles(self, numbers: Numbers, seed: int, purpose: str) -> Styles:
        """Styles of samples.

        Args:
            numbers: of the samples.
            seed: of the repeat.
            purpose: "look", "target" and so on; samples of two purposes have nothing in common.
        """
        z = fixed_latents(numbers, self.generator.z_dim, seed=seed, purpose=f"evaluation {purpose}")
        return self.generator.map(z.to(self.device), self.truncation)

    @torch.no_grad()
    def plain(self, ws: Styles) -> Images:
        """Samples as the generator makes them."""
        return self.generator.images(ws)

    @torch.no_grad()
    def laid_out(self, rearranger: TrainedRearranger, ws: Styles, target: LayoutMask) -> Images:
        """Samples in another layout.

        Args:
            rearranger: on the device, of this generator.
            ws: of the samples, which give the look.
            target: the layouts.
        """
        # Its own generator, which may be cut at another resolution than the one here.
        return rearranger.pipeline.images(rearranger.pipeline.source(ws), target)

    @torch.no_grad()
    def layouts(self, rearranger: TrainedRearranger, ws: Styles) -> ProxyMasks:
        """Proxy masks of samples.

        Args:
            rearranger: whose codebook reads them.
            ws: of the samples.
        """
        return rearranger.pipeline.source(ws).mask


def blocks(count: int, size: int) -> Iterator[Numbers]:
    """Numbers 0 to count - 1 in blocks: a sample always comes with the same others, so that nothing moves its digits.

    Args:
        count: how many.
        size: of a block.
    """
    for start in range(0, count, size):
        yield torch.arange(start, min(start + size, count))


class Conditions:
    """What held-out images give a mapper to read.

    Random parts of a condition (strokes, thresholds) are drawn for each image on its own.

    Args:
        mapper: reads them.
        data: held-out images; with masks where the mapper's condition needs them.

    Raises:
        ConfigError: the mapper reads masks and the data has none.
        DataError: masks with classes that the mapper does not know.
    """

    def __init__(self, mapper: TrainedMapper, data: HeldOut) -> None:
        self.mapper, self.condition = mapper, mapper.condition
        self._map: LabelMap | None = None
        labels = self.condition.labels
        if not self.condition.needs_masks:
            return
        if data.labels is None or labels is None:
            raise ConfigError(
                f"held-out images of {data.name} without masks",
                f"the mapper reads {self.condition.name!r}, which is made of masks",
                "give a folder with images/ and masks/, or a mapper that reads edges or sketches",
            )
        if data.labels.classes != labels.classes or data.labels.ignore != labels.ignore:
            # The mapper may know classes that the data has not.
            self._map = match_labels(data.labels, labels, allow_unseen=True)

    def encoded(self, batch: HeldOutBatch) -> Encoded:
        """Conditions of a batch, at the resolution of its images."""
        masks = batch.masks if self._map is None or batch.masks is None else self._map(batch.masks)
        rows = []
        for place, number in enumerate(batch.index.tolist()):
            stream = generator_for(seed=0, rank=0, images_seen=number, purpose="evaluation conditions")
            one = slice(place, place + 1)
            given = masks[one] if self.condition.needs_masks and masks is not None else None
            rows.append(self.condition.extract(batch.images[one], given, stream))
        return torch.cat(rows)

    def layouts(self, batch: HeldOutBatch, device: torch.device) -> ProxyWeights:
        """The mapper's layouts of a batch.

        Args:
            batch: held-out images.
            device: that the mapper is on.
        """
        return self.mapper.layouts(self.encoded(batch).to(device))
