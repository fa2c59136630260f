"""What the modules of stage 2 share: frozen generator and codebook, averaged mapper, scores and checkpoints."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sisug.common.seeding import fixed_latents
from sisug.conditions.condition import Condition, Encoded
from sisug.generators import GeneratorBackbone
from sisug.generators.checkpoints import check_checkpoint, without_generator
from sisug.mapper.network import Mapper
from sisug.mapper.result import Synthesis
from sisug.mapper.teaching import Lesson
from sisug.metrics import SegmentationScore
from sisug.proxies.codebook import Codebook
from sisug.rearranger.network import LayoutMask
from sisug.rearranger.pipeline import RearrangementPipeline, SourceSamples
from sisug.training.ema import ExponentialMovingAverage
from sisug.training.own_classes import OwnClasses
from sisug.types import Images, Latents, ProxyWeights, Styles

LOOKS = 3
"""Styles of each condition in validation."""


class StageTwoModule(OwnClasses):
    """A mapper in training. Subclasses make the networks and write the training step.

    Logs per validation, over fixed pairs with averaged weights: `val/proxy_accuracy` and `val/proxy_miou` (against the
    sample's own proxy mask), and the same under `test/`.
    """

    generator: GeneratorBackbone
    codebook: Codebook
    rearranger: nn.Module
    mapper: Mapper
    average: ExponentialMovingAverage
    condition: Condition
    images_seen: Tensor
    truncation: float
    seed: int
    lesson: Lesson | None
    proxy_score: SegmentationScore
    generator_reference: Mapping[str, Any]
    rearranger_settings: Mapping[str, Any]

    @property
    def pipeline(self) -> RearrangementPipeline:
        """Generator, codebook and rearranger as they are now, as one computation."""
        return RearrangementPipeline(self.generator, self.codebook, self.rearranger)

    @abstractmethod
    def examples(self, ws: Styles, first: int) -> tuple[Encoded, SourceSamples]:
        """Conditions made of samples, and the samples, for scores and pictures.

        Args:
            ws: styles of the samples.
            first: position of the first one, which decides all draws.
        """

    @torch.no_grad()
    def map_condition(self, encoded: Encoded) -> ProxyWeights:
        """Layouts of encoded conditions, by the averaged weights: how probable each label is in each cell.

        Args:
            encoded: conditions.
        """
        with self.average.average(self.mapper):
            logits: Tensor = self.mapper(encoded)
        return logits.softmax(dim=1)

    @torch.no_grad()
    def synthesise(self, z: Latents, target: LayoutMask) -> Images:
        """Samples in other layouts.

        Args:
            z: latents of the samples.
            target: layouts.
        """
        source = self.pipeline.source(self.generator.map(z, self.truncation))
        return self.pipeline.images(source, target)

    def validation_step(  # type: ignore[override]  # Lightning passes any type on to the callbacks
        self, batch: dict[str, Tensor], batch_idx: int
    ) -> Synthesis:
        return self._score(batch)

    def test_step(  # type: ignore[override]  # Lightning passes any type on to the callbacks
        self, batch: dict[str, Tensor], batch_idx: int
    ) -> Synthesis:
        return self._score(batch)

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

    @torch.no_grad()
    def _score(self, batch: dict[str, Tensor]) -> Synthesis:
        """Update the scores; what comes back reaches the callbacks."""
        ws = self.generator.map(batch["z_target"], self.truncation)
        encoded, source = self.examples(ws, int(batch["index"][0]))
        layout = self.map_condition(encoded)
        proxy_mask = layout.argmax(dim=1)
        self.proxy_score.update(proxy_mask, source.mask)
        results = []
        for look in range(LOOKS):
            z = fixed_latents(batch["index"], self.generator.z_dim, seed=self.seed, purpose=f"look {look}")
            results.append(self.synthesise(z, layout))
        unmodified = self.pipeline.render(source.features, source.ws)
        return Synthesis(encoded, proxy_mask, source.mask, unmodified, tuple(results))
