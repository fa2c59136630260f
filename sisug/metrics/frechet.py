"""Fréchet distance between two sets of images under a named feature extractor: realism (evaluation of both stages)."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from sisug.errors import ConfigError, DataError
from sisug.metrics._frozen import FrozenNetwork
from sisug.metrics._guards import clean_images
from sisug.types import Images

logger = logging.getLogger(__name__)


class FrechetDistance(FrechetInceptionDistance):
    """Fréchet distance of two Gaussians fitted to extractor features of real and of generated images.

    With torch-fidelity's Inception as the extractor it is the FID; with any other one it is not, which is why the
    extractor has a name that belongs into the name of the logged value. Sums are kept in float64 and added over ranks,
    so neither batch size nor order nor the number of ranks matters. The extractor is frozen, in eval, and no part of
    the state_dict.

    Args:
        extractor: images in [-1, 1] (batch, 3, height, width) to features (batch, num_features).
        name: of the extractor, for example "avatars-judge".
        num_features: width of the features; `extractor.num_features` where None.
        keep_real: let the statistics of real images survive `reset()`, so that they are computed once a run (see
            `real_samples`).

    Raises:
        ConfigError: the extractor does not say how wide its features are, or gives others.
        DataError: images that are not finite or not RGB; fewer than 2 images on a side at `compute()`.

    Source: M. Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium"
    (2017), equation 6. Our choice: images are clamped to [-1, 1] first, as saving them would.
    """

    def __init__(
        self, extractor: nn.Module, name: str, *, num_features: int | None = None, keep_real: bool = False
    ) -> None:
        width = getattr(extractor, "num_features", None) if num_features is None else num_features
        if not isinstance(width, int) or width < 1:
            raise ConfigError(
                f"the extractor {name!r} has {width} features",
                "the sizes of the sums must be known before the first image, on every rank",
                "pass num_features=, or give the extractor an integer attribute num_features",
            )
        super().__init__(feature=_Extractor(extractor, name, width), reset_real_features=not keep_real, normalize=True)
        self.name = name
        self.num_features = width
        # Set by the parent's update(); a rank that got no image must compute, too.
        self.orig_dtype = torch.float32
        self._warned = False
        self.variety = float("nan")
        """Set by `compute()`: spread (trace of the covariance) of generated features over that of real ones; 1 when
        generated images are as varied, towards 0 when they are all alike."""

    @property
    def real_samples(self) -> int:
        """Real images seen so far on this rank."""
        return int(self.real_features_num_samples)

    @property
    def generated_samples(self) -> int:
        """Generated images seen so far on this rank."""
        return int(self.fake_features_num_samples)

    def update(self, images: Images, real: bool) -> None:
        """Add images in [-1, 1] to the real or to the generated side."""
        super().update(clean_images(images, "real images" if real else "generated images"), real)

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
        self.variety = self._spread("fake") / max(self._spread("real"), 1e-12)
        # Rounding can leave a little below zero.
        return super().compute().clamp_min(0)

    def forget_real(self) -> None:
        """Empty both sides, where the real images are to be others from now on."""
        kept, self.reset_real_features = self.reset_real_features, True
        self.reset()
        self.reset_real_features = kept

    def _spread(self, side: Literal["real", "fake"]) -> float:
        """Trace of the covariance of one side."""
        count = getattr(self, f"{side}_features_num_samples")
        total, products = getattr(self, f"{side}_features_sum"), getattr(self, f"{side}_features_cov_sum")
        return float((products.diagonal().sum() - total.square().sum() / count) / (count - 1))


class _Extractor(FrozenNetwork):
    def __init__(self, network: nn.Module, name: str, num_features: int) -> None:
        super().__init__(network)
        self.name = name
        self.num_features = num_features  # the parent metric sizes its sums by it

    def forward(self, *inputs: Tensor) -> Tensor:
        features = super().forward(*inputs)
        if features.shape != (len(inputs[0]), self.num_features):
            raise ConfigError(
                f"the extractor {self.name!r} gave features of the shape {tuple(features.shape)}",
                f"(batch, {self.num_features}) was expected",
                "pool feature maps over space, or correct num_features",
            )
        if not bool(features.isfinite().all()):
            raise DataError(
                f"the extractor {self.name!r} gave features with NaN or infinity",
                "its weights are damaged, or the images are of another kind than it was trained on",
                "load the extractor again",
            )
        return features
