"""The codebook (proxies): centroids of generator features, and the proxy masks that they give."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sisug.errors import CodebookError

Normalisation = Literal["standard", "instance", "look-free"]


class Codebook(nn.Module):
    """K centroids of normalised generator features, shared by all samples (paper, Fig. 2; K-means on features, our
    reading).

    All of its state is in buffers, written in place, so that checkpoints hold it and DDP can broadcast it.

    Args:
        clusters: K, at least 2 (the paper's figures show 22 labels in one face).
        channels: channels of the features.
        normalisation: "standard" subtracts each channel's mean over samples and divides by its deviation, which
            clusters by colour where the features hold colour; "instance" does so per sample; "look-free" whitens the
            latter by what changes with the look (`sisug.proxies.look`), which leaves parts that agree between samples
            (our choice, measured).
    """

    centroids: Tensor
    feature_mean: Tensor
    feature_scale: Tensor
    projection: Tensor
    spread: Tensor
    rows_seen: Tensor
    fitted_at: Tensor

    def __init__(self, clusters: int, channels: int, normalisation: Normalisation = "instance") -> None:
        super().__init__()
        if not 2 <= clusters <= 254:
            raise CodebookError(
                f"{clusters} clusters",
                "a proxy mask needs 2 to 254 labels (255 = ignore)",
                "set clusters within that range",
            )
        self.clusters = clusters
        self.normalisation = normalisation
        self.register_buffer("centroids", torch.zeros(clusters, channels))
        self.register_buffer("feature_mean", torch.zeros(channels))
        self.register_buffer("feature_scale", torch.ones(channels))
        self.register_buffer("projection", torch.eye(channels))
        self.register_buffer("spread", torch.ones([]))
        self.register_buffer("rows_seen", torch.zeros(clusters))
        self.register_buffer("fitted_at", torch.full([], -1, dtype=torch.int64))

    @property
    def is_fitted(self) -> bool:
        """Whether centroids were ever set."""
        return int(self.fitted_at) >= 0

    def normalise(
        self, features: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Features as the centroids see them."""
        features = features.float()
        if self.normalisation == "standard":
            return (features - self.feature_mean[:, None, None]) / self.feature_scale[:, None, None]
        mean = features.mean(dim=(2, 3), keepdim=True)
        deviation = features.var(dim=(2, 3), keepdim=True, unbiased=False).add(1e-6).sqrt()
        features = (features - mean) / deviation
        if self.normalisation == "look-free":
            features = torch.einsum("cd,bdhw->bchw", self.projection, features)
        return features

    def rows(self, features: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "pixels channel"]:
        """One row a pixel, as clustering takes them."""
        return self.normalise(features).permute(0, 2, 3, 1).reshape(-1, features.shape[1])

    def distances(
        self, features: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch cluster height width"]:
        """Squared distances of every pixel to every centroid."""
        # Labels must not depend on the precision that a run trains with.
        with torch.autocast(features.device.type, enabled=False):
            x = self.normalise(features)
            products = torch.einsum("bchw,kc->bkhw", x, self.centroids)
            squares = x.square().sum(dim=1, keepdim=True) + self.centroids.square().sum(dim=1)[:, None, None]
            return (squares - 2 * products).clamp_min(0)

    def assign(self, features: Float[Tensor, "batch channel height width"]) -> Int64[Tensor, "batch height width"]:
        """The proxy mask: each pixel's nearest centroid."""
        return self.distances(features).argmin(dim=1)

    def log_probabilities(
        self, features: Float[Tensor, "batch channel height width"], temperature: float
    ) -> Float[Tensor, "batch cluster height width"]:
        """Soft assignment: log softmax of -d^2 / (temperature * spread).

        Args:
            features: generator features.
            temperature: in units of the codebook's mean squared distance, so that it means the same for any features;
                towards 0 the assignment hardens.
        """
        return torch.log_softmax(-self.distances(features) / (temperature * self.spread), dim=1)

    @torch.no_grad()
    def measure(self, mean: Float[Tensor, " channel"], second_moment: Float[Tensor, " channel"]) -> None:
        """Take the channels' mean and mean square over samples, which "standard" alone needs."""
        if self.normalisation == "standard":
            self.feature_mean.copy_(mean)
            self.feature_scale.copy_((second_moment - mean.square()).clamp_min(1e-6).sqrt())

    @torch.no_grad()
    def update(
        self,
        centroids: Float[Tensor, "cluster channel"],
        spread: float,
        rows_seen: Float[Tensor, " cluster"],
        images_seen: int,
    ) -> None:
        """Take new centroids, in place.

        Args:
            centroids: of the same number, in the same order of labels.
            spread: mean squared distance of rows to their centroid.
            rows_seen: rows that each centroid is the mean of, over all clusterings.
            images_seen: when, in images of this run.
        """
        self.centroids.copy_(centroids)
        self.spread.fill_(spread)
        self.rows_seen.copy_(rows_seen)
        self.fitted_at.fill_(images_seen)

    @torch.no_grad()
    def project(self, projection: Float[Tensor, "channel channel"]) -> None:
        """Take the matrix that divides the look out, in place; centroids must be fitted anew after it."""
        self.projection.copy_(projection)
