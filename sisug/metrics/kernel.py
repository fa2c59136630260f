"""Kernel distance between two sets of images under a named feature extractor: realism (evaluation of both stages)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sisug.metrics._feature_sets import FeatureSets, blocks


class KernelDistance(FeatureSets):
    """Squared maximum mean discrepancy between extractor features of real and of generated images.

    Polynomial kernel (x'y / num_features + 1)^3, unbiased estimator, so that it does not fall with the number of
    images as the Fréchet distance does; for two sets of one distribution it lies around 0 and may be a little below.
    With torch-fidelity's Inception as the extractor (`InceptionFeatures`) it is the KID. Of the extractor's rows all
    are kept: memory grows with the number of images, by `num_features` x 4 bytes each (Inception: 8 kB).

    Args:
        extractor: images in [-1, 1] (batch, 3, height, width) to features (batch, num_features).
        name: of the extractor; `extractor.name` where None.
        num_features: width of the features; `extractor.num_features` where None.
        keep_real: let the features of real images survive `reset()`.

    Raises:
        ConfigError: the extractor does not say its name or how wide its features are, or gives others.
        DataError: images that are not finite or not RGB; fewer than 2 images on a side at `compute()`.

    Source: M. Bińkowski et al., "Demystifying MMD GANs" (2018), section 4. Our choice: all images enter at once,
    where the paper takes the mean over random subsets of 1,000, which tends to the same number with more subsets.
    There is no draw, so neither order nor ranks nor a seed matter.
    """

    higher_is_better = False

    def compute(self) -> Float[Tensor, ""]:
        """Squared distance between the two sides; around 0 where they are of one distribution."""
        real, generated = self._sides(2, "an unbiased estimate needs pairs of images within each side")
        within = _mean_kernel(real, real, diagonal=False) + _mean_kernel(generated, generated, diagonal=False)
        return (within - 2 * _mean_kernel(real, generated, diagonal=True)).float()


def _mean_kernel(
    first: Float[Tensor, "first feature"], second: Float[Tensor, "second feature"], diagonal: bool
) -> Float64[Tensor, ""]:
    """Mean of the kernel over all pairs of rows.

    Args:
        first: rows.
        second: other rows, or the same ones.
        diagonal: whether the pairs of a row with the row of the same number count.
    """
    width = first.shape[1]
    total = torch.zeros((), dtype=torch.float64, device=first.device)
    for _, block, against in blocks(first, second):
        total += (block @ against.T / width + 1).pow(3).sum()
    pairs = len(first) * len(second)
    if not diagonal:
        total -= (first.double().square().sum(dim=1) / width + 1).pow(3).sum()
        pairs -= len(first)
    return total / pairs
