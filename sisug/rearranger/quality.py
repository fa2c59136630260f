"""Layout, look and realism of rearranged images, read by a judge (evaluation of stage 1): what the proxy scores cannot
tell.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sisug.common.seeding import fixed_latents
from sisug.metrics import FrechetDistance, LookDifference, ProtocolRecord, SegmentationScore
from sisug.metrics.balance import balance
from sisug.rearranger import Rearrangement, RearrangerModule
from sisug.segmentation.judge import JudgeFeatures
from sisug.segmentation.loading import load_judge
from sisug.training.run_folder import run_folder

Stage = Literal["val", "test"]


class RearrangementQuality(Callback):
    """Scores every validation or test batch, each figure beside the one that gives it meaning.

    Logged under `val/` or `test/`, over the pairs of the data module:

    - `layout_miou`: the judge's masks of results against those of the targets' own images, one confusion matrix over
      all pairs; `layout_miou_source`: the same for the untouched sources.
    - `look`: mean CIELAB difference per class between result and source, over classes that both have; `look_unrelated`:
      between target and source, whose looks are unrelated.
    - `frechet_judge`: Fréchet distance, in the judge's features, of results to as many plain samples;
      `frechet_judge_plain`: of the targets' own images to the same plain samples.
    - `balance`: the three in one figure, for choosing between runs: geometric mean of the share of the layout's gap
      that is closed, the share of the look that is kept, and `frechet_judge_plain / frechet_judge`.

    After a test each figure is written to `evaluation/` in the run folder with its protocol.

    Args:
        judge: name of a judge that ships with sisug, or a file.

    Raises:
        CheckpointError: the judge cannot be loaded.

    Source: our choice: a refinement branch can satisfy the clusters without a good image, so another network must look
        at the image.
    """

    def __init__(self, judge: str = "avatars") -> None:
        self.judge = load_judge(judge)
        classes = self.judge.labels.num_classes
        extractor = JudgeFeatures(self.judge)
        self.layout = SegmentationScore(classes)
        self.layout_source = SegmentationScore(classes)
        self.look = LookDifference(classes)
        self.look_unrelated = LookDifference(classes)
        self.frechet = FrechetDistance(extractor, self.judge.name)
        self.frechet_plain = FrechetDistance(extractor, self.judge.name)
        self.pairs = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Move judge and scores to the module's device, which the Trainer does not know of."""
        device = trainer.strategy.root_device
        self.judge.to(device)
        for metric in self._metrics():
            metric.to(device)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.pairs = 0  # validations count too

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Rearrangement,  # type: ignore[override]  # whatever the step returns
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._update(trainer, pl_module, outputs, batch, "val")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Rearrangement,  # type: ignore[override]  # whatever the step returns
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._update(trainer, pl_module, outputs, batch, "test")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        values = self._finish(trainer, pl_module, "test")
        if trainer.is_global_zero:
            self._write(trainer, pl_module, values)

    def _metrics(self) -> tuple[SegmentationScore | LookDifference | FrechetDistance, ...]:
        return (self.layout, self.layout_source, self.look, self.look_unrelated, self.frechet, self.frechet_plain)

    @torch.no_grad()
    def _update(
        self, trainer: Trainer, pl_module: LightningModule, done: Rearrangement, batch: dict[str, Any], stage: Stage
    ) -> None:
        assert isinstance(pl_module, RearrangerModule)
        source, target, result = (self.judge.segment(x) for x in (done.source, done.target, done.result))
        self.layout.update(result, target)
        self.layout_source.update(source, target)
        self.look.update(done.result, done.source, result, source)
        self.look_unrelated.update(done.target, done.source, target, source)
        generator = pl_module.generator
        seed = int(getattr(trainer.datamodule, "seed", 0))  # type: ignore[attr-defined]
        z = fixed_latents(batch["index"], generator.z_dim, seed=seed, purpose=f"{stage} plain")
        plain = generator(z, pl_module.truncation)
        self.frechet.update(plain, real=True)
        self.frechet.update(done.result, real=False)
        self.frechet_plain.update(plain, real=True)
        self.frechet_plain.update(done.target, real=False)
        self.pairs += len(z) * trainer.world_size

    def _finish(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> dict[str, float]:
        """Compute on every rank (the scores gather), log, and start afresh."""
        values = {
            "layout_miou": float(self.layout.compute().miou),
            "layout_miou_source": float(self.layout_source.compute().miou),
            "look": float(self.look.compute()),
            "look_unrelated": float(self.look_unrelated.compute()),
            "frechet_judge": float(self.frechet.compute()),
            "frechet_judge_plain": float(self.frechet_plain.compute()),
        }
        for metric in self._metrics():
            metric.reset()
        both = values | {"balance": _balance(**values)}
        pl_module.log_dict({f"{stage}/{name}": value for name, value in both.items()})
        return values

    def _write(self, trainer: Trainer, pl_module: LightningModule, values: dict[str, float]) -> None:
        assert isinstance(pl_module, RearrangerModule)
        for name, value in values.items():
            ProtocolRecord(
                metric=f"test/{name}",
                value=value,
                samples={"pairs": self.pairs} | ({"plain": self.pairs} if name.startswith("frechet") else {}),
                split="test",
                seeds={"latents": int(getattr(trainer.datamodule, "seed", 0))},  # type: ignore[attr-defined]
                extractor=self.judge.name if name.startswith("frechet") else None,
                segmenter=None if name.startswith("frechet") else self.judge.name,
                fingerprints={"generator": pl_module.generator.fingerprint, "judge": self.judge.fingerprint},
            ).write(run_folder(trainer) / "evaluation" / f"{name}.json")


def _balance(
    layout_miou: float,
    layout_miou_source: float,
    look: float,
    look_unrelated: float,
    frechet_judge: float,
    frechet_judge_plain: float,
) -> float:
    layout = (layout_miou - layout_miou_source) / max(1 - layout_miou_source, 1e-6)
    return balance(layout, 1 - look / max(look_unrelated, 1e-6), frechet_judge_plain / max(frechet_judge, 1e-6))
