"""RearrangerModule (stage 1): wires frozen generator, codebook, rearranger and discriminator into one training step."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from sisug.common.seeding import generator_for
from sisug.errors import ConfigError, check_range
from sisug.generators import Features, GeneratorReference, generator_reference, load_generator
from sisug.generators.losses import discriminator_adversarial_loss, generator_adversarial_loss, r1_penalty
from sisug.proxies.codebook import Normalisation
from sisug.rearranger.base_module import StageOneModule
from sisug.rearranger.discriminator import MaskedDiscriminator
from sisug.rearranger.losses import (
    look_of,
    mask_loss,
    perceptual_loss,
    reconstruction_loss,
    style_loss,
)
from sisug.rearranger.network import Rearranger
from sisug.rearranger.pipeline import SourceSamples
from sisug.rearranger.warping import random_warp
from sisug.training.ema import ExponentialMovingAverage
from sisug.types import Images, ProxyMasks


class RearrangerModule(StageOneModule):
    """Trains the rearranger on random samples of a frozen generator, without any label.

    Every batch is laid out partly as itself (self-reconstruction) and partly as its neighbours (mask, style and
    adversarial terms). The discriminator tells plain samples from rearranged ones. The generator's weights stay out of
    checkpoints, its fingerprint is in them.

    Logs, per step: `train/{reconstruction,image,perceptual,mask,style,adversarial}` (unweighted),
    `train/{rearranger,discriminator,r1}`. Per validation, over fixed pairs with averaged weights: `val/proxy_miou`,
    `val/proxy_accuracy` (result's own proxy mask against the target, source and target differ), `val/self_psnr`
    (decibel, images), and the same under `test/`.

    Args:
        generator: preset or file of the frozen generator; or any `GeneratorBackbone`, by its full name, by
            `class_path` and `init_args`, or in Python the object itself.
        split: resolution of the cut, pixels; None for the generator's default.
        clusters: K, labels of the proxy masks.
        normalisation: what the codebook clusters, see `Codebook`.
        width: channels of the mask encoder and the refinement.
        heads: attention maps.
        key_channels: content channels of queries and keys.
        bands: wavelengths of the position code.
        refinement: residual blocks after the attention; 0 for pure attention.
        mask_discriminator: the discriminator also sees the layout that an image should have.
        own_share: share of a batch that is laid out as itself.
        warped_share: share of a batch that is laid out as itself from a warped source, see `random_warp`.
        reconstruction_weight: of the feature distance on own masks.
        image_weight: of the image distance on own masks.
        perceptual_weight: of the distance between discriminator features on own masks.
        mask_weight: of the cross-entropy to the target mask.
        style_weight: of the difference of part-wise mean features and colours to the source.
        adversarial_weight: of the non-saturating loss; 0 trains no discriminator.
        mask_temperature: of the soft assignment, in units of the codebook's spread.
        r1_gamma: weight of the gradient penalty on plain samples.
        r1_every: steps between gradient penalties, which are weighted accordingly (lazy regularisation, StyleGAN2
            section 3.1).
        learning_rate: of the rearranger (Adam, betas 0 and 0.99).
        discriminator_learning_rate: of the discriminator (the same betas).
        gradient_clip: largest norm of the rearranger's gradient.
        ema_half_life_images: of the averaged weights that validation and synthesis use.
        truncation: of the samples it learns from; 1 for the generator's full range.
        seed: of the warps.

    Raises:
        ConfigError: an argument is out of range.
        CheckpointError: the generator cannot be loaded.

    Source: self-reconstruction and mask agreement are the paper's, in forms of our choice; the rest is our choice.
    """

    def __init__(
        self,
        generator: GeneratorReference = "avatars",
        split: int | None = None,
        clusters: int = 40,
        normalisation: Normalisation = "look-free",
        width: int = 64,
        heads: int = 1,
        key_channels: int = 64,
        bands: int = 6,
        refinement: int = 2,
        mask_discriminator: bool = False,
        own_share: float = 0.25,
        warped_share: float = 0.25,
        reconstruction_weight: float = 1.0,
        image_weight: float = 1.0,
        perceptual_weight: float = 0.0,
        mask_weight: float = 0.5,
        style_weight: float = 2.0,
        adversarial_weight: float = 0.3,
        mask_temperature: float = 0.2,
        r1_gamma: float = 1.0,
        r1_every: int = 16,
        learning_rate: float = 2e-3,
        discriminator_learning_rate: float = 2e-3,
        gradient_clip: float = 1.0,
        ema_half_life_images: float = 2000.0,
        truncation: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not (own_share > 0 and warped_share >= 0 and own_share + warped_share < 1):
            raise ConfigError(
                f"own_share {own_share}, warped_share {warped_share}",
                "a batch needs samples that are laid out as themselves and samples that are not",
                "choose shares whose sum is below 1, such as 0.25 and 0.25",
            )
        check_range(width=width, heads=heads, key_channels=key_channels, bands=bands, above=0)
        check_range(mask_temperature=mask_temperature, r1_every=r1_every, gradient_clip=gradient_clip, above=0)
        check_range(ema_half_life_images=ema_half_life_images, above=0)
        check_range(refinement=refinement, reconstruction_weight=reconstruction_weight, image_weight=image_weight)
        check_range(perceptual_weight=perceptual_weight, mask_weight=mask_weight, style_weight=style_weight)
        check_range(adversarial_weight=adversarial_weight, r1_gamma=r1_gamma, learning_rate=learning_rate)
        check_range(discriminator_learning_rate=discriminator_learning_rate)
        if width % 8:
            raise ConfigError(f"width {width}", "channels are normalised in 8 groups", "choose a multiple of 8")
        self.save_hyperparameters(ignore=["generator"])
        self.save_hyperparameters({"generator": generator_reference(generator)})  # plain data, as checkpoints hold it
        self.hold(load_generator(generator, split), clusters, normalisation)
        self.rearranger = Rearranger(
            self.generator.feature_channels,
            clusters,
            self.generator.split,
            width=width,
            heads=heads,
            key_channels=key_channels,
            bands=bands,
            refinement=refinement,
        ).to(memory_format=torch.channels_last)
        self.average = ExponentialMovingAverage(self.rearranger, ema_half_life_images)
        self.discriminator = MaskedDiscriminator(
            self.generator.channels, clusters if mask_discriminator else 0, self.generator.discriminator()
        ).to(memory_format=torch.channels_last)

        self.truncation = truncation
        self.own_share = own_share
        self.warped_share = warped_share
        self.seed = seed
        self.weights = {
            "reconstruction": reconstruction_weight,
            "image": image_weight,
            "perceptual": perceptual_weight,
            "mask": mask_weight,
            "style": style_weight,
            "adversarial": adversarial_weight,
        }
        self.mask_temperature = mask_temperature
        self.r1_gamma = r1_gamma
        self.r1_every = r1_every
        self.learning_rate = learning_rate
        self.discriminator_learning_rate = discriminator_learning_rate
        self.gradient_clip = gradient_clip

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        optimizer, discriminator_optimizer = cast(list[LightningOptimizer], self.optimizers())
        ws = self.generator.map(batch["z"], self.truncation)
        with torch.no_grad():
            source = self.pipeline.source(ws)
            features, mask = source.features, source.mask
            plain = self.pipeline.render(features, ws, clamp=False)
        count = len(mask)
        exact = min(count - 1, max(1, round(self.own_share * count)))
        own = min(count - 1, exact + round(self.warped_share * count))
        # The neighbour's mask is a random one, as the batch itself is random.
        target = torch.cat([mask[:own], mask.roll(1, dims=0)[own:]])
        source = self._warp(source, exact, own)

        with self.toggled_optimizer(optimizer):
            result = self.pipeline.rearrange(source, target)
            images = self.pipeline.render(result, ws, clamp=False)
            losses = self._losses(features, result, plain, images, mask, target, own)
            total = torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()
            optimizer.zero_grad()
            self.manual_backward(total)
            self.clip_gradients(optimizer.optimizer, self.gradient_clip, "norm")
            optimizer.step()
        step_images = count * self.trainer.world_size
        if self.weights["adversarial"] > 0:
            penalise = self.r1_gamma > 0 and int(self.images_seen) // step_images % self.r1_every == 0
            losses |= self._train_discriminator(
                discriminator_optimizer, plain[own:], mask[own:], images[own:], target[own:], penalise
            )

        self.images_seen += step_images
        self.average.update(self.rearranger, step_images)
        self.log_dict({f"train/{name}": loss.detach() for name, loss in losses.items()}, batch_size=count)

    def _warp(self, source: SourceSamples, first: int, last: int) -> SourceSamples:
        """Warp samples `first` to `last`; they keep their targets, so that the answer is the sample as it was."""
        if first == last:
            return source
        features, mask = source.features, source.mask
        stream = generator_for(seed=self.seed, rank=self.global_rank, images_seen=int(self.images_seen), purpose="warp")
        warped = random_warp(Features(features.map[first:last], features.rgb[first:last]), stream)
        joined = [torch.cat([x[:first], w, x[last:]]) for x, w in zip(features, warped, strict=True)]
        masks = torch.cat([mask[:first], self.codebook.assign(warped.map), mask[last:]])
        return SourceSamples(source.ws, Features(joined[0], joined[1]), masks)

    def _losses(
        self,
        features: Features,
        result: Features,
        plain: Images,
        images: Images,
        mask: ProxyMasks,
        target: ProxyMasks,
        own: int,
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted losses of the rearranger; the first `own` samples are laid out as themselves. A weight of 0 skips
        the work.
        """
        wanted = {name for name, weight in self.weights.items() if weight > 0}
        losses: dict[str, Tensor] = {}
        if "adversarial" in wanted:
            losses["adversarial"] = generator_adversarial_loss(self.discriminator(images[own:], target[own:]).float())
        if "perceptual" in wanted:
            with torch.no_grad():
                real = self.discriminator.features(plain[:own])
            losses["perceptual"] = perceptual_loss(self.discriminator.features(images[:own]), real)
        with torch.autocast(self.device.type, enabled=False):
            if "reconstruction" in wanted:
                losses["reconstruction"] = reconstruction_loss(
                    Features(result.map[:own], result.rgb[:own]), Features(features.map[:own], features.rgb[:own])
                )
            if "image" in wanted:
                losses["image"] = (images[:own] - plain[:own]).abs().mean()
            if "mask" in wanted:
                losses["mask"] = mask_loss(self.codebook, result.map, target, self.mask_temperature)
            if "style" in wanted:
                new, old = look_of(result.map, images, features.map), look_of(features.map, plain, features.map)
                losses["style"] = style_loss(new[own:], target[own:], old[own:], mask[own:], self.codebook.clusters)
        return losses

    def _train_discriminator(
        self,
        optimizer: LightningOptimizer,
        real: Images,
        real_mask: ProxyMasks,
        fake: Images,
        fake_mask: ProxyMasks,
        penalise: bool,
    ) -> dict[str, Float[Tensor, ""]]:
        """One step of the discriminator: plain samples with their layout against rearranged ones with their target."""
        with self.toggled_optimizer(optimizer):
            loss = discriminator_adversarial_loss(
                self.discriminator(real, real_mask).float(), self.discriminator(fake.detach(), fake_mask).float()
            )
            logged = {"discriminator": loss}
            if penalise:
                with torch.autocast(self.device.type, enabled=False):
                    logged["r1"] = r1_penalty(lambda images: self.discriminator(images, real_mask), real)
                loss = loss + logged["r1"] * (self.r1_gamma / 2 * self.r1_every)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return logged
