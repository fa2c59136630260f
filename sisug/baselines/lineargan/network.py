"""LinearGAN's linear semantic extractor (baseline of the few-shot protocol): one weight for each class and channel."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sisug.errors import DataError
from sisug.generators import GeneratorBackbone
from sisug.labels.label_sets import LabelSet
from sisug.types import Masks, Styles


class LinearExtractor(nn.Module):
    """From the features of every layer to logits of the classes: a 1x1 convolution without bias for each layer, resized
    bilinearly, and their sum.

    Args:
        widths: channels of the layers, from 4 px up.
        labels: label set of its masks.
        generator_fingerprint: of the generator whose features it reads.
        weighted: learn a weight for each layer (the extractor trained on many samples); otherwise the sum is plain (the
            few-shot one).

    Source: Xu and Zheng 2021, section 3 (equation of the extractor); softplus weights, divided by their sum, as in its
        published settings. Our choice: pixel centres are aligned in resizing, as in the generator's own upsampling;
        the authors' code aligns corners, which measures slightly worse.
    """

    def __init__(
        self, widths: Sequence[int], labels: LabelSet, generator_fingerprint: str, *, weighted: bool = False
    ) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.labels = labels
        self.generator_fingerprint = generator_fingerprint
        self.weight = nn.Parameter(torch.zeros(labels.num_classes, sum(self.widths)))
        self.layer_weight = nn.Parameter(torch.ones(len(self.widths))) if weighted else None

    def forward(
        self, layers: Sequence[Float[Tensor, "batch _ _ _"]], size: int
    ) -> Float[Tensor, "batch classes size size"]:
        """Logits of the classes, in the type of the weights whatever autocast says.

        Args:
            layers: of `GeneratorBackbone.layers`.
            size: height and width of the logits, pixels.
        """
        with torch.autocast(self.weight.device.type, enabled=False):
            weights = torch.split(self.weight, list(self.widths), dim=1)
            if self.layer_weight is not None:
                shares = F.softplus(self.layer_weight)
                weights = tuple(w * share for w, share in zip(weights, shares / shares.sum(), strict=True))
            # Resizing is linear too: layers of one resolution are summed before it.
            sums: dict[int, Tensor] = {}
            for each, weight in zip(layers, weights, strict=True):
                part = F.conv2d(each.to(weight.dtype), weight[:, :, None, None])
                resolution = each.shape[-1]
                sums[resolution] = sums[resolution] + part if resolution in sums else part
            return functools.reduce(torch.add, (resized(part, size) for part in sums.values()))

    @torch.no_grad()
    def segment(self, generator: GeneratorBackbone, ws: Styles, size: int | None = None) -> Masks:
        """Masks of samples.

        Args:
            generator: the one that it was trained for.
            ws: styles of the samples.
            size: height and width of the masks, pixels; None for the images' own.

        Raises:
            DataError: another generator.
        """
        self.check(generator)
        logits: Tensor = self(generator.layers(ws), size or generator.resolution)
        return logits.argmax(dim=1)

    def check(self, generator: GeneratorBackbone) -> None:
        """Refuse a generator other than the one that it was trained for.

        Args:
            generator: whose features it is to read.

        Raises:
            DataError: it has other weights.
        """
        if generator.fingerprint != self.generator_fingerprint:
            raise DataError(
                f"the linear extractor was trained for the generator {self.generator_fingerprint[:12]}",
                f"this one is {generator.source} ({generator.fingerprint[:12]}), whose features mean other things",
                "train an extractor for it, or give the generator that it was trained for",
            )


def resized(
    values: Float[Tensor, "batch channel before before"], size: int
) -> Float[Tensor, "batch channel size size"]:
    """Bilinear resizing as two products of matrices: on GPUs, gradients of `F.interpolate` differ from run to run.

    Args:
        values: of any size.
        size: height and width of the result, pixels.
    """
    before = values.shape[-1]
    if before == size:
        return values
    unit = torch.eye(before, dtype=values.dtype, device=values.device)
    matrix = F.interpolate(unit[None], size, mode="linear")[0].t()
    return matrix @ values @ matrix.t()
