"""Layout and realism of images from drawn avatars' conditions, read by a judge (evaluation of stage 2)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sisug.common.seeding import fixed_latents, generator_for
from sisug.data.avatars import MaterialisedAvatars
from sisug.errors import check_range
from sisug.mapper.module import MapperModule
from sisug.metrics import FrechetDistance, ProtocolRecord, SegmentationResult, SegmentationScore
from sisug.metrics.balance import balance
from sisug.segmentation.judge import JudgeFeatures
from sisug.segmentation.loading import load_judge
from sisug.training.run_folder import run_folder

Stage = Literal["val", "test"]

BATCH = 32


class DrawnConditionQuality(Callback):
    """Scores held-out inputs: conditions made from drawn avatars and their true masks, which no generator has seen.

    Logged under `val/` or `test/`:

    - `drawn_miou`, `drawn_accuracy`: the judge's masks of the synthesised images against the true masks behind the
      inputs, one confusion matrix, one random look each; `drawn_miou_seen`: over the classes that the labels showed.
    - `drawn_frechet`: Fréchet distance, in the judge's features, of the synthesised images to as many other drawn
      avatars; `drawn_frechet_plain`: of plain samples with the same looks to the same avatars.
    - `balance`: layout and realism in one figure, for choosing between runs: geometric mean of `drawn_miou` and
      `drawn_frechet_plain / drawn_frechet`.
    - in a test, `sample_miou`, `sample_accuracy`: the same scores where the inputs are made of plain samples and the
      judge's masks of them, with other looks: layouts that the generator can show.

    After a test each figure is written to `evaluation/` in the run folder with its protocol and the classes' scores.

    Args:
        judge: name of a judge that ships with sisug, or a file.
        val_masks: inputs of a validation.
        test_masks: inputs of a test.

    Raises:
        ConfigError: fewer than 2 inputs.
        CheckpointError: the judge cannot be loaded.

    Source: our choice; the paper's tables compare a segmenter's masks of the images with the input too.
    """

    def __init__(self, judge: str = "avatars", val_masks: int = 256, test_masks: int = 1000) -> None:
        check_range(val_masks=val_masks, test_masks=test_masks, above=1)
        self.judge = load_judge(judge)
        self.masks: dict[Stage, int] = {"val": val_masks, "test": test_masks}
        self.plain: dict[Stage, float] = {}  # does not change in training

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._score(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._score(trainer, pl_module, "test")

    @torch.no_grad()
    def _score(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        assert isinstance(pl_module, MapperModule)
        device, generator, count = pl_module.device, pl_module.generator, self.masks[stage]
        judge = self.judge.to(device)
        score, of_samples = (
            SegmentationScore(judge.labels.num_classes, judge.labels.ignore).to(device) for _ in range(2)
        )
        extractor = JudgeFeatures(judge)
        made, plain = (FrechetDistance(extractor, judge.name).to(device) for _ in range(2))
        # The second half is what both are compared with.
        drawn = MaterialisedAvatars(stage, 2 * count, generator.resolution)
        rank, ranks = trainer.global_rank, trainer.world_size
        for start in range(rank * BATCH, count, ranks * BATCH):
            index = torch.arange(start, min(start + BATCH, count))
            batch = _batch(drawn, index.tolist(), device)
            stream = generator_for(seed=0, rank=0, images_seen=start, purpose=f"{stage} drawn conditions")
            encoded = pl_module.condition.extract(batch["image"], batch["mask"], stream)
            z = fixed_latents(index.to(device), generator.z_dim, seed=0, purpose=f"{stage} drawn looks")
            images = pl_module.synthesise(z, pl_module.map_condition(encoded))
            score.update(judge.segment(images), batch["mask"])
            if stage == "test":
                sample_z = fixed_latents(index.to(device), generator.z_dim, seed=0, purpose="test sample conditions")
                sample = generator.images(generator.map(sample_z, pl_module.truncation))
                mask = judge.segment(sample)
                layouts = pl_module.map_condition(pl_module.condition.extract(sample, mask, stream))
                of_samples.update(judge.segment(pl_module.synthesise(z, layouts)), mask)
            others = _batch(drawn, (index + count).tolist(), device)["image"]
            made.update(others, real=True)
            made.update(images, real=False)
            if stage not in self.plain:
                plain.update(others, real=True)
                plain.update(generator.images(generator.map(z, pl_module.truncation)), real=False)
        if stage not in self.plain:
            self.plain[stage] = float(plain.compute())
        values = {f"{stage}/drawn_frechet": float(made.compute()), f"{stage}/drawn_frechet_plain": self.plain[stage]}
        if stage == "test":
            result = of_samples.compute()
            values |= {"test/sample_miou": float(result.miou), "test/sample_accuracy": float(result.accuracy)}
        self._log(trainer, pl_module, stage, score.compute(), values)

    def _log(
        self,
        trainer: Trainer,
        module: MapperModule,
        stage: Stage,
        result: SegmentationResult,
        others: dict[str, float],
    ) -> None:
        values = {
            f"{stage}/drawn_miou": float(result.miou),
            f"{stage}/drawn_accuracy": float(result.accuracy),
        } | others
        if module.lesson is not None and any(module.lesson.seen.values()):
            shown = torch.tensor([count > 0 for count in module.lesson.seen.values()], device=result.iou.device)
            values[f"{stage}/drawn_miou_seen"] = float(result.iou[shown].nanmean())
        realism = others[f"{stage}/drawn_frechet_plain"] / max(others[f"{stage}/drawn_frechet"], 1e-6)
        both = values | {f"{stage}/balance": balance(float(result.miou), realism)}
        module.log_dict(both, rank_zero_only=True, batch_size=1)
        if stage == "test" and trainer.is_global_zero:
            shares = {
                f"{stage}/drawn_iou_{name}": float(iou)
                for name, iou in zip(self.judge.labels.classes, result.iou, strict=True)
            }
            self._write(trainer, module, values | shares)

    def _write(self, trainer: Trainer, module: MapperModule, values: dict[str, float]) -> None:
        for name, value in values.items():
            distance = "frechet" in name
            ProtocolRecord(
                metric=name,
                value=value,
                samples={"inputs": self.masks["test"]} | ({"drawn": self.masks["test"]} if distance else {}),
                split="test",
                seeds={"looks": 0},
                extractor=self.judge.name if distance else None,
                segmenter=None if distance else self.judge.name,
                fingerprints={"generator": module.generator.fingerprint, "judge": self.judge.fingerprint},
            ).write(run_folder(trainer) / "evaluation" / f"{name.split('/')[1]}.json")


def _batch(drawn: MaterialisedAvatars, indices: list[int], device: torch.device) -> dict[str, Any]:
    samples = [drawn[i] for i in indices]
    return {
        "image": torch.stack([each["image"] for each in samples]).to(device),
        "mask": torch.stack([each["mask"] for each in samples]).to(device),
    }
