"""Precision, recall, density and coverage between two sets of images: realism and variety apart (evaluation)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from sisug.errors import ConfigError
from sisug.metrics._feature_sets import FeatureSets, blocks, logger
from sisug.metrics._once import say_once


class ManifoldResult(NamedTuple):
    """What two sets of images share of each other's manifold; each set's manifold is the balls around its features.

    Args:
        precision: share of generated images inside the real manifold, 0 to 1: realism.
        recall: share of real images inside the generated manifold, 0 to 1: variety.
        density: real balls that a generated image lies in, over the number of neighbours; 1 where both sets are of
            one distribution, above 1 where generated images crowd the dense parts: realism, robust to outliers.
        coverage: share of real balls with a generated image inside, 0 to 1: variety, robust to outliers.
    """

    precision: Float[Tensor, ""]
    recall: Float[Tensor, ""]
    density: Float[Tensor, ""]
    coverage: Float[Tensor, ""]


class ManifoldScores(FeatureSets):
    """Precision and recall, density and coverage of generated against real images in extractor features.

    The ball of an image reaches to its k-th nearest neighbour of the same set, so values depend on the number of
    images: compare values of equal counts only, and give both sides equally many. Of the extractor's rows all are
    kept, so memory grows with the number of images; distances are taken block by block in float64.

    Args:
        extractor: images in [-1, 1] (batch, 3, height, width) to features (batch, num_features).
        name: of the extractor; `extractor.name` where None.
        num_features: width of the features; `extractor.num_features` where None.
        keep_real: let the features of real images survive `reset()`.
        neighbours: k of precision and recall; a ball's edge belongs to it.
        density_neighbours: k of density and coverage; a ball's edge does not.

    Raises:
        ConfigError: the extractor does not say its name or width, or gives others; a k below 1.
        DataError: images that are not finite or not RGB; at `compute()`, k images or fewer on a side.

    Source: T. Kynkäänniemi et al., "Improved precision and recall metric for assessing generative models" (2019), with
    its k = 3; M. F. Naeem et al., "Reliable fidelity and diversity metrics for generative models" (2020), with its
    k = 5. Edges as in the authors' programs.
    """

    higher_is_better = True

    def __init__(
        self,
        extractor: nn.Module,
        name: str | None = None,
        *,
        num_features: int | None = None,
        keep_real: bool = False,
        neighbours: int = 3,
        density_neighbours: int = 5,
    ) -> None:
        super().__init__(extractor, name, num_features=num_features, keep_real=keep_real)
        if min(neighbours, density_neighbours) < 1:
            raise ConfigError(
                f"neighbours={neighbours}, density_neighbours={density_neighbours}",
                "a ball reaches to a neighbour",
                "pass 1 or more",
            )
        self.neighbours, self.density_neighbours = neighbours, density_neighbours

    def compute(self) -> ManifoldResult:
        """Scores over everything seen."""
        k, k_density = self.neighbours, self.density_neighbours
        most = max(k, k_density)
        real, generated = self._sides(most + 1, f"every image needs {most} neighbours beside itself")
        if len(real) != len(generated):
            say_once(
                logger,
                f"ManifoldScores ({self.name}): {len(real)} real and {len(generated)} generated images; balls shrink "
                "with more images, so recall and coverage of unequal counts compare with nothing published.",
            )
        real_radii, real_density_radii = _radii(real, k), _radii(real, k_density)
        generated_radii = _radii(generated, k)
        inside_real, balls = (torch.zeros(len(generated), device=real.device, dtype=torch.int64) for _ in range(2))
        inside_generated, covered = (torch.zeros(len(real), device=real.device, dtype=torch.bool) for _ in range(2))
        for part, block, against in blocks(real, generated):
            distances = _distances(block, against)
            inside_real += (distances <= real_radii[part, None]).sum(dim=0)
            inside_generated[part] = (distances <= generated_radii).any(dim=1)
            within = distances < real_density_radii[part, None]
            balls += within.sum(dim=0)
            covered[part] = within.any(dim=1)
        return ManifoldResult(
            precision=(inside_real > 0).float().mean(),
            recall=inside_generated.float().mean(),
            density=(balls.double().mean() / k_density).float(),
            coverage=covered.float().mean(),
        )


def _distances(
    first: Float64[Tensor, "first feature"], second: Float64[Tensor, "second feature"]
) -> Float64[Tensor, "first second"]:
    # In float64 the quick way by matrix product is exact enough: 1e-8 of the features' length.
    return torch.cdist(first, second, compute_mode="use_mm_for_euclid_dist")


def _radii(rows: Float[Tensor, "rows feature"], neighbours: int) -> Float64[Tensor, " rows"]:
    """Distance of each row to its k-th nearest other row."""
    radii = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    for part, block, against in blocks(rows, rows):
        # The nearest of all is the row itself.
        radii[part] = _distances(block, against).kthvalue(neighbours + 1, dim=1).values
    return radii
