"""PairMapperModule (stage 2): trains the mapper on pairs that are made once, and leaves the rearranger as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from sisug.common.fingerprint import fingerprint
from sisug.common.seeding import generator_for
from sisug.conditions.condition import Encoded
from sisug.conditions.label_condition import LabelCondition
from sisug.conditions.registry import condition as condition_by_name
from sisug.errors import ConfigError, check_range
from sisug.generators.checkpoints import generator_may_be_missing
from sisug.labels.label_files import read_label_set
from sisug.labels.label_sets import LabelSet
from sisug.mapper.base_module import StageTwoModule
from sisug.mapper.few_shot.neighbors import NeighborSegmenter
from sisug.mapper.free_form import forget
from sisug.mapper.losses import proxy_loss
from sisug.mapper.network import Mapper
from sisug.mapper.pairs import Pairs, cached_pairs, make_pairs, move_together
from sisug.mapper.teaching import Lesson
from sisug.metrics import SegmentationScore
from sisug.rearranger.pipeline import SourceSamples
from sisug.rearranger.trained import load_rearranger, reference
from sisug.segmentation.annotation.folder import read_annotations
from sisug.training.ema import ExponentialMovingAverage
from sisug.types import Images, Masks, Styles


class PairMapperModule(StageTwoModule):
    """Trains the semantic mapper as the paper does: on pairs of a sample's condition and its proxy mask.

    A few labeled samples name the parts of thousands of others by nearest neighbors in the generator's features. The
    samples' masks and proxy masks, and their pictures where the condition is made from pictures, are made once before
    training, so that a step costs the same for any generator. Labels are needed only where conditions are masks.

    Logs, per step: `train/proxy` (cross-entropy to the sample's own proxy mask); scores as `StageTwoModule` says.

    Args:
        rearranger: checkpoint of stage 1, a file of `sisug rearranger export`, or the name of one that ships.
        generator: preset, file or class in the place of the generator that the rearranger names.
        condition: kind of input, by name (seg, scribble, edges, sketch, depth), or a class of your own, by its full
            name, or by `class_path` and `init_args`.
        condition_options: further arguments of that kind.
        labels: name of a label set, or a file that defines one; None where the condition needs no masks.
        annotations: folder of `sisug annotate`, or the name of one that ships ("faces"); None where no masks are
            needed.
        annotated: how many of the annotations are used, in the folder's order; None for all.
        pairs: number of pairs that are made, 1 or more.
        size: height and width of the conditions, pixels; a power of two times the split.
        width: channels of the mapper at the split, a multiple of 8.
        moved_fraction: fraction of the pairs that are scaled, sheared and shifted, where the condition is made from
            masks alone, 0 to 1.
        moved_spread: standard deviation of these changes, 0 or more.
        learning_rate: step size of the optimizer (Adam, betas 0.9 and 0.99), above 0.
        gradient_clip: largest norm of the gradient, above 0.
        ema_half_life_images: half-life of the averaged weights that validation and synthesis use, images.
        truncation: of the samples; None for that of the rearranger.
        seed: of pairs, conditions and changes.

    Raises:
        ConfigError: an argument is out of range, or contradicts another.
        CheckpointError: the rearranger or its generator cannot be loaded.
        DataError: the annotations cannot be used.

    Source: paper, Fig. 3 (condition of a sample, its proxy mask); the rest is our choice.
    """

    def __init__(
        self,
        rearranger: str = "faces",
        generator: str | dict[str, Any] | None = None,
        condition: str | dict[str, Any] = "seg",
        condition_options: dict[str, Any] | None = None,
        labels: str | None = "faces",
        annotations: str | None = "faces",
        annotated: int | None = None,
        pairs: int = 2048,
        size: int = 256,
        width: int = 48,
        moved_fraction: float = 0.5,
        moved_spread: float = 0.1,
        learning_rate: float = 2e-3,
        gradient_clip: float = 1.0,
        ema_half_life_images: float = 2000.0,
        truncation: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_range(pairs=pairs, size=size, width=width, gradient_clip=gradient_clip, above=0)
        check_range(ema_half_life_images=ema_half_life_images, learning_rate=learning_rate, above=0)
        check_range(moved_spread=moved_spread, moved_fraction=moved_fraction)
        if width % 8:
            raise ConfigError(f"width {width}", "channels are normalised in 8 groups", "choose a multiple of 8")
        if moved_fraction > 1:
            raise ConfigError(f"moved_fraction {moved_fraction}", "it is a fraction", "choose a number from 0 to 1")
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.register_load_state_dict_post_hook(generator_may_be_missing)  # type: ignore[no-untyped-call]
        self.labels: LabelSet | None = None if labels is None else read_label_set(labels)
        self.condition = condition_by_name(condition, self.labels, **(condition_options or {}))
        self.with_masks = self.condition.needs_masks
        if self.with_masks and (self.labels is None or annotations is None):
            raise ConfigError(
                f"condition {self.condition.name!r} with labels {labels!r} and annotations {annotations!r}",
                "it is made from class masks, which a few labeled samples teach",
                "give a label set and a folder of `sisug annotate export`; or take edges or sketch, which need neither",
            )
        trained = load_rearranger(rearranger, generator)
        self.rearranger_settings = dict(trained.settings)
        self.generator_reference = reference(trained)
        self.generator, self.codebook, self.rearranger = trained.generator, trained.codebook, trained.network
        split = self.generator.split
        if size % split or (size // split) & (size // split - 1):
            raise ConfigError(
                f"size {size} with a split of {split} px",
                "it is halved down to the split",
                "choose split times 1, 2, 4 or 8",
            )
        self.mapper = Mapper(self.condition.channels, self.codebook.clusters, size, split, width=width).to(
            memory_format=torch.channels_last
        )
        self.average = ExponentialMovingAverage(self.mapper, ema_half_life_images)
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        self.lesson: Lesson | None = None
        self.annotations, self.annotated, self.count = annotations, annotated, pairs
        self.moved_fraction, self.moved_spread = moved_fraction, moved_spread
        self.learning_rate, self.gradient_clip = learning_rate, gradient_clip
        self.truncation = trained.truncation if truncation is None else truncation
        self.seed = seed
        self.proxy_score = SegmentationScore(self.codebook.clusters)
        self._segmenter: NeighborSegmenter | None = None
        self._pairs: Pairs | None = None

    def setup(self, stage: str) -> None:
        # `requires_grad_()` and Lightning's `unfreeze()` on this module reach every parameter below it directly.
        self.generator.freeze()
        for part in (self.codebook, self.rearranger):
            part.requires_grad_(False).eval()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.mapper.parameters(), self.learning_rate, betas=(0.9, 0.99))

    def segment(self, ws: Styles) -> Masks:
        """Class masks of samples, by the labels of the annotated ones.

        Args:
            ws: styles of the samples.
        """
        if self._segmenter is None:
            assert self.labels is not None
            labeled, masks = self._labeled()
            self._segmenter = NeighborSegmenter(
                self.generator,
                labeled.to(self.device),
                masks.to(self.device),
                self.labels,
                seed=self.seed,
            )
        return self._segmenter.segment(ws)

    @property
    def _draws_pictures(self) -> bool:
        """Whether conditions are made from pictures."""
        return not isinstance(self.condition, LabelCondition)

    def on_fit_start(self) -> None:
        """Make the pairs, or take those that an earlier run left; every rank has the same ones."""
        if self._pairs is not None:
            return
        if self.with_masks:
            self._labeled()  # also where the pairs are there: it says what the labels show

        def make() -> Pairs:
            return make_pairs(
                self.pipeline,
                self.segment if self.with_masks else None,
                self.count,
                size=self.mapper.size,
                with_images=self._draws_pictures,
                truncation=self.truncation,
                seed=self.seed,
                purpose="pairs",
            )

        self._pairs = cached_pairs(make, self._key())
        self._segmenter = None  # validation makes it anew where it needs it; its references take memory

    def _key(self) -> dict[str, Any]:
        """All that decides the pairs."""
        key: dict[str, Any] = {
            "version": 1,
            "generator": self.generator.fingerprint,
            "codebook": fingerprint(self.codebook.state_dict()),
            "pairs": [self.count, self.truncation, self.seed],
            "size": self.mapper.size if self._draws_pictures else None,
        }
        if self.with_masks:
            ws, masks = self._labeled()
            key["labels"] = fingerprint({"ws": ws, "masks": masks})
        return key

    def _labeled(self) -> tuple[Styles, Masks]:
        """Styles and masks of the labeled samples."""
        assert self.labels is not None
        assert self.annotations is not None
        samples = read_annotations(Path(self.annotations), self.generator)
        if samples.labels != self.labels:
            raise ConfigError(
                f"annotations of label set {samples.labels.name!r}",
                f"the run has {self.labels.name!r}",
                "name the same one",
            )
        chosen = slice(None, self.annotated)
        ws, masks = samples.styles(self.generator)[chosen], samples.masks[chosen]
        seen = dict(zip(self.labels.classes, (int(n) for n in self.labels.histogram(masks)), strict=True))
        self.lesson = Lesson(len(masks), seen, None, None, None)
        return ws, masks

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        assert self._pairs is not None
        count, world = len(batch["index"]), self.trainer.world_size
        rng = generator_for(
            seed=self.seed, rank=self.global_rank, images_seen=int(self.images_seen), purpose="conditions"
        )
        index = torch.randint(len(self._pairs), (count,), generator=rng)
        target = self._pairs.proxy_masks[index].to(self.device).long()
        images = None if self._pairs.images is None else self._pairs.images[index].to(self.device).float() / 127.5 - 1
        masks = None if self._pairs.masks is None else self._pairs.masks[index].to(self.device).long()
        if masks is not None and images is None and self.moved_fraction > 0:
            masks, target = move_together(masks, target, self.moved_fraction, self.moved_spread, rng)
        with torch.no_grad():
            encoded = self._encode(images, masks, rng, drop=True)
        optimizer = cast(LightningOptimizer, self.optimizers())
        loss = proxy_loss(self.mapper(encoded), target)
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(optimizer.optimizer, self.gradient_clip, "norm")
        optimizer.step()
        self.images_seen += count * world
        self.average.update(self.mapper, count * world)
        self.log("train/proxy", loss.detach(), batch_size=count)

    def _encode(
        self, images: Images | None, masks: Int64[Tensor, "batch _ _"] | None, rng: torch.Generator, *, drop: bool
    ) -> Encoded:
        """Conditions of samples at the mapper's size."""
        size = (self.mapper.size, self.mapper.size)
        if masks is not None:
            masks = F.interpolate(masks[:, None].float(), size, mode="nearest-exact")[:, 0].long()
            if drop and isinstance(self.condition, LabelCondition):
                masks = forget(masks, self.condition.labels, rng)
        if images is None:
            assert masks is not None
            images = torch.zeros(len(masks), 3, *size, device=masks.device)  # only their number and size count
        return self.condition.extract(images, masks, rng)

    def examples(self, ws: Styles, first: int) -> tuple[Encoded, SourceSamples]:
        source = self.pipeline.source(ws)
        images = None
        if self._draws_pictures:
            size = (self.mapper.size, self.mapper.size)
            images = F.interpolate(self.pipeline.render(source.features, ws), size, mode="bilinear", antialias=True)
        masks = self.segment(ws) if self.with_masks else None
        rng = generator_for(seed=self.seed, rank=0, images_seen=first, purpose="val conditions")
        return self._encode(images, masks, rng, drop=False), source
