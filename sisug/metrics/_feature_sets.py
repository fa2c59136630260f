"""Features of two sets of images, kept whole: for distances that need every row (evaluation of both stages)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torchmetrics import Metric

from sisug.errors import DataError
from sisug.metrics.extractor import NamedExtractor, Rows
from sisug.types import Images

logger = logging.getLogger(__name__)

_ELEMENTS = 2**23
"""Largest table of distances that is held at a time: 64 MB in float64."""


class FeatureSets(Metric):
    """Rows of features of real and of generated images; a score of them is a subclass.

    Memory grows with the number of images by `num_features` x 4 bytes each (Inception: 8 kB). Rows of all ranks are
    gathered at `compute()`, which every rank must call.

    Args:
        extractor: images in [-1, 1] (batch, 3, height, width) to features (batch, num_features).
        name: of the extractor; `extractor.name` where None.
        num_features: width of the features; `extractor.num_features` where None.
        keep_real: let the features of real images survive `reset()`.

    Raises:
        ConfigError: the extractor does not say its name or how wide its features are, or gives others.
        DataError: images that are not finite or not RGB.
    """

    is_differentiable = False
    full_state_update = False

    real_features: list[Tensor]
    generated_features: list[Tensor]

    def __init__(
        self,
        extractor: nn.Module,
        name: str | None = None,
        *,
        num_features: int | None = None,
        keep_real: bool = False,
    ) -> None:
        super().__init__()
        self.extractor = NamedExtractor.of(extractor, name, num_features)
        self.name, self.num_features = self.extractor.name, self.extractor.num_features
        self.keep_real = keep_real
        self.add_state("real_features", [], dist_reduce_fx="cat")
        self.add_state("generated_features", [], dist_reduce_fx="cat")

    @property
    def real_samples(self) -> int:
        """Real images seen so far on this rank."""
        return sum(map(len, self.real_features))

    @property
    def generated_samples(self) -> int:
        """Generated images seen so far on this rank."""
        return sum(map(len, self.generated_features))

    def update(self, images: Images | Rows, real: bool) -> None:
        """Add images in [-1, 1], or their rows of features, to the real or to the generated side."""
        rows = self.extractor.rows(images, "real images" if real else "generated images").float()
        (self.real_features if real else self.generated_features).append(rows)

    def reset(self) -> None:
        """Empty the generated side, and the real one unless it is kept."""
        kept = list(self.real_features) if self.keep_real else []
        super().reset()
        self.real_features.extend(kept)

    def forget_real(self) -> None:
        """Empty both sides, where the real images are to be others from now on."""
        super().reset()

    def real_state(self) -> dict[str, Tensor]:
        """Features of the real images of all ranks; every rank must ask for them."""
        with self.sync_context():
            return {"features": self._whole(self.real_features)}

    def load_real_state(self, state: Mapping[str, Tensor]) -> None:
        """Take features of `real_state` for the real side of this rank.

        Args:
            state: of one rank only, since sides are added up over ranks.
        """
        self.real_features.clear()
        self.real_features.append(state["features"].float().to(self.device))
        self._computed = None  # an earlier value is out of date

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the rows of all ranks."""
        for rows in (self.real_features, self.generated_features):
            if not rows:  # a rank without images must still send rows of that width
                rows.append(torch.zeros(0, self.num_features, device=self.device))
        super().sync(*args, **kwargs)

    def _sides(self, least: int, why: str) -> tuple[Float[Tensor, "real feature"], Float[Tensor, "generated feature"]]:
        """All rows of both sides.

        Args:
            least: images that a side needs.
            why: the cause in the error where it has fewer.
        """
        sides = self._whole(self.real_features), self._whole(self.generated_features)
        for side, rows in zip(("real", "generated"), sides, strict=True):
            if len(rows) < least:
                raise DataError(
                    f"{len(rows)} {side} images for the {type(self).__name__} ({self.name})",
                    why,
                    f"update the metric with more {side} images before compute()",
                )
        return sides

    def _whole(self, rows: list[Tensor] | Tensor) -> Rows:
        """One tensor: rows are a list before gathering and one tensor after it."""
        if isinstance(rows, Tensor):
            return rows
        return torch.cat(rows) if rows else torch.zeros(0, self.num_features, device=self.device)


def blocks(
    first: Float[Tensor, "first feature"], second: Float[Tensor, "second feature"]
) -> Iterator[tuple[slice, Float64[Tensor, "block feature"], Float64[Tensor, "second feature"]]]:
    """Rows of `first` in float64, as many at a time as keep their table with all of `second` within bounds.

    Args:
        first: rows to go through.
        second: rows that each block is compared with.

    Yields:
        Where the block lies in `first`, the block, and `second` in float64.
    """
    size = max(1, _ELEMENTS // max(1, len(second)))
    against = second.double()
    for start in range(0, len(first), size):
        part = slice(start, min(start + size, len(first)))
        yield part, first[part].double(), against
