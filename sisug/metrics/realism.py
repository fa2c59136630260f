"""All distances between real and generated images from one pass through the extractor (evaluation of both stages)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sisug.metrics.extractor import NamedExtractor, Rows
from sisug.metrics.frechet import FrechetDistance
from sisug.metrics.kernel import KernelDistance
from sisug.metrics.manifold import ManifoldScores
from sisug.types import Images


class RealismResult(NamedTuple):
    """Scores of generated against real images under one extractor; see the class of each.

    Args:
        frechet: `FrechetDistance`; the FID under torch-fidelity's Inception.
        kernel: `KernelDistance`; the KID under torch-fidelity's Inception.
        precision: `ManifoldScores`.
        recall: `ManifoldScores`.
        density: `ManifoldScores`.
        coverage: `ManifoldScores`.
        variety: spread of generated features over that of real ones, see `FrechetDistance`.
    """

    frechet: float
    kernel: float
    precision: float
    recall: float
    density: float
    coverage: float
    variety: float


class RealismScores(nn.Module):
    """Fréchet distance, kernel distance, precision, recall, density and coverage; features are extracted once.

    Of the extractor's rows all are kept (once, for all scores), so memory grows with the number of images by
    `num_features` x 4 bytes each. Where that is too much, use `FrechetDistance` alone.

    Args:
        extractor: images in [-1, 1] (batch, 3, height, width) to features (batch, num_features).
        name: of the extractor; `extractor.name` where None.
        num_features: width of the features; `extractor.num_features` where None.
        keep_real: let the real side survive `reset()`.

    Raises:
        ConfigError: the extractor does not say its name or how wide its features are, or gives others.
        DataError: images that are not finite or not RGB; at `compute()`, 5 images or fewer on a side.
    """

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
        self.frechet = FrechetDistance(self.extractor, keep_real=keep_real)
        self.kernel = KernelDistance(self.extractor, keep_real=keep_real)
        self.manifold = ManifoldScores(self.extractor, keep_real=keep_real)

    @property
    def device(self) -> torch.device:
        """Where the sums lie."""
        return self.frechet.device

    @property
    def real_samples(self) -> int:
        """Real images seen so far on this rank."""
        return self.frechet.real_samples

    @property
    def generated_samples(self) -> int:
        """Generated images seen so far on this rank."""
        return self.frechet.generated_samples

    def update(self, images: Images | Rows, real: bool) -> None:
        """Add images in [-1, 1], or their rows of features, to the real or to the generated side."""
        rows = self.extractor.rows(images, "real images" if real else "generated images")
        for score in (self.frechet, self.kernel, self.manifold):
            score.update(rows, real)

    def compute(self) -> RealismResult:
        """All scores over everything seen on all ranks; every rank must call it."""
        # The one that needs most images first, so that too few are told of at once.
        manifold = self.manifold.compute()
        return RealismResult(
            frechet=float(self.frechet.compute()),
            kernel=float(self.kernel.compute()),
            precision=float(manifold.precision),
            recall=float(manifold.recall),
            density=float(manifold.density),
            coverage=float(manifold.coverage),
            variety=self.frechet.variety,  # set by its compute()
        )

    def reset(self) -> None:
        """Empty the generated side, and the real one unless it is kept."""
        for score in (self.frechet, self.kernel, self.manifold):
            score.reset()

    def forget_real(self) -> None:
        """Empty both sides, where the real images are to be others from now on."""
        for score in (self.frechet, self.kernel, self.manifold):
            score.forget_real()

    def real_state(self) -> dict[str, Tensor]:
        """Statistics and features of the real images of all ranks; every rank must ask for them."""
        return self.frechet.real_state() | self.kernel.real_state()

    def load_real_state(self, state: Mapping[str, Tensor]) -> None:
        """Take what `real_state` gave for the real side of this rank.

        Args:
            state: of one rank only, since sides are added up over ranks.
        """
        rows = {"features": state["features"].float().to(self.device)}  # one copy for both
        self.frechet.load_real_state(state)
        self.kernel.load_real_state(rows)
        self.manifold.load_real_state(rows)
