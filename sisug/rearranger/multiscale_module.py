"""MultiscaleRearrangerModule (stage 1): trains the rearranger inside the generator, without rendering anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from sisug.common.seeding import generator_for
from sisug.errors import ConfigError, check_range
from sisug.generators import Features, GeneratorReference, generator_reference, load_generator
from sisug.proxies.codebook import Normalisation
from sisug.rearranger.base_module import StageOneModule
from sisug.rearranger.losses import stage_style_loss
from sisug.rearranger.multiscale import MultiscaleRearranger, Stage, multiscale_rearranger
from sisug.rearranger.pipeline import SourceSamples
from sisug.rearranger.sample_buffer import SampleBuffer
from sisug.rearranger.segmentation_discriminator import (
    SegmentationDiscriminator,
    balanced_cross_entropy,
    discriminator_loss,
)
from sisug.training.ema import ExponentialMovingAverage
from sisug.types import ProxyMasks

MEASURED = 256
"""Samples of which the scale of styles and features is taken."""


class MultiscaleRearrangerModule(StageOneModule):
    """Trains a `MultiscaleRearranger` on random samples of a frozen generator, without any label.

    Every batch is rearranged partly as itself (self-reconstruction) and mostly as its neighbors. All losses are taken
    at the last stage, on features: nothing is rendered, so that a step costs the same for any size of image.

    Logs, per step: `train/{reconstruction,style,segmentation,adversarial,estimate}` (unweighted) and
    `train/discriminator`; scores as `StageOneModule` says.

    Args:
        generator: preset or file of the frozen generator; or any `GeneratorBackbone`, by its full name, by
            `class_path` and `init_args`, or in Python the object itself.
        split: resolution of the proxy masks and of the cut, pixels; None for the generator's default.
        clusters: number of clusters of the proxy masks, 2 to 254.
        normalisation: what the codebook clusters, see `Codebook`.
        stages: resolutions at which content is rearranged, increasing, `split` at most, pixels.
        coarse_below: styles of layers below this resolution follow the target layout, pixels; None for the last stage.
        widths: channels of the residual blocks, one number per stage, multiples of 8.
        blocks: number of residual blocks in each stage, 0 or more.
        context_widths: channels of the layout's context at the split, at half of it, and so on; multiples of 8.
        key_channels: content channels of queries and keys; 0 moves nothing from the source.
        own_fraction: fraction of a batch that is rearranged as itself, above 0, below 1.
        reconstruction_weight: weight of the feature distance on own masks, 0 or more.
        style_weight: weight of the difference of cluster-wise mean features to the source, 0 or more.
        segmentation_weight: weight of the discriminator's classes, 0 or more.
        adversarial_weight: weight of its logit for the whole, 0 or more.
        estimator_batch: number of samples per step from which the style estimator learns, 1 or more.
        mask_noise: fraction of positions that get a random cluster while the style estimator learns, 0 to below 1.
        buffer_images: number of samples held in memory, each used in several steps, `estimator_batch` or more.
        fresh_fraction: new samples per step, as a fraction of the batch, above 0 to 1.
        learning_rate: step size of the rearranger's optimizer (Adam, betas 0 and 0.99), above 0.
        estimator_learning_rate: step size of the style estimator's (betas 0.9 and 0.99), above 0.
        discriminator_learning_rate: step size of the discriminator's (betas 0 and 0.99), above 0.
        gradient_clip: largest norm of the rearranger's gradient without that of the estimator, above 0.
        ema_half_life_images: half-life of the averaged weights that validation and synthesis use, images.
        truncation: of the samples it learns from; 1 for the generator's full range.
        seed: of buffer, batches and noise.

    Raises:
        ConfigError: an argument is out of range, or the generator cannot be stopped at the stages.
        CheckpointError: the generator cannot be loaded.

    Source: self-reconstruction and agreement with the mask are the paper's; the discriminator is OASIS's on features;
    the rest is our choice.
    """

    def __init__(
        self,
        generator: GeneratorReference = "faces",
        split: int | None = None,
        clusters: int = 96,
        normalisation: Normalisation = "look-free",
        stages: Sequence[int] = (16, 32),
        coarse_below: int | None = None,
        widths: Sequence[int] = (192, 160),
        blocks: int = 2,
        context_widths: Sequence[int] = (48, 96, 128, 160),
        key_channels: int = 64,
        own_fraction: float = 0.125,
        reconstruction_weight: float = 2.0,
        style_weight: float = 1.0,
        segmentation_weight: float = 0.3,
        adversarial_weight: float = 0.2,
        estimator_batch: int = 32,
        mask_noise: float = 0.05,
        buffer_images: int = 512,
        fresh_fraction: float = 0.25,
        learning_rate: float = 1e-3,
        estimator_learning_rate: float = 1e-3,
        discriminator_learning_rate: float = 1e-3,
        gradient_clip: float = 1.0,
        ema_half_life_images: float = 4000.0,
        truncation: float = 0.8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_range(own_fraction=own_fraction, fresh_fraction=fresh_fraction, above=0)
        check_range(learning_rate=learning_rate, discriminator_learning_rate=discriminator_learning_rate, above=0)
        check_range(estimator_learning_rate=estimator_learning_rate, above=0)
        check_range(gradient_clip=gradient_clip, ema_half_life_images=ema_half_life_images, above=0)
        check_range(estimator_batch=estimator_batch, buffer_images=buffer_images, above=0)
        check_range(blocks=blocks, key_channels=key_channels, mask_noise=mask_noise)
        check_range(reconstruction_weight=reconstruction_weight, style_weight=style_weight)
        check_range(segmentation_weight=segmentation_weight, adversarial_weight=adversarial_weight)
        if own_fraction >= 1 or fresh_fraction > 1 or mask_noise >= 1 or buffer_images < estimator_batch:
            raise ConfigError(
                f"own_fraction {own_fraction}, fresh_fraction {fresh_fraction}, mask_noise {mask_noise}, "
                f"buffer_images {buffer_images}, estimator_batch {estimator_batch}",
                "fractions lie between 0 and 1, and the buffer holds at least the estimator's batch",
                "choose numbers within these ranges",
            )
        if any(width % 8 for width in (*widths, *context_widths)):
            raise ConfigError(
                f"widths {tuple(widths)}, context_widths {tuple(context_widths)}",
                "channels are normalised in 8 groups",
                "choose multiples of 8",
            )
        self.save_hyperparameters(ignore=["generator"])
        self.save_hyperparameters({"generator": generator_reference(generator)})  # plain data, as checkpoints hold it
        self.hold(load_generator(generator, split), clusters, normalisation)
        self.rearranger: MultiscaleRearranger = multiscale_rearranger(
            self.generator,
            clusters,
            stages,
            coarse_below,
            widths=widths,
            blocks=blocks,
            context_widths=context_widths,
            key_channels=key_channels,
        )
        self.average = ExponentialMovingAverage(self.rearranger, ema_half_life_images)
        self.discriminator = SegmentationDiscriminator(
            cast(Stage, self.rearranger.steps[-1]).mean.shape[1], clusters, self.rearranger.ratio
        ).to(memory_format=torch.channels_last)
        self.own_fraction = own_fraction
        self.weights = {
            "reconstruction": reconstruction_weight,
            "style": style_weight,
            "segmentation": segmentation_weight,
            "adversarial": adversarial_weight,
            "estimate": 1.0,  # alone reaches the estimator
        }
        self.estimator_batch = estimator_batch
        self.mask_noise = mask_noise
        self.buffer_images = buffer_images
        self.fresh_fraction = fresh_fraction
        self.learning_rate = learning_rate
        self.estimator_learning_rate = estimator_learning_rate
        self.discriminator_learning_rate = discriminator_learning_rate
        self.gradient_clip = gradient_clip
        self.truncation = truncation
        self.seed = seed
        self._buffer: SampleBuffer | None = None
        self._buffer_codebook = -1

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        adversarial = (0.0, 0.99)
        groups = [
            {"params": self._stage_parameters(), "lr": self.learning_rate, "betas": adversarial},
            # It has no adversary: a plain regression, which momentum helps.
            {
                "params": self.rearranger.estimator.parameters(),
                "lr": self.estimator_learning_rate,
                "betas": (0.9, 0.99),
            },
        ]
        rate = self.discriminator_learning_rate
        return [
            torch.optim.Adam(groups),
            torch.optim.Adam(self.discriminator.parameters(), lr=rate, betas=adversarial),
        ]

    def _stage_parameters(self) -> list[nn.Parameter]:
        return [each for name, each in self.rearranger.named_parameters() if not name.startswith("estimator.")]

    def on_train_start(self) -> None:
        super().on_train_start()
        if int(self.images_seen) == 0:
            rng = generator_for(seed=self.seed, rank=0, images_seen=0, purpose="measure")
            z = torch.randn(MEASURED, self.generator.z_dim, generator=rng).to(self.device)
            self.rearranger.measure(self.generator, self.generator.map(z, self.truncation))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        optimizer, discriminator_optimizer = cast(list[LightningOptimizer], self.optimizers())
        rearranger = self.rearranger
        count = len(batch["index"])
        step_images = count * self.trainer.world_size
        step = int(self.images_seen) // step_images
        source, masks, ws = self._samples(count, step)
        own = min(count - 1, max(1, round(self.own_fraction * count)))
        # A neighbor's mask is a random one, as the batch itself is random.
        target = torch.cat([source.mask[:own], source.mask.roll(1, dims=0)[own:]])
        last = cast(Stage, rearranger.steps[-1])
        real = last.normalized(source.features)

        with self.toggled_optimizer(optimizer):
            result = rearranger.at_last_stage(self.generator, source.features, source.mask, target, source.ws)
            fake = last.normalized(Features(result.map.float(), result.rgb.float()))
            losses = self._losses(real, fake, source.mask, target, own)
            losses["estimate"] = rearranger.estimator.loss(masks, ws[:, 0])
            total = torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()
            optimizer.zero_grad()
            self.manual_backward(total)
            nn.utils.clip_grad_norm_(self._stage_parameters(), self.gradient_clip)
            optimizer.step()
        with self.toggled_optimizer(discriminator_optimizer):
            loss = discriminator_loss(
                self.discriminator(real[own:]), source.mask[own:], self.discriminator(fake[own:].detach())
            )
            discriminator_optimizer.zero_grad()
            self.manual_backward(loss)
            discriminator_optimizer.step()
        losses["discriminator"] = loss
        self.images_seen += step_images
        self.average.update(self.rearranger, step_images)
        self.log_dict({f"train/{name}": loss.detach() for name, loss in losses.items()}, batch_size=count)

    def _samples(self, count: int, step: int) -> tuple[SourceSamples, ProxyMasks, Tensor]:
        """The step's samples, with features of the last stage; masks and styles for the estimator."""
        fresh = max(1, round(self.fresh_fraction * count))
        capacity = max(self.buffer_images // fresh, -(-count // fresh)) * fresh
        if self._buffer is None or self._buffer.capacity != capacity or self._buffer.fresh != fresh:
            self._buffer = SampleBuffer(capacity, fresh, self.generator.z_dim, seed=self.seed, rank=self.global_rank)
        if self._buffer_codebook != int(self.codebook.fitted_at):  # clusters have moved
            self._buffer_codebook = int(self.codebook.fitted_at)
            self._buffer.clear()
        self._buffer.draw_until(capacity + step * fresh, self._sample)
        masks, ws = self._buffer.masks_and_styles(min(self.estimator_batch, capacity), step)
        rng = generator_for(seed=self.seed, rank=self.global_rank, images_seen=step, purpose="mask noise")
        changed = torch.rand(masks.shape, generator=rng).to(self.device) < self.mask_noise
        other = torch.randint(self.codebook.clusters, masks.shape, generator=rng).to(self.device)
        return self._buffer.batch(count, step), torch.where(changed, other, masks), ws

    def _sample(self, z: Tensor) -> SourceSamples:
        ws = self.generator.map(z.to(self.device), self.truncation)
        last = self.rearranger.stages[-1]
        features = self.generator.features_at(ws, sorted({last, self.generator.split}))
        return SourceSamples(ws, features[0], self.codebook.assign(features[-1].map))

    def _losses(
        self, real: Tensor, fake: Tensor, mask: ProxyMasks, target: ProxyMasks, own: int
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted losses of the rearranger; the first `own` samples are rearranged as themselves."""
        classes, whole = self.discriminator(fake[own:])
        losses = {
            "segmentation": balanced_cross_entropy(classes, target[own:]),
            "adversarial": F.softplus(-whole).mean(),
        }
        with torch.autocast(self.device.type, enabled=False):
            losses["reconstruction"] = (fake[:own] - real[:own]).abs().mean()
            losses["style"] = stage_style_loss(fake[own:], target[own:], real[own:], mask[own:], self.codebook.clusters)
        return losses
