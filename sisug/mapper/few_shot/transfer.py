"""Labels of a few samples carried to any other by the rearranger's own attention (stage 2), without training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from sisug.generators import GeneratorBackbone
from sisug.labels.label_sets import LabelSet
from sisug.proxies import Codebook
from sisug.rearranger.network import Rearranger
from sisug.types import Masks, Styles

FINEST = 128
"""Size that labels are carried at, at most, pixels."""


class LabelTransfer:
    """Names the parts of a generator's samples by where the rearranger would take them from.

    Asked to lay a labelled sample out as another one, the rearranger says for each cell from which cells of the
    labelled sample its content comes; so does the label. It was learnt from thousands of samples without a label what
    corresponds to what, where a segmenter trained on one label knows that sample only.

    Args:
        generator: frozen.
        codebook: of the rearranger.
        rearranger: trained and frozen.
        ws: styles of the labelled samples.
        masks: their masks, at the images' size.
        labels: label set of the masks.

    Source: our choice. On avatars, one label: 0.87 of the pixels of other samples right, where a few-shot segmenter has
        0.79 (docs/results.md).
    """

    def __init__(
        self,
        generator: GeneratorBackbone,
        codebook: Codebook,
        rearranger: Rearranger,
        ws: Styles,
        masks: Int64[Tensor, "labelled height width"],
        labels: LabelSet,
    ) -> None:
        self.generator, self.codebook, self.rearranger = generator, codebook, rearranger
        self.labels = labels
        self.features = generator.features(ws).map
        self.masks = codebook.assign(self.features)
        # Fine labels ride in the channels of coarse cells: eyes are smaller than a cell.
        self.parts = max(1, min(generator.resolution, FINEST) // generator.split)
        side = self.parts * generator.split
        small = F.interpolate(masks[:, None].float(), (side, side), mode="nearest-exact")[:, 0].long()
        ignored = small == labels.ignore
        shares = F.one_hot(small.masked_fill(ignored, 0), labels.num_classes).permute(0, 3, 1, 2) * ~ignored[:, None]
        self.shares = F.pixel_unshuffle(shares.float(), self.parts)

    @torch.no_grad()
    def probabilities(self, ws: Styles) -> Float[Tensor, "batch classes side side"]:
        """Shares of the classes in each place of samples; all 0 where nothing labelled corresponds.

        Args:
            ws: styles of the samples.
        """
        target = self.codebook.assign(self.generator.features(ws).map)
        carried = self.rearranger.transfer(self.shares, self.features, self.masks, target)
        return F.pixel_shuffle(carried, self.parts)

    def segment(self, ws: Styles) -> Masks:
        """Masks of samples, at the images' size.

        Args:
            ws: styles of the samples.
        """
        return named(resized(self.probabilities(ws), self.generator.resolution), self.labels)


def resized(
    shares: Float[Tensor, "batch classes height height"], size: int
) -> Float[Tensor, "batch classes size size"]:
    """Shares of classes at another size.

    Args:
        shares: of each place.
        size: pixels.
    """
    return shares if shares.shape[-1] == size else F.interpolate(shares, (size, size), mode="bilinear")


def named(shares: Float[Tensor, "batch classes height width"], labels: LabelSet) -> Int64[Tensor, "batch height width"]:
    """The class of the largest share; ``ignore`` where what is labelled has less than half.

    Args:
        shares: 0 to 1, of each class.
        labels: of the classes.
    """
    return shares.argmax(dim=1).masked_fill(shares.sum(dim=1) < 0.5, labels.ignore)
