"""What the LightningModules of stage 1 share: frozen generator, codebook, averaged weights, scores and checkpoints."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from sisug.errors import CodebookError
from sisug.generators import GeneratorBackbone, generator_record
from sisug.generators.checkpoints import check_checkpoint, generator_may_be_missing, without_generator
from sisug.metrics import ReconstructionPSNR, SegmentationScore, lpips_if_available
from sisug.proxies.codebook import Codebook, Normalisation
from sisug.rearranger.pipeline import RearrangementPipeline
from sisug.rearranger.result import Rearrangement
from sisug.training.ema import ExponentialMovingAverage
from sisug.training.own_classes import OwnClasses
from sisug.types import Latents


class StageOneModule(OwnClasses):
    """A rearranger in training. Subclasses make the networks and write the training step.

    Logs per validation, over fixed pairs with averaged weights: `val/proxy_miou`, `val/proxy_accuracy` (the result's
    own proxy mask against the target, source and target differ), `val/self_psnr` (decibel, images), and the same under
    `test/`.
    """

    generator: GeneratorBackbone
    codebook: Codebook
    rearranger: nn.Module
    discriminator: Any
    average: ExponentialMovingAverage
    images_seen: Tensor
    truncation: float
    learning_rate: float
    discriminator_learning_rate: float

    def hold(self, generator: GeneratorBackbone, clusters: int, normalisation: Normalisation) -> None:
        """Make what does not depend on the networks that are trained.

        Args:
            generator: frozen.
            clusters: number of clusters of the proxy masks.
            normalisation: what the codebook clusters, see `Codebook`.
        """
        self.automatic_optimization = False
        self.register_load_state_dict_post_hook(generator_may_be_missing)  # type: ignore[no-untyped-call]
        self.generator = generator
        self.codebook = Codebook(clusters, generator.feature_channels, normalisation)
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        self.proxy_score = SegmentationScore(clusters)
        self.self_psnr = ReconstructionPSNR()
        self.self_lpips = lpips_if_available()

    @property
    def pipeline(self) -> RearrangementPipeline:
        """Generator, codebook and rearranger as they are now, as one computation."""
        return RearrangementPipeline(self.generator, self.codebook, self.rearranger)

    def setup(self, stage: str) -> None:
        # `requires_grad_()` and Lightning's `unfreeze()` on this module reach every parameter below it directly.
        self.generator.freeze()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        betas = (0.0, 0.99)
        return [
            torch.optim.Adam(self.rearranger.parameters(), lr=self.learning_rate, betas=betas),
            torch.optim.Adam(self.discriminator.parameters(), lr=self.discriminator_learning_rate, betas=betas),
        ]

    @torch.no_grad()
    def rearrange(self, z: Latents, z_target: Latents) -> Rearrangement:
        """Lay samples out as other samples, with the averaged weights.

        Args:
            z: latents of the sources.
            z_target: latents of the targets.

        Raises:
            CodebookError: the codebook was never fitted.
        """
        self.require_codebook()
        pipeline = self.pipeline
        source, target = (pipeline.source(self.generator.map(latents, self.truncation)) for latents in (z, z_target))
        with self.average.average(self.rearranger):
            result = pipeline.rearrange(source, target.mask)
            reconstruction = pipeline.rearrange(source, source.mask)
        return Rearrangement(
            source=pipeline.render(source.features, source.ws),
            target=pipeline.render(target.features, target.ws),
            result=pipeline.render(result, source.ws),
            reconstruction=pipeline.render(reconstruction, source.ws),
            source_mask=source.mask,
            target_mask=target.mask,
            result_mask=self.codebook.assign(result.map),
        )

    def require_codebook(self) -> None:
        """Refuse to go on without centroids.

        Raises:
            CodebookError: with the remedy.
        """
        if not self.codebook.is_fitted:
            raise CodebookError(
                "the codebook has no centroids",
                "it was never fitted: no training ran, and no checkpoint was loaded",
                "give a rearranger's checkpoint by --ckpt_path, or train with the OnlineClustering callback",
            )

    def on_train_start(self) -> None:
        self.require_codebook()

    def validation_step(  # type: ignore[override]  # Lightning passes any type on to the callbacks
        self, batch: dict[str, Tensor], batch_idx: int
    ) -> Rearrangement:
        return self._score(batch)

    def test_step(  # type: ignore[override]  # Lightning passes any type on to the callbacks
        self, batch: dict[str, Tensor], batch_idx: int
    ) -> Rearrangement:
        return self._score(batch)

    def _score(self, batch: dict[str, Tensor]) -> Rearrangement:
        """Update the scores; what comes back reaches the callbacks, which draw and judge."""
        done = self.rearrange(batch["z"], batch["z_target"])
        self.proxy_score.update(done.result_mask, done.target_mask)
        self.self_psnr.update(done.reconstruction, done.source)
        if self.self_lpips is not None:
            self.self_lpips.update(done.reconstruction, done.source)
        return done

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def _log_scores(self, stage: Literal["val", "test"]) -> None:
        score = self.proxy_score.compute()
        values = {"proxy_miou": score.miou, "proxy_accuracy": score.accuracy, "self_psnr": self.self_psnr.compute()}
        if self.self_lpips is not None:
            values["self_lpips"] = self.self_lpips.compute()
            self.self_lpips.reset()
        self.proxy_score.reset()
        self.self_psnr.reset()
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()}, prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the generator's weights out, and name them by their fingerprint."""
        checkpoint["state_dict"] = without_generator(checkpoint["state_dict"])
        checkpoint["generator"] = generator_record(self.generator)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other generator weights, or of another architecture, before anything is copied.

        Raises:
            FingerprintMismatch: it was trained with other generator weights.
            CheckpointError: it is no rearranger checkpoint, or tensors are missing or left over.
        """
        check_checkpoint(checkpoint, self, self.generator, holds="rearranger")
