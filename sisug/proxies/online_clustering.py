"""The online-clustering callback (proxies): fits the codebook before training and refreshes it while the rearranger
learns.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from sisug.common.seeding import generator_for, seed_for
from sisug.errors import CodebookError, ConfigError
from sisug.generators import GeneratorBackbone
from sisug.proxies.codebook import Codebook
from sisug.proxies.kmeans import Backend, KMeansFit, fit_kmeans
from sisug.proxies.look import look_free_projection, mixed_styles, mixing_covariance, part_covariance

logger = logging.getLogger(__name__)

_SAMPLES_AT_ONCE = 16
"""Images whose features are computed together."""

_VARIANTS = 4
"""Samples that share their coarse styles, when the covariance under style mixing is taken."""

_ROUNDS = 3
"""Turns between clusters and the projection that divides the look out."""


@runtime_checkable
class ClusteredModule(Protocol):
    """What the callback needs of a LightningModule."""

    generator: GeneratorBackbone
    codebook: Codebook
    images_seen: Tensor


@dataclass(frozen=True)
class Refresh:
    """What one clustering did, as it is logged under `codebook/`.

    Args:
        inertia: mean squared distance of a row to its centroid.
        empty: clusters that no row chose.
        smallest: share of rows in the smallest cluster.
        largest: share of rows in the largest cluster.
        drift: mean distance that a centroid moved, in units of the root of the inertia; 0 at the first fit.
        relabelled: share of pixels whose label changed; 0 at the first fit.
        seconds: time of sampling, gathering and clustering.
    """

    inertia: float
    empty: float
    smallest: float
    largest: float
    drift: float
    relabelled: float
    seconds: float


class OnlineClustering(Callback):
    """Fits and refreshes a module's codebook from fresh random samples.

    All ranks sample, rank 0 clusters the rows of all, every rank receives the result: with manual optimization DDP
    never sends buffers again, so the callback does. A refresh starts from the present centroids, which keeps the
    labels' identity, and averages the new centroids with the old ones by the rows that each has seen, so that the
    codebook settles. All state lies in the module's buffers.

    Args:
        sample_images: random samples a clustering, over all ranks.
        rows_per_image: feature vectors drawn from each; all of them where it has fewer.
        refresh_every: images of training between refreshes; 0 never refreshes.
        freeze_after: images of training from which the codebook stays as it is; the mapper of stage 2 relies on a fixed
            one.
        iterations: k-means iterations of the first fit; refreshes take a quarter of them, as they start from a
            solution.
        restarts: first fits from different starts, of which the best is kept.
        backend: k-means implementation; "auto" takes faiss on a GPU where both are there, else faiss on the CPU.
        seed: of samples and k-means.

    Raises:
        ConfigError: a count that is not positive.

    Source: "clustering the generator's features" (paper, abstract); schedule and averaging are our choice.
    """

    def __init__(
        self,
        sample_images: int = 512,
        rows_per_image: int = 256,
        refresh_every: int = 4096,
        freeze_after: int = 16384,
        iterations: int = 40,
        restarts: int = 3,
        backend: Backend = "auto",
        seed: int = 0,
    ) -> None:
        if min(sample_images, rows_per_image, iterations, restarts) < 1 or min(refresh_every, freeze_after) < 0:
            raise ConfigError(
                f"sample_images {sample_images}, rows_per_image {rows_per_image}, iterations {iterations}, "
                f"restarts {restarts}, "
                f"refresh_every {refresh_every}, freeze_after {freeze_after}",
                "the first four must be at least 1, the last two at least 0",
                "correct the callback's arguments",
            )
        self.sample_images = sample_images
        self.rows_per_image = rows_per_image
        self.refresh_every = refresh_every
        self.freeze_after = freeze_after
        self.iterations = iterations
        self.restarts = restarts
        self.backend: Backend = backend
        self.seed = seed
        self._unlogged: Refresh | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit once, before the first validation; a checkpoint that brings a codebook keeps it."""
        module = cast(ClusteredModule, pl_module)
        if not module.codebook.is_fitted:
            self._unlogged = self.cluster(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Refresh where the schedule says so."""
        module = cast(ClusteredModule, pl_module)
        if self.is_due(int(module.images_seen), int(module.codebook.fitted_at)):
            self._unlogged = self.cluster(trainer, pl_module)
        if self._unlogged is not None:
            values = {f"codebook/{name}": value for name, value in vars(self._unlogged).items()}
            pl_module.log_dict(values, rank_zero_only=True, batch_size=1)
            self._unlogged = None

    def is_due(self, images_seen: int, fitted_at: int) -> bool:
        """Whether a multiple of `refresh_every` was passed since the last clustering, and the codebook is not frozen
        yet.
        """
        if self.refresh_every == 0 or images_seen >= self.freeze_after:
            return False
        return images_seen // self.refresh_every > fitted_at // self.refresh_every

    @torch.no_grad()
    def cluster(self, trainer: Trainer, pl_module: LightningModule) -> Refresh:
        """Sample, gather, cluster on rank 0, broadcast; the module's codebook is updated in place.

        Raises:
            CodebookError: too few rows for the clusters, features that are not finite, or a backend that is not
                installed; on every rank.
        """
        module = cast(ClusteredModule, pl_module)
        codebook, seen = module.codebook, int(module.images_seen)
        began = time.perf_counter()
        features, rows = self._sample(trainer, pl_module)
        gathered = cast(Tensor, pl_module.all_gather(rows)).reshape(-1, *rows.shape[1:])
        mixing = self._mixing(trainer, pl_module)
        outcome: tuple[KMeansFit | None, Tensor | None, CodebookError | None] = (None, None, None)
        if trainer.is_global_zero:
            try:
                outcome = (*self._fit(gathered, mixing, codebook, seen), None)
            except CodebookError as error:
                outcome = (None, None, error)
        # An error travels too: a rank that raised alone would leave the others waiting for ever.
        fit, projection, failure = trainer.strategy.broadcast(outcome, src=0)
        if failure is not None:
            raise failure
        assert fit is not None
        if projection is not None:
            codebook.project(projection.to(codebook.projection))
        refresh = apply_fit(codebook, fit, features, images_seen=seen, seconds=time.perf_counter() - began)
        if trainer.is_global_zero:
            logger.info("codebook after %d images: %s", seen, refresh)
            if refresh.empty:
                logger.warning(
                    "%d of %d clusters are empty: no proxy mask shows their labels; fewer clusters may suffice",
                    int(refresh.empty),
                    codebook.clusters,
                )
        return refresh

    def _sample(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> tuple[Float[Tensor, "some channel height width"], Float[Tensor, "batch position channel"]]:
        """Features of some fresh samples of this rank, and rows drawn from all of them as the codebook sees them."""
        module = cast(ClusteredModule, pl_module)
        generator, codebook = module.generator, module.codebook
        count = max(1, math.ceil(self.sample_images / trainer.world_size))
        stream = self._stream(trainer, module, "clustering")
        z = torch.randn(count, generator.z_dim, generator=stream).to(pl_module.device)
        positions = generator.split**2
        kept = min(self.rows_per_image, positions)
        picks = torch.rand(count, positions, generator=stream).argsort(dim=1)[:, :kept].to(pl_module.device)
        # A few samples at a time: all features of some hundred are gigabytes at a split of 64.
        first: Tensor | None = None
        rows, moments = [], []
        for part, chosen in zip(
            torch.split(generator.map(z), _SAMPLES_AT_ONCE), torch.split(picks, _SAMPLES_AT_ONCE), strict=True
        ):
            features = generator.features(part).map
            first = features if first is None else first
            flat = features.permute(0, 2, 3, 1).flatten(1, 2)
            moments.append(torch.stack([flat.mean(dim=1), flat.square().mean(dim=1)]).sum(dim=1))
            if codebook.normalisation != "standard" or codebook.is_fitted:
                flat = codebook.rows(features).reshape(len(features), positions, -1)
            rows.append(flat.gather(1, chosen[:, :, None].expand(-1, -1, flat.shape[2])))
        drawn = torch.cat(rows)
        if not codebook.is_fitted:
            moment = torch.stack(moments).sum(dim=0) / count
            moment = cast(Tensor, pl_module.all_gather(moment)).reshape(-1, *moment.shape).mean(dim=0)
            codebook.measure(moment[0], moment[1])
            if codebook.normalisation == "standard":  # its scale was not known before
                drawn = (drawn - codebook.feature_mean) / codebook.feature_scale
        assert first is not None
        return first, drawn

    def _mixing(self, trainer: Trainer, pl_module: LightningModule) -> Float[Tensor, "channel channel"] | None:
        """Covariance under style mixing over all ranks, where the codebook still needs its projection and styles are
        layered.
        """
        module = cast(ClusteredModule, pl_module)
        generator, codebook = module.generator, module.codebook
        if not needs_projection(codebook):
            return None
        if not generator.layered_styles:
            if trainer.is_global_zero:
                logger.warning(
                    "The generator %s has no layered styles: features are whitened by how parts differ between samples "
                    "alone, without style mixing",
                    generator.source,
                )
            return None
        groups = max(1, math.ceil(self.sample_images / (2 * _VARIANTS * trainer.world_size)))
        stream = self._stream(trainer, module, "style mixing")
        z = torch.randn(groups, generator.z_dim, generator=stream).to(pl_module.device)
        parts = torch.split(mixed_styles(generator, z, _VARIANTS, stream), _SAMPLES_AT_ONCE // _VARIANTS * _VARIANTS)
        covariances = [
            mixing_covariance(codebook.normalise(generator.features(part).map), _VARIANTS) * len(part) for part in parts
        ]
        covariance = torch.stack(covariances).sum(dim=0) / (groups * _VARIANTS)
        return cast(Tensor, pl_module.all_gather(covariance)).reshape(-1, *covariance.shape).mean(dim=0)

    def _stream(self, trainer: Trainer, module: ClusteredModule, purpose: str) -> torch.Generator:
        seen = int(module.images_seen)
        return generator_for(seed=self.seed, rank=trainer.global_rank, images_seen=seen, purpose=purpose)

    def _fit(
        self,
        rows: Float[Tensor, "image cell channel"],
        mixing: Float[Tensor, "channel channel"] | None,
        codebook: Codebook,
        images_seen: int,
    ) -> tuple[KMeansFit, Float[Tensor, "channel channel"] | None]:
        """k-means on rank 0: from nothing the first time, then from the present centroids; and the projection, if it is
        due.
        """
        seed = seed_for(seed=self.seed, rank=0, images_seen=images_seen, purpose="k-means") % 2**31
        clusters = codebook.clusters
        if codebook.is_fitted:
            iterations = max(1, self.iterations // 4)
            start = codebook.centroids
            return fit_kmeans(
                rows.flatten(0, 1), clusters, seed=seed, initial=start, iterations=iterations, backend=self.backend
            ), None
        projection = None
        if needs_projection(codebook):
            projection = codebook.projection if mixing is None else look_free_projection(mixing)
            for _ in range(_ROUNDS):
                # Parts are known once there are clusters, and clusters are parts once the look is out: in turns.
                projected = rows @ projection
                rough = fit_kmeans(
                    projected.flatten(0, 1),
                    clusters,
                    seed=seed,
                    iterations=self.iterations // 4 + 1,
                    backend=self.backend,
                )
                labels = torch.cdist(projected, rough.centroids).argmin(dim=2)
                projection = look_free_projection(mixing, part_covariance(rows, labels, clusters))
            rows = rows @ projection
        fit = fit_kmeans(
            rows.flatten(0, 1),
            clusters,
            seed=seed,
            iterations=self.iterations,
            restarts=self.restarts,
            backend=self.backend,
        )
        return fit, projection


def needs_projection(codebook: Codebook) -> bool:
    """Whether the look is still to be divided out of what the codebook clusters."""
    return codebook.normalisation == "look-free" and not codebook.is_fitted


def apply_fit(
    codebook: Codebook,
    fit: KMeansFit,
    features: Float[Tensor, "batch channel height width"],
    *,
    images_seen: int,
    seconds: float,
) -> Refresh:
    """Take a clustering into the codebook, averaged with what earlier ones saw, and measure what it changed.

    Args:
        codebook: updated in place.
        fit: k-means result; warm fits keep the order of labels.
        features: samples on which the change of labels is counted.
        images_seen: when, in images of this run.
        seconds: for the log.
    """
    shares = fit.sizes / fit.sizes.sum()
    drift, relabelled = 0.0, 0.0
    sizes = fit.sizes.to(codebook.rows_seen)
    if codebook.is_fitted:
        before = codebook.assign(features)
        weight = (sizes / (codebook.rows_seen + sizes).clamp_min(1))[:, None]
        # A cluster that no row chose keeps its place.
        centroids = torch.lerp(codebook.centroids, fit.centroids.to(codebook.centroids), weight)
        moved = (centroids - codebook.centroids).square().sum(dim=1).sqrt().mean()
        drift = float(moved / math.sqrt(max(fit.inertia, 1e-12)))
        codebook.update(centroids, fit.inertia, codebook.rows_seen + sizes, images_seen)
        relabelled = float((codebook.assign(features) != before).float().mean())
    else:
        codebook.update(fit.centroids, fit.inertia, sizes, images_seen)
    return Refresh(
        inertia=fit.inertia,
        empty=float(fit.empty),
        smallest=float(shares.min()),
        largest=float(shares.max()),
        drift=drift,
        relabelled=relabelled,
        seconds=seconds,
    )
