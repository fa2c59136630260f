"""GeneratorModule (before stage 1): trains a StyleGAN2 on images, for those who have photos and no checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int64
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from sisug.common.provenance import command_line, git_commit
from sisug.common.seeding import fixed_latents, seed_for
from sisug.common.state_dicts import differences, listed
from sisug.errors import CheckpointError, ConfigError, RunError, check_range
from sisug.generators.adaptive import AdaptiveAugmentation
from sisug.generators.discriminator import Discriminator
from sisug.generators.loading import load_discriminator, load_network
from sisug.generators.losses import (
    discriminator_adversarial_loss,
    generator_adversarial_loss,
    path_lengths,
    r1_penalty,
)
from sisug.generators.native import untraced_settings
from sisug.generators.stylegan2 import Generator
from sisug.training.ema import ExponentialMovingAverage
from sisug.types import Images, Styles


class GeneratorModule(LightningModule):
    """Trains StyleGAN2's generator and discriminator from images in [-1, 1].

    Both players learn from the same samples of a step (our choice: saves one pass of the generator in four). Validation
    and export use averaged weights.

    Logs, per step: `train/{generator,discriminator}` (losses), `train/{r1,path_length}` when they are taken,
    `train/real_sign` (mean sign of the logits on real images: near 1 the discriminator knows them by heart) and
    `train/augment` (probability of each augmentation).

    Args:
        resolution: height and width of images, a power of 2 from 8, pixels.
        channel_base: channels of a block are this divided by its resolution,
        channel_max: and at most this.
        z_dim: size of the latents.
        w_dim: size of the styles.
        mapping_layers: fully connected layers from z to w.
        init: generator file or preset to start from, with its discriminator where it has one; its sizes then replace
            those above, but for the resolution. None starts from random weights.
        learning_rate: of both networks (Adam, betas 0 and 0.99).
        decay_after: images after which the learning rate falls with the root of the images seen; None for never. It
            needs no length of the run, so a run can always go on (EDM2, equation 67).
        style_mixing: share of samples whose coarse and fine layers have styles of two latents (StyleGAN, section 3.1).
        r1_gamma: weight of the gradient penalty on real images. Raise it where the discriminator wins (its loss stays
            below 0.3, where 1.4 is a draw) or samples lose variety; in proportion to the pixels of an image
            (StyleGAN2-ADA, appendix C).
        r1_every: steps between gradient penalties, which are weighted accordingly (lazy regularisation, StyleGAN2
            section 3.1).
        path_length_weight: of the path-length regularisation, which makes equal steps in w equal in the image, and
            inversion easier; 0 for none, 2 in StyleGAN2. It costs about a tenth of the speed.
        path_length_every: steps between path-length penalties.
        augment: what the discriminator sees: "none", or "adaptive" for images distorted as much as it takes to keep
            it from knowing a small set by heart (StyleGAN2-ADA).
        augment_target: mean sign of the logits on real images that adaptive augmentation aims at.
        augment_ramp_images: images in which its probability can go from 0 to 1.
        ema_half_life_images: of the averaged weights; at most a twentieth of the images seen.
        seed: of all draws.

    Raises:
        ConfigError: an argument is out of range.
        CheckpointError: `init` cannot be loaded.

    Source: StyleGAN2 (arXiv 1912.04958) and StyleGAN2-ADA (arXiv 2006.06676).
    """

    images_seen: Tensor
    path_length_mean: Tensor

    def __init__(
        self,
        resolution: int = 64,
        channel_base: int = 16384,
        channel_max: int = 512,
        z_dim: int = 512,
        w_dim: int = 512,
        mapping_layers: int = 8,
        init: str | None = None,
        learning_rate: float = 2e-3,
        decay_after: float | None = None,
        style_mixing: float = 0.9,
        r1_gamma: float = 1.0,
        r1_every: int = 16,
        path_length_weight: float = 0.0,
        path_length_every: int = 4,
        augment: Literal["none", "adaptive"] = "none",
        augment_target: float = 0.6,
        augment_ramp_images: int = 500_000,
        ema_half_life_images: float = 10_000.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if resolution < 8 or resolution & (resolution - 1):
            raise ConfigError(
                f"resolution {resolution}", "blocks double the size from 4 px", "choose 8, 16, 32, 64, ... pixels"
            )
        check_range(channel_base=channel_base, channel_max=channel_max, z_dim=z_dim, w_dim=w_dim, above=0)
        check_range(mapping_layers=mapping_layers, r1_every=r1_every, path_length_every=path_length_every, above=0)
        check_range(augment_ramp_images=augment_ramp_images, ema_half_life_images=ema_half_life_images, above=0)
        check_range(learning_rate=learning_rate, r1_gamma=r1_gamma, path_length_weight=path_length_weight)
        if decay_after is not None:
            check_range(decay_after=decay_after, above=0)
        if not 0 <= style_mixing <= 1:
            raise ConfigError(
                f"style_mixing {style_mixing}", "it is a share of the samples", "choose a value in [0, 1]"
            )
        self.save_hyperparameters()
        self.automatic_optimization = False
        discriminator: Discriminator | None = None
        if init is None:
            sizes = [2**i for i in range(2, resolution.bit_length())]
            channels = {size: max(1, min(channel_base // size, channel_max)) for size in sizes}
            generator = Generator(z_dim, w_dim, channels, mapping_layers=mapping_layers)
        else:
            generator, discriminator = load_network(init), load_discriminator(init)
            if generator.resolution != resolution:
                raise ConfigError(
                    f"{init} makes images of {generator.resolution} px, and this run has {resolution} px",
                    "a generator's blocks are those of its resolution",
                    f"prepare the images at {generator.resolution} px (data.init_args.resolution)",
                )
        if discriminator is None:
            discriminator = Discriminator(generator.channels)
        # In channels_last, convolutions on CPUs take half the time.
        self.generator = generator.to(memory_format=torch.channels_last)
        self.discriminator = discriminator.to(memory_format=torch.channels_last)
        self.average = ExponentialMovingAverage(self.generator, ema_half_life_images)
        self.augmentation = (
            AdaptiveAugmentation(target=augment_target, ramp_images=augment_ramp_images)
            if augment == "adaptive"
            else None
        )
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("path_length_mean", torch.zeros(()))

        self.resolution = resolution
        self.learning_rate = learning_rate
        self.decay_after = decay_after
        self.style_mixing = style_mixing
        self.r1_gamma = r1_gamma
        self.r1_every = r1_every
        self.path_length_weight = path_length_weight
        self.path_length_every = path_length_every
        self.ema_half_life_images = ema_half_life_images
        self.seed = seed

    def setup(self, stage: str) -> None:
        """Refuse images of another size before anything is trained.

        Args:
            stage: fit, validate or test.

        Raises:
            ConfigError: the data module gives another resolution.
        """
        found = getattr(self.trainer.datamodule, "resolution", self.resolution)  # type: ignore[attr-defined]
        if found != self.resolution:
            raise ConfigError(
                f"the generator makes images of {self.resolution} px, the data has {found} px",
                "the discriminator compares images of one size",
                f"set data.init_args.resolution to {self.resolution}",
            )

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        # Lazy regularisation takes one step in so many more: rates and betas shrink to match (StyleGAN2, appendix B).
        every = {
            self.generator: self.path_length_every if self.path_length_weight > 0 else None,
            self.discriminator: self.r1_every if self.r1_gamma > 0 else None,
        }
        optimizers: list[torch.optim.Optimizer] = []
        for network, steps in every.items():
            share = steps / (steps + 1) if steps else 1.0
            group = {"params": list(network.parameters()), "share": share}
            adam = torch.optim.Adam([group], lr=self.learning_rate * share, betas=(0.0, 0.99**share), fused=True)
            optimizers.append(adam)
        return optimizers

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        seen = int(self.images_seen)
        # All draws of a step come from its position in the run, so that a resumed run equals an unbroken one.
        torch.manual_seed(seed_for(seed=self.seed, rank=self.global_rank, images_seen=seen, purpose="training step"))
        optimizer, discriminator_optimizer = cast(list[LightningOptimizer], self.optimizers())
        self._set_learning_rate(seen)
        real = batch["image"].contiguous(memory_format=torch.channels_last)
        step_images = len(real) * self.trainer.world_size
        step = seen // step_images

        with self.toggled_optimizer(optimizer):
            ws = self._styles(len(real), step_images)
            images = self.generator.synthesis(ws, "random")
            loss = generator_adversarial_loss(self._judge(images))
            logged = {"generator": loss.detach()}
            if self.path_length_weight > 0 and step % self.path_length_every == 0:
                penalty, logged["path_length"] = self._path_length_penalty(ws)
                loss = loss + penalty * (self.path_length_weight * self.path_length_every)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        penalise = self.r1_gamma > 0 and step % self.r1_every == 0
        logged |= self._train_discriminator(discriminator_optimizer, real, images.detach(), penalise)

        if self.augmentation is not None:
            self.augmentation.adapt(step_images)
            logged["augment"] = self.augmentation.probability
        self.images_seen += step_images
        self.average.update(self.generator, step_images)
        self.log_dict({f"train/{name}": value for name, value in logged.items()}, batch_size=len(real))

    def _train_discriminator(
        self, optimizer: LightningOptimizer, real: Images, fake: Images, penalise: bool
    ) -> dict[str, Float[Tensor, ""]]:
        """One step of the discriminator: real images against the samples that the generator has just learnt from."""
        with self.toggled_optimizer(optimizer):
            real_logits = self._judge(real)
            loss = discriminator_adversarial_loss(real_logits, self._judge(fake))
            logged = {"discriminator": loss.detach(), "real_sign": real_logits.detach().sign().mean()}
            if self.augmentation is not None:
                self.augmentation.observe(real_logits.detach())
            if penalise:
                penalty = r1_penalty(self._judge, real)
                logged["r1"] = penalty.detach()
                loss = loss + penalty * (self.r1_gamma / 2 * self.r1_every)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return logged

    def _judge(self, images: Images) -> Float[Tensor, "batch 1"]:
        """The discriminator's logits, on augmented images where there is augmentation."""
        if self.augmentation is not None:
            images = self.augmentation(images)
        logits: Tensor = self.discriminator(images)
        return logits.float()

    def _styles(self, count: int, step_images: int) -> Styles:
        """Styles of random latents, mixed; moves the mean style along."""
        mapping = self.generator.mapping
        ws = mapping(torch.randn(count, self.generator.z_dim, device=self.device))
        with torch.no_grad():
            mean = self._over_ranks(ws[:, 0].float().mean(dim=0))
            # Not longer than the weights' own average, so that it belongs to them.
            half_life = min(self.ema_half_life_images, max(1.0, 0.05 * int(self.images_seen)))
            mapping.w_avg.lerp_(mean, 1 - 0.5 ** (step_images / half_life))
        if self.style_mixing == 0:
            return ws
        layers = ws.shape[1]
        other = mapping(torch.randn(count, self.generator.z_dim, device=self.device))
        first = torch.randint(1, layers, (count, 1), device=self.device)
        mixed = torch.rand(count, 1, device=self.device) < self.style_mixing
        from_other = mixed & (torch.arange(layers, device=self.device) >= first)
        return torch.where(from_other[..., None], other, ws)

    def _path_length_penalty(self, ws: Styles) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Squared distance of path lengths to their running mean, over half a batch, and their mean; in float32, as
        gradients of gradients are small.
        """
        with torch.autocast(self.device.type, enabled=False):
            part = ws[: max(1, len(ws) // 2)].float()
            lengths = path_lengths(self.generator.synthesis(part, "random"), part)
            mean = self._over_ranks(lengths.detach().mean())
            self.path_length_mean.lerp_(mean, 0.01)
            return (lengths - self.path_length_mean).square().mean(), mean

    def _over_ranks(self, value: Tensor) -> Tensor:
        """Mean over the processes, so that running means are equal in all."""
        if self.trainer.world_size == 1:
            return value
        gathered = self.all_gather(value)
        assert isinstance(gathered, Tensor)
        return gathered.mean(dim=0)

    def _set_learning_rate(self, seen: int) -> None:
        decay = 1.0 if self.decay_after is None else min(1.0, (self.decay_after / max(seen, 1)) ** 0.5)
        for optimizer in cast(list[LightningOptimizer], self.optimizers()):
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * decay * group["share"]

    @torch.no_grad()
    def sample(self, index: Int64[Tensor, " batch"], purpose: str = "samples", truncation: float = 1.0) -> Images:
        """Samples with the averaged weights and constant noise, clamped to [-1, 1].

        Args:
            index: numbers of the samples; each number is the same latent all through the run.
            purpose: which set of samples; sets are independent.
            truncation: 1 for the full range.
        """
        z = fixed_latents(index, self.generator.z_dim, seed=self.seed, purpose=purpose)
        with self.average.average(self.generator):
            images: Tensor = self.generator(z, truncation, "const")
        return images.float().clamp(-1, 1)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Callbacks compare samples to the real images of the batch."""

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Callbacks compare samples to the real images of the batch."""

    def on_train_epoch_end(self) -> None:
        """Stop before a checkpoint of numbers that are none would replace a good one.

        Raises:
            RunError: a weight is not finite.
        """
        for name, parameter in self.named_parameters():
            if not bool(parameter.isfinite().all()):
                raise RunError(
                    f"the weights of {name} are not finite after {int(self.images_seen):,} images",
                    "training diverged",
                    "continue from the last checkpoint with a lower model.init_args.learning_rate or a higher r1_gamma",
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add where the weights come from, for the sidecar of the exported file."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        checkpoint["provenance"] = {
            "command": command_line(),
            "data": getattr(data, "description", None) or {"class": type(data).__name__},
            "images_seen": int(self.images_seen),
            "commit": git_commit(),
        }
        checkpoint["generator_settings"] = untraced_settings(self.generator)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another kind or size, before anything is copied.

        Raises:
            CheckpointError: says what differs.
        """
        found: Mapping[str, Tensor] = checkpoint["state_dict"]
        problems = differences(self.state_dict(), found, side="this run")
        if problems:
            raise CheckpointError(
                "the checkpoint has other networks than this run",
                listed(problems),
                "give the settings it was trained with (config.yaml beside it holds them), and a checkpoint that "
                "`sisug fit` wrote with GeneratorModule",
            )
