"""Fréchet distance between two sets of images under a named feature extractor: realism (evaluation of both stages)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from sisug.errors import DataError
from sisug.metrics.extractor import NamedExtractor, Rows
from sisug.types import Images

logger = logging.getLogger(__name__)

_MOMENTS = ("real_features_sum", "real_features_cov_sum", "real_features_num_samples")


class FrechetDistance(FrechetInceptionDistance):
    """Fréchet distance of two Gaussians fitted to extractor features of real and of generated images.

    With torch-fidelity's Inception as the extractor (`InceptionFeatures`) it is the FID; with any other one it is not,
    which is why the extractor has a name that belongs into the name of the logged value. Sums are kept in float64 and
    added over ranks, so neither batch size nor order nor the number of ranks matters, and memory does not grow with
    the number of images. The extractor is frozen, in eval, and no part of the state_dict.

    Args:
        extractor: images in [-1, 1] (batch, 3, height, width) to features (batch, num_features).
        name: of the extractor, for example "avatars-judge"; `extractor.name` where None.
        num_features: width of the features; `extractor.num_features` where None.
        keep_real: let the statistics of real images survive `reset()`, so that they are computed once a run (see
            `real_samples`).

    Raises:
        ConfigError: the extractor does not say its name or how wide its features are, or gives others.
        DataError: images that are not finite or not RGB; fewer than 2 images on a side at `compute()`.

    Source: M. Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium"
    (2017), equation 6. Our choice: images are clamped to [-1, 1] first, as saving them would.
    """

    def __init__(
        self,
        extractor: nn.Module,
        name: str | None = None,
        *,
        num_features: int | None = None,
        keep_real: bool = False,
    ) -> None:
        named = NamedExtractor.of(extractor, name, num_features)
        super().__init__(feature=named, reset_real_features=not keep_real, normalize=True)
        self.name = named.name
        self.num_features = named.num_features
        # Set by the parent's update(); a rank that got no image must compute, too.
        self.orig_dtype = torch.float32
        self._warned = False
        self.variety = float("nan")
        """Set by `compute()`: spread (trace of the covariance) of generated features over that of real ones; 1 when
        generated images are as varied, towards 0 when they are all alike."""

    @property
    def extractor(self) -> NamedExtractor:
        """Its name and fingerprint belong into the record of the value."""
        named = self.inception
        assert isinstance(named, NamedExtractor)
        return named

    @property
    def real_samples(self) -> int:
        """Real images seen so far on this rank."""
        return int(self.real_features_num_samples)

    @property
    def generated_samples(self) -> int:
        """Generated images seen so far on this rank."""
        return int(self.fake_features_num_samples)

    def update(self, images: Images | Rows, real: bool) -> None:
        """Add images in [-1, 1], or their rows of features, to the real or to the generated side."""
        super().update(self.extractor.rows(images, "real images" if real else "generated images"), real)

    def compute(self) -> Float[Tensor, ""]:
        """Distance between the two sides, 0 or more; needs 2 images a side, and many more to mean something."""
        counts = {"real": self.real_samples, "generated": self.generated_samples}
        for side, count in counts.items():
            if count < 2:
                raise DataError(
                    f"{count} {side} images for the Fréchet distance ({self.name})",
                    "a covariance needs at least 2",
                    f"update the metric with more {side} images before compute()",
                )
        fewest = min(counts.values())
        if fewest <= self.num_features and not self._warned:
            self._warned = True  # once, not every validation
            logger.warning(
                "Fréchet distance (%s): %d images for %d features, so the covariance is singular and the value biased; "
                "compare it only with values from equally many images.",
                self.name,
                fewest,
                self.num_features,
            )
        real_mean, real_covariance = self._gaussian("real")
        fake_mean, fake_covariance = self._gaussian("fake")
        self.variety = float(fake_covariance.trace()) / max(float(real_covariance.trace()), 1e-12)
        spread = real_covariance.trace() + fake_covariance.trace() - 2 * _root_trace(real_covariance, fake_covariance)
        # Rounding can leave a little below zero.
        return ((real_mean - fake_mean).square().sum() + spread).clamp_min(0).to(self.orig_dtype)

    def forget_real(self) -> None:
        """Empty both sides, where the real images are to be others from now on."""
        kept, self.reset_real_features = self.reset_real_features, True
        self.reset()
        self.reset_real_features = kept

    def real_state(self) -> dict[str, Tensor]:
        """Statistics of the real images of all ranks; every rank must ask for them."""
        with self.sync_context():
            return {name: getattr(self, name).clone() for name in _MOMENTS}

    def load_real_state(self, state: Mapping[str, Tensor]) -> None:
        """Take statistics of `real_state` for the real side of this rank.

        Args:
            state: of one rank only, since sides are added up over ranks.
        """
        for name in _MOMENTS:
            current = getattr(self, name)
            setattr(self, name, state[name].to(current))
        self._computed = None  # an earlier value is out of date

    def _gaussian(
        self, side: Literal["real", "fake"]
    ) -> tuple[Float64[Tensor, " feature"], Float64[Tensor, "feature feature"]]:
        """Mean and covariance of one side."""
        count = getattr(self, f"{side}_features_num_samples")
        mean = getattr(self, f"{side}_features_sum") / count
        products = getattr(self, f"{side}_features_cov_sum")
        return mean, (products - count * mean.outer(mean)) / (count - 1)


def _root_trace(
    first: Float64[Tensor, "feature feature"], second: Float64[Tensor, "feature feature"]
) -> Float64[Tensor, ""]:
    """Trace of the square root of the product of two covariances.

    The product AB of symmetric matrices has the eigenvalues of the symmetric L'BL, where A = LL'. Unlike the
    eigenvalues of AB itself, which torchmetrics takes, they are real, they come out right where the covariances are
    singular (fewer images than features: an image set is at distance 0 from itself), and GPUs compute them.
    """
    values, vectors = torch.linalg.eigh(first)
    factor = vectors * values.clamp_min(0).sqrt()
    product = factor.T @ second @ factor
    return torch.linalg.eigvalsh(product).clamp_min(0).sqrt().sum()
