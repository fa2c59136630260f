"""MapperModule (stage 2): wires frozen generator, codebook and rearranger, conditions and the mapper into a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule
from torch import Tensor

from sisug.conditions.condition import Encoded
from sisug.conditions.label_condition import LabelCondition
from sisug.conditions.labels import LabelSet
from sisug.conditions.registry import condition as condition_by_name
from sisug.errors import ConfigError, check_range
from sisug.generators import Features
from sisug.mapper.free_form import forget, free_form
from sisug.mapper.losses import proxy_loss, reading_loss
from sisug.mapper.network import Mapper, straight_through
from sisug.mapper.result import Synthesis
from sisug.mapper.teaching import Lesson, teach_reader
from sisug.metrics import SegmentationScore
from sisug.rearranger.checkpoint import check_checkpoint, generator_may_be_missing, without_generator
from sisug.rearranger.trained import load_rearranger, reference
from sisug.segmentation.annotation.label_files import read_label_set
from sisug.segmentation.few_shot.reader import Reader
from sisug.training.ema import ExponentialMovingAverage
from sisug.training.seeding import fixed_latents, generator_for
from sisug.types import Images, Latents, Masks, ProxyMasks

LOOKS = 3
"""Looks of each condition in validation."""


class MapperModule(LightningModule):
    """Trains the semantic mapper on conditions made from random samples, from one or a few labels, or none.

    Before training, a few-shot segmenter learns from the labels and teaches a reader of images. Each step then makes
    conditions of fresh samples. The mapper learns to give the samples' own proxy masks, and proxy masks under which the
    rearranged image of another sample is read as the mask that went in, for masks beyond the generator's own too.
    Generator, codebook, rearranger and reader stay as they are; all but the generator travel in the checkpoint.

    Logs, per step: `train/{proxy,reading}` (unweighted). Per validation, over fixed pairs with averaged weights:
    `val/proxy_accuracy` and `val/proxy_miou` (against the sample's own proxy mask), and the same under `test/`.

    Args:
        rearranger: checkpoint of stage 1, a file of `sisug rearranger export`, or the name of one that ships.
        generator: file or preset in the place of the one that the rearranger names, where that has been moved.
        condition: kind of input: seg, scribble, edges, sketch, depth.
        condition_options: further arguments of that kind.
        labels: name of a label set, or a file that defines one; None trains without labels, as edges and sketches
            allow.
        shots: samples that the judge labels, chosen to cover the codebook; 0 lets it label all that the reader learns
            from (a ceiling, no method).
        annotations: folder of `sisug annotate` with labels of your own, in the place of the judge's.
        judge: name or file of a judge with these classes; it labels the shots, and tells how good the reader is.
        looks: in which the few-shot segmenter sees each labelled sample.
        segmenter_steps: of its training with one label; a tenth more for each further one.
        reader_images: samples that the reader learns from.
        width: channels of the mapper at the split.
        proxy_weight: of the cross-entropy to the sample's own proxy mask.
        reading_weight: of what is read in the synthesised image; 0 trains no reader where the condition needs no masks.
        dice_weight: of the Dice part of the latter.
        free_share: share of the reading term's masks that are changed beyond the generator's own, 0 to 1; above 0, some
            masks say only a part of their classes.
        learning_rate: of Adam, betas 0.9 and 0.99.
        gradient_clip: largest norm of the gradient.
        ema_half_life_images: of the averaged weights that validation and synthesis use.
        truncation: of the samples; None for that of the rearranger.
        seed: of conditions, changes and labelled samples.

    Raises:
        ConfigError: an argument is out of range, or contradicts another.
        CheckpointError: the rearranger or its generator cannot be loaded.

    Source: pairs and the reconstruction term are the paper's (Fig. 3), in forms of our choice; the rest is our choice.
    """

    images_seen: Tensor

    def __init__(
        self,
        rearranger: str = "avatars",
        generator: str | None = None,
        condition: str = "seg",
        condition_options: dict[str, Any] | None = None,
        labels: str | None = "avatars",
        shots: int = 1,
        annotations: str | None = None,
        judge: str | None = "avatars",
        looks: int = 16,
        segmenter_steps: int = 200,
        reader_images: int = 2048,
        width: int = 32,
        proxy_weight: float = 1.0,
        reading_weight: float = 1.0,
        dice_weight: float = 1.0,
        free_share: float = 0.5,
        learning_rate: float = 2e-3,
        gradient_clip: float = 1.0,
        ema_half_life_images: float = 2000.0,
        truncation: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_range(width=width, gradient_clip=gradient_clip, ema_half_life_images=ema_half_life_images, above=0)
        check_range(looks=looks, segmenter_steps=segmenter_steps, reader_images=reader_images, above=0)
        check_range(shots=shots, proxy_weight=proxy_weight, reading_weight=reading_weight, dice_weight=dice_weight)
        check_range(learning_rate=learning_rate)
        if not 0 <= free_share <= 1:
            raise ConfigError(f"free_share {free_share}", "it is a share", "choose a number from 0 to 1")
        if width % 8:
            raise ConfigError(f"width {width}", "channels are normalised in 8 groups", "choose a multiple of 8")
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.register_load_state_dict_post_hook(generator_may_be_missing)  # type: ignore[no-untyped-call]
        self.labels: LabelSet | None = None if labels is None else read_label_set(labels)
        self.condition = condition_by_name(condition, self.labels, **(condition_options or {}))
        if self.labels is None and (self.condition.needs_masks or reading_weight > 0):
            raise ConfigError(
                f"condition {condition!r} and reading_weight {reading_weight} without labels",
                "masks of the samples come from labels, and the reading term compares masks",
                "name a label set; or, for edges and sketches, set reading_weight to 0",
            )
        trained = load_rearranger(rearranger, generator)
        self.rearranger_settings = dict(trained.settings)
        self.generator_reference = reference(trained)
        self.generator, self.codebook, self.rearranger = trained.generator, trained.codebook, trained.network
        self.mapper = Mapper(
            self.condition.channels,
            self.codebook.clusters,
            self.generator.resolution,
            self.generator.split,
            width=width,
        ).to(memory_format=torch.channels_last)
        self.average = ExponentialMovingAverage(self.mapper, ema_half_life_images)
        needs_reader = self.labels is not None and (self.condition.needs_masks or reading_weight > 0)
        self.reader = (
            Reader(self.labels.num_classes, self.generator.resolution) if needs_reader and self.labels else None
        )
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("reader_is_taught", torch.zeros((), dtype=torch.bool))
        self.lesson: Lesson | None = None

        self.shots, self.judge, self.looks = shots, judge, looks
        self.annotations = None if annotations is None else Path(annotations)
        self.segmenter_steps, self.reader_images = segmenter_steps, reader_images
        self.weights = {"proxy": proxy_weight, "reading": reading_weight}
        self.dice_weight, self.free_share = dice_weight, free_share
        self.learning_rate, self.gradient_clip = learning_rate, gradient_clip
        self.truncation = trained.truncation if truncation is None else truncation
        self.seed = seed
        self.proxy_score = SegmentationScore(self.codebook.clusters)

    def setup(self, stage: str) -> None:
        # `requires_grad_()` and Lightning's `unfreeze()` on this module reach every parameter below it directly.
        self.generator.freeze()
        for part in (self.codebook, self.rearranger, self.reader):
            if part is not None:
                part.requires_grad_(False).eval()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.mapper.parameters(), lr=self.learning_rate, betas=(0.9, 0.99))

    def on_fit_start(self) -> None:
        """Teach the reader, once; a checkpoint brings it."""
        if self.reader is None or bool(self.get_buffer("reader_is_taught")):
            return
        state: Mapping[str, Tensor] | None = None
        if self.trainer.is_global_zero:
            half = self.trainer.precision == "bf16-mixed"
            # Without the cache of cast weights, which would hide every step of the training inside.
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half, cache_enabled=False):
                self.lesson = self._teach()
            state = {name: value.cpu() for name, value in self.reader.state_dict().items()}
        # GPUs need not agree to the bit, and every rank must read alike.
        state, self.lesson = self.trainer.strategy.broadcast((state, self.lesson), src=0)
        assert state is not None
        self.reader.load_state_dict(dict(state))
        self.get_buffer("reader_is_taught").fill_(True)

    def _teach(self) -> Lesson:
        assert self.reader is not None
        assert self.labels is not None
        return teach_reader(
            self.reader,
            self.generator,
            self.codebook,
            self.labels,
            annotations=self.annotations,
            judge=self.judge,
            shots=self.shots,
            looks=self.looks,
            steps=self.segmenter_steps,
            images=self.reader_images,
            truncation=self.truncation,
            seed=self.seed,
        )

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        stream = generator_for(
            seed=self.seed, rank=self.global_rank, images_seen=int(self.images_seen), purpose="conditions"
        )
        ws = self.generator.map(batch["z"], self.truncation)
        with torch.no_grad():
            features = self.generator.features(ws)
            mask = self.codebook.assign(features.map)
            plain = self.generator.render(features, ws).float().clamp(-1, 1)
            read = None if self.reader is None else self.reader(plain).argmax(dim=1)
            given = read
            if read is not None and isinstance(self.condition, LabelCondition) and self.free_share > 0:
                given = forget(read, self.condition.labels, stream)
            encoded = self.condition.extract(plain, given, stream)
        losses = {"proxy": proxy_loss(self.mapper(encoded), mask)}
        if self.weights["reading"] > 0:
            assert given is not None
            losses["reading"] = self._reading(features, mask, ws, plain, given, encoded, stream)
        total = torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()
        optimizer.zero_grad()
        self.manual_backward(total)
        self.clip_gradients(optimizer.optimizer, self.gradient_clip, "norm")
        optimizer.step()
        step_images = len(mask) * self.trainer.world_size
        self.images_seen += step_images
        self.average.update(self.mapper, step_images)
        self.log_dict({f"train/{name}": loss.detach() for name, loss in losses.items()}, batch_size=len(mask))

    def _reading(
        self,
        features: Features,
        mask: ProxyMasks,
        ws: Tensor,
        plain: Images,
        read: Masks,
        encoded: Encoded,
        stream: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Other samples laid out by the conditions, and what is read in them."""
        assert self.reader is not None
        assert self.labels is not None
        wanted = read
        changed = round(self.free_share * len(read))
        # Pictures cannot be changed as masks can: conditions that are drawn from the picture keep theirs.
        if changed and self.condition.needs_masks:
            wanted = torch.cat([free_form(read[:changed], self.labels, stream), read[changed:]])
            encoded = torch.cat([self.condition.extract(plain[:changed], wanted[:changed], stream), encoded[changed:]])
        target = straight_through(self.mapper(encoded))
        source, source_mask = Features(*(each.roll(1, dims=0) for each in features)), mask.roll(1, dims=0)
        laid_out = self.rearranger(source, source_mask, target)
        images = self.generator.render(laid_out, ws.roll(1, dims=0)).float()
        return reading_loss(self.reader(images), wanted, self.labels.ignore, self.dice_weight)

    @torch.no_grad()
    def map_condition(self, encoded: Encoded) -> ProxyMasks:
        """Proxy masks of encoded conditions, by the averaged weights.

        Args:
            encoded: conditions.
        """
        with self.average.average(self.mapper):
            logits: Tensor = self.mapper(encoded)
        return logits.argmax(dim=1)

    @torch.no_grad()
    def synthesise(self, z: Latents, target: ProxyMasks) -> Images:
        """Samples in other layouts.

        Args:
            z: latents of the samples.
            target: proxy masks.
        """
        ws = self.generator.map(z, self.truncation)
        features = self.generator.features(ws)
        laid_out = self.rearranger(features, self.codebook.assign(features.map), target)
        return self.generator.render(laid_out, ws).float().clamp(-1, 1)

    def validation_step(  # type: ignore[override]  # Lightning passes any type on to the callbacks
        self, batch: dict[str, Tensor], batch_idx: int
    ) -> Synthesis:
        return self._score(batch)

    def test_step(  # type: ignore[override]  # Lightning passes any type on to the callbacks
        self, batch: dict[str, Tensor], batch_idx: int
    ) -> Synthesis:
        return self._score(batch)

    @torch.no_grad()
    def _score(self, batch: dict[str, Tensor]) -> Synthesis:
        """Update the scores; what comes back reaches the callbacks."""
        ws = self.generator.map(batch["z_target"], self.truncation)
        features = self.generator.features(ws)
        true_mask = self.codebook.assign(features.map)
        plain = self.generator.render(features, ws).float().clamp(-1, 1)
        read = None if self.reader is None else self.reader(plain).argmax(dim=1)
        stream = generator_for(seed=self.seed, rank=0, images_seen=int(batch["index"][0]), purpose="val conditions")
        encoded = self.condition.extract(plain, read, stream)
        proxy_mask = self.map_condition(encoded)
        self.proxy_score.update(proxy_mask, true_mask)
        results = []
        for look in range(LOOKS):
            z = fixed_latents(batch["index"], self.generator.z_dim, seed=self.seed, purpose=f"look {look}")
            results.append(self.synthesise(z, proxy_mask))
        return Synthesis(encoded, proxy_mask, true_mask, plain, tuple(results))

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def _log_scores(self, stage: Literal["val", "test"]) -> None:
        score = self.proxy_score.compute()
        self.proxy_score.reset()
        values = {"proxy_miou": score.miou, "proxy_accuracy": score.accuracy}
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()}, prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the generator's weights out, name them by their fingerprint, and say what the mapper reads."""
        checkpoint["state_dict"] = without_generator(checkpoint["state_dict"])
        checkpoint["generator"] = self.generator_reference
        checkpoint["rearranger"] = self.rearranger_settings
        checkpoint["condition"] = self.condition.to_dict()
        checkpoint["lesson"] = None if self.lesson is None else asdict(self.lesson)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other weights or another architecture before anything is copied.

        Raises:
            FingerprintMismatch: it was trained with other generator weights.
            CheckpointError: it is no mapper checkpoint, or tensors are missing or left over.
        """
        also = {"condition": "it does not say what its mapper reads"}
        check_checkpoint(checkpoint, self, self.generator, holds="mapper", also=also)
        if checkpoint.get("lesson"):
            self.lesson = Lesson(**checkpoint["lesson"])
