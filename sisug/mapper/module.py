"""MapperModule (stage 2): wires frozen generator and codebook, rearranger, conditions and the mapper into a step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from sisug.common.seeding import generator_for
from sisug.conditions.condition import Encoded
from sisug.conditions.label_condition import LabelCondition
from sisug.conditions.registry import condition as condition_by_name
from sisug.errors import ConfigError, SisugError, check_range
from sisug.generators import Discriminator, Features, GeneratorReference, generator_reference
from sisug.generators.checkpoints import generator_may_be_missing
from sisug.generators.losses import generator_adversarial_loss
from sisug.labels.label_files import read_label_set
from sisug.labels.label_sets import LabelSet
from sisug.mapper.base_module import StageTwoModule
from sisug.mapper.few_shot.reader import Reader
from sisug.mapper.free_form import forget, redrawn
from sisug.mapper.laying_out import LaidOut, kept_losses, lay_out
from sisug.mapper.losses import discriminator_losses, proxy_loss, reading_loss
from sisug.mapper.network import Mapper, straight_through
from sisug.mapper.teaching import Lesson, teach_reader
from sisug.metrics import SegmentationScore
from sisug.rearranger.network import LayoutMask
from sisug.rearranger.pipeline import SourceSamples
from sisug.rearranger.trained import load_rearranger, reference
from sisug.training.ema import ExponentialMovingAverage
from sisug.types import Images, Latents, Masks, Styles

LOOKS = 3
"""Looks of each condition in validation."""


class MapperModule(StageTwoModule):
    """Trains the semantic mapper on conditions made from random samples, from one or a few labels, or none.

    Before training, the rearranger carries the labels to thousands of samples, and a reader of images learns from them.
    Each step then makes conditions of fresh samples. The mapper learns to give the samples' own proxy masks, and proxy
    masks under which the rearranged image of another sample is read as the mask that went in and passes for a plain
    sample, for masks beyond the generator's own too. The rearranger learns along, and keeps what stage 1 taught it:
    to give samples back in their own layout, and to keep their look. Generator, codebook and reader stay as they are;
    all but the generator travel in the checkpoint.

    Logs, per step: `train/{proxy,reading,adversarial,reconstruction,image,style,discriminator,r1}` (unweighted). Per
    validation, over fixed pairs with averaged weights: `val/proxy_accuracy` and `val/proxy_miou` (against the sample's
    own proxy mask), and the same under `test/`.

    Args:
        rearranger: checkpoint of stage 1, a file of `sisug rearranger export`, or the name of one that ships.
        generator: preset, file, class (by its full name, or `class_path` and `init_args`) or object in the place of the
            generator that the rearranger names: for one that has been moved, or whose class is no part of sisug.
        condition: kind of input: seg, scribble, edges, sketch, depth; or any `Condition`, by its full name, or by
            `class_path` and `init_args`.
        condition_options: further arguments of that kind.
        labels: name of a label set, or a file that defines one; None trains without labels, as edges and sketches
            allow.
        shots: samples that the judge labels, chosen to cover the codebook; 0 lets it label all that the reader learns
            from (a ceiling, no method).
        annotations: folder of `sisug annotate` with labels of your own, in the place of the judge's; or the name of
            annotations that ship (faces).
        annotated: how many of the annotations are used, in the folder's order; None for all.
        judge: name or file of a judge with these classes; it labels the shots, and tells how good the reader is.
        label_transfer: what carries labels to other samples: "attention" of the rearranger; or "neighbors" in the
            generator's features, better on real faces, beside which no few-shot segmenter is trained; None for
            attention where the rearranger has it.
        segmenter_shots: labels with which a few-shot segmenter is believed as much as what the rearranger carries: few
            teach it little. 0 believes it alone.
        looks: in which the few-shot segmenter sees each labelled sample.
        segmenter_steps: of its training with one label; a tenth more for each further one.
        reader_images: samples that the reader learns from.
        width: channels of the mapper at the split.
        proxy_weight: of the cross-entropy to the sample's own proxy mask.
        reading_weight: of what is read in the synthesised image; 0 trains no reader where the condition needs no masks.
        dice_weight: of the Dice part of the latter.
        adversarial_weight: of the non-saturating loss on half of the synthesised images; 0 trains no discriminator.
        style_weight: of the part-wise difference to the look's sample, where the rearranger learns along.
        reconstruction_weight: of features and image in a sample's own layout, where the rearranger learns along.
        free_share: share of the synthesised masks that are changed beyond the generator's own, 0 to 1; above 0, some
            masks say only a part of their classes.
        learning_rate: of the mapper (Adam, betas 0.9 and 0.99).
        rearranger_learning_rate: of the rearranger (betas 0 and 0.99); 0 leaves it as stage 1 made it, as in the paper.
        discriminator_learning_rate: of the discriminator (betas 0 and 0.99).
        r1_gamma: weight of the gradient penalty on plain samples.
        r1_every: steps between gradient penalties, which are weighted accordingly.
        gradient_clip: largest norm of the gradient.
        ema_half_life_images: of the averaged weights that validation and synthesis use.
        truncation: of the samples; None for that of the rearranger.
        seed: of conditions, changes and labelled samples.

    Raises:
        ConfigError: an argument is out of range, or contradicts another.
        CheckpointError: the rearranger or its generator cannot be loaded.

    Source: pairs and the reconstruction term are the paper's (Fig. 3), in forms of our choice; the rest is our choice.
    """

    def __init__(
        self,
        rearranger: str = "avatars",
        generator: GeneratorReference | None = None,
        condition: str | dict[str, Any] = "seg",
        condition_options: dict[str, Any] | None = None,
        labels: str | None = "avatars",
        shots: int = 1,
        annotations: str | None = None,
        annotated: int | None = None,
        judge: str | None = "avatars",
        label_transfer: Literal["attention", "neighbors"] | None = None,
        segmenter_shots: float = 16.0,
        looks: int = 16,
        segmenter_steps: int = 200,
        reader_images: int = 2048,
        width: int = 32,
        proxy_weight: float = 1.0,
        reading_weight: float = 1.0,
        dice_weight: float = 1.0,
        adversarial_weight: float = 0.3,
        style_weight: float = 2.0,
        reconstruction_weight: float = 1.0,
        free_share: float = 0.5,
        learning_rate: float = 2e-3,
        rearranger_learning_rate: float = 1e-3,
        discriminator_learning_rate: float = 2e-3,
        r1_gamma: float = 1.0,
        r1_every: int = 16,
        gradient_clip: float = 1.0,
        ema_half_life_images: float = 2000.0,
        truncation: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_range(width=width, gradient_clip=gradient_clip, ema_half_life_images=ema_half_life_images, above=0)
        check_range(looks=looks, segmenter_steps=segmenter_steps, reader_images=reader_images, above=0)
        check_range(shots=shots, proxy_weight=proxy_weight, reading_weight=reading_weight, dice_weight=dice_weight)
        check_range(adversarial_weight=adversarial_weight, style_weight=style_weight, r1_gamma=r1_gamma)
        check_range(reconstruction_weight=reconstruction_weight, segmenter_shots=segmenter_shots)
        check_range(learning_rate=learning_rate, rearranger_learning_rate=rearranger_learning_rate)
        check_range(discriminator_learning_rate=discriminator_learning_rate)
        check_range(r1_every=r1_every, above=0)
        if not 0 <= free_share <= 1:
            raise ConfigError(f"free_share {free_share}", "it is a share", "choose a number from 0 to 1")
        if width % 8:
            raise ConfigError(f"width {width}", "channels are normalised in 8 groups", "choose a multiple of 8")
        self.save_hyperparameters(ignore=["generator"])
        named = None if generator is None else generator_reference(generator)
        self.save_hyperparameters({"generator": named})  # plain data, as checkpoints hold it
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
        sizes = (self.condition.channels, self.codebook.clusters, self.generator.resolution, self.generator.split)
        self.mapper = Mapper(*sizes, width=width).to(memory_format=torch.channels_last)
        self.average = ExponentialMovingAverage(self.mapper, ema_half_life_images)
        self.rearranger_average = ExponentialMovingAverage(self.rearranger, ema_half_life_images)
        self.discriminator: nn.Module | None = None
        if adversarial_weight > 0:
            pretrained = self.generator.discriminator()
            self.discriminator = Discriminator(self.generator.channels) if pretrained is None else pretrained
            self.discriminator.to(memory_format=torch.channels_last)
        self.reader: Reader | None = None
        if self.labels is not None and (self.condition.needs_masks or reading_weight > 0):
            self.reader = Reader(self.labels.num_classes, self.generator.resolution)
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("reader_is_taught", torch.zeros((), dtype=torch.bool))
        self.lesson: Lesson | None = None

        self.teaching: dict[str, Any] = {
            "annotations": None if annotations is None else Path(annotations),
            "annotated": annotated,
            "judge": judge,
            "shots": shots,
            "label_transfer": label_transfer,
            "segmenter_shots": segmenter_shots,
            "looks": looks,
            "steps": segmenter_steps,
            "images": reader_images,
        }
        tuned = rearranger_learning_rate > 0
        self.weights = {
            "proxy": proxy_weight,
            "reading": reading_weight,
            "adversarial": adversarial_weight,
            "reconstruction": reconstruction_weight * tuned,
            "image": reconstruction_weight * tuned,
            "style": style_weight * tuned,
        }
        self.dice_weight, self.free_share = dice_weight, free_share
        self.learning_rate, self.rearranger_learning_rate = learning_rate, rearranger_learning_rate
        self.discriminator_learning_rate = discriminator_learning_rate
        self.r1_gamma, self.r1_every, self.gradient_clip = r1_gamma, r1_every, gradient_clip
        self.truncation = trained.truncation if truncation is None else truncation
        self.seed = seed
        self.proxy_score = SegmentationScore(self.codebook.clusters)

    def setup(self, stage: str) -> None:
        # `requires_grad_()` and Lightning's `unfreeze()` on this module reach every parameter below it directly.
        self.generator.freeze()
        for part in (self.codebook, self.reader):
            if part is not None:
                part.requires_grad_(False).eval()
        self.rearranger.requires_grad_(self.rearranger_learning_rate > 0)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        groups: list[dict[str, Any]] = [{"params": self.mapper.parameters(), "lr": self.learning_rate}]
        if self.rearranger_learning_rate > 0:
            parameters = self.rearranger.parameters()
            groups.append({"params": parameters, "lr": self.rearranger_learning_rate, "betas": (0.0, 0.99)})
        optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(groups, betas=(0.9, 0.99))]
        if self.discriminator is not None:
            rate, parameters = self.discriminator_learning_rate, self.discriminator.parameters()
            optimizers.append(torch.optim.Adam(parameters, lr=rate, betas=(0.0, 0.99)))
        return optimizers

    def on_fit_start(self) -> None:
        """Teach the reader, once; a checkpoint brings it."""
        if self.reader is None or bool(self.get_buffer("reader_is_taught")):
            return
        state: Mapping[str, Tensor] | None = None
        failure: Exception | None = None
        if self.trainer.is_global_zero:
            half = self.trainer.precision == "bf16-mixed"
            # Without the cache of cast weights, which would hide every step of the training inside.
            try:
                with torch.autocast(self.device.type, torch.bfloat16, enabled=half, cache_enabled=False):
                    self.lesson = self._teach()
                state = {name: value.cpu() for name, value in self.reader.state_dict().items()}
            except Exception as error:
                failure = error
        # GPUs need not agree to the bit, and every rank must read alike. An error travels too: a rank that raised
        # alone would leave the others waiting for ever.
        sent = failure if failure is None or isinstance(failure, SisugError) else RuntimeError(repr(failure))
        state, self.lesson, reported = self.trainer.strategy.broadcast((state, self.lesson, sent), src=0)
        if reported is not None:
            raise failure or reported
        assert state is not None
        self.reader.load_state_dict(dict(state))
        self.get_buffer("reader_is_taught").fill_(True)

    def _teach(self) -> Lesson:
        assert self.reader is not None
        assert self.labels is not None
        parts = (self.reader, self.generator, self.codebook, self.rearranger, self.labels)
        return teach_reader(*parts, **self.teaching, truncation=self.truncation, seed=self.seed)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        optimizers = self.optimizers()
        optimizer, *others = cast(
            list[LightningOptimizer], optimizers if isinstance(optimizers, list) else [optimizers]
        )
        stream = generator_for(
            seed=self.seed, rank=self.global_rank, images_seen=int(self.images_seen), purpose="conditions"
        )
        ws = self.generator.map(batch["z"], self.truncation)
        with torch.no_grad():
            source = self.pipeline.source(ws)
            plain = self.pipeline.render(source.features, ws)
            read = None if self.reader is None else self.reader(plain).argmax(dim=1)
            given = read
            if read is not None and isinstance(self.condition, LabelCondition) and self.free_share > 0:
                given = forget(read, self.condition.labels, stream)
            encoded = self.condition.extract(plain, given, stream)
        made: LaidOut | None = None
        with self.toggled_optimizer(optimizer):
            losses = {"proxy": proxy_loss(self.mapper(encoded), source.mask)}
            if any(weight > 0 for name, weight in self.weights.items() if name != "proxy"):
                encoded, wanted = redrawn(self.condition, self.labels, plain, given, encoded, self.free_share, stream)
                target = straight_through(self.mapper(encoded))
                made = lay_out(self.pipeline, source, target)
                losses |= self._losses(made, source.features, plain, wanted)
            total = torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()
            optimizer.zero_grad()
            self.manual_backward(total)
            self.clip_gradients(optimizer.optimizer, self.gradient_clip, "norm")
            optimizer.step()
        step_images = len(source) * self.trainer.world_size
        if made is not None and self.discriminator is not None:
            penalise = self.r1_gamma > 0 and int(self.images_seen) // step_images % self.r1_every == 0
            losses |= self._train_discriminator(others[0], plain[::2], made.images[::2].detach(), penalise)
        self.images_seen += step_images
        self.average.update(self.mapper, step_images)
        self.rearranger_average.update(self.rearranger, step_images)
        self.log_dict({f"train/{name}": loss.detach() for name, loss in losses.items()}, batch_size=len(source))

    def _losses(
        self, made: LaidOut, features: Features, plain: Images, wanted: Masks | None
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted losses of other samples laid out by the conditions. A weight of 0 skips the work."""
        losses: dict[str, Tensor] = {}
        if self.weights["reading"] > 0:
            assert self.reader is not None
            assert self.labels is not None
            assert wanted is not None
            losses["reading"] = reading_loss(self.reader(made.images), wanted, self.labels.ignore, self.dice_weight)
        if self.discriminator is not None:
            # Half of them tell enough, and the discriminator takes as long as all else.
            losses["adversarial"] = generator_adversarial_loss(self.discriminator(made.images[::2]).float())
        if self.rearranger_learning_rate > 0:
            with torch.autocast(self.device.type, enabled=False):
                losses |= kept_losses(made, features, plain, self.codebook.clusters)
        return losses

    def _train_discriminator(
        self, optimizer: LightningOptimizer, real: Images, fake: Images, penalise: bool
    ) -> dict[str, Tensor]:
        """One step of the discriminator: plain samples against synthesised images."""
        assert self.discriminator is not None
        with self.toggled_optimizer(optimizer):
            gamma = self.r1_gamma * self.r1_every if penalise else 0.0
            logged, loss = discriminator_losses(self.discriminator, real, fake, gamma)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return logged

    def examples(self, ws: Styles, first: int) -> tuple[Encoded, SourceSamples]:
        source = self.pipeline.source(ws)
        plain = self.pipeline.render(source.features, source.ws)
        read = None if self.reader is None else self.reader(plain).argmax(dim=1)
        rng = generator_for(seed=self.seed, rank=0, images_seen=first, purpose="val conditions")
        return self.condition.extract(plain, read, rng), source

    @torch.no_grad()
    def synthesise(self, z: Latents, target: LayoutMask) -> Images:
        with self.rearranger_average.average(self.rearranger):
            return super().synthesise(z, target)
