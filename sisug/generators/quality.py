"""Realism and variety of a generator in training (before stage 1), under a named feature extractor."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from sisug.common.fingerprint import fingerprint
from sisug.errors import ConfigError, check_range
from sisug.generators.module import GeneratorModule
from sisug.metrics import FrechetDistance, ProtocolRecord
from sisug.training.run_folder import run_folder

Stage = Literal["val", "test"]


class GeneratorQuality(Callback):
    """Compares samples of the averaged weights to the real images of the validation or test loader.

    Logged under `val/` or `test/`:

    - `frechet_NAME`: Fréchet distance, in the features of the extractor of that name, between real images and samples
      (full range, constant noise, always the same latents).
    - `variety_NAME`: how far samples spread in these features, over how far real images do: 1 when they are as varied,
      towards 0 when the generator collapses.

    After a test both are written to `evaluation/` in the run folder with their protocol.

    Args:
        extractor: images in [-1, 1] to features, with attributes `name` (part of the logged names) and `num_features`.
        samples: how many to make; the distance falls with their number, so compare like with like.
        batch_size: samples made at a time.

    Raises:
        ConfigError: fewer than 2 samples, or an extractor without a name.
    """

    def __init__(self, extractor: nn.Module, samples: int = 2000, batch_size: int = 64) -> None:
        check_range(samples=samples, above=1)
        check_range(batch_size=batch_size, above=0)
        name = getattr(extractor, "name", None)
        if not isinstance(name, str):
            raise ConfigError(
                f"the extractor {type(extractor).__name__} has no name",
                "a Fréchet distance means nothing without the name of its features",
                "give it an attribute `name`",
            )
        self.samples, self.batch_size = samples, batch_size
        # The real side never changes: it is computed in the first validation, and kept.
        self.frechet = FrechetDistance(extractor, name, keep_real=True)
        self.real_images = 0
        self.latest: dict[str, dict[str, Any]] = {}
        self._stage: Stage | None = None
        self._wanted = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Move the extractor to the module's device, which the Trainer does not know of."""
        self.frechet.to(trainer.strategy.root_device)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start("val")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start("test")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._update_real(batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._update_real(batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        values = self._finish(trainer, pl_module, "test")
        if trainer.is_global_zero:
            self._write(trainer, pl_module, values)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note the latest figures with their protocol, for the sidecar of the exported file."""
        if self.latest:
            checkpoint.setdefault("measured", {}).update(self.latest)

    def _start(self, stage: Stage) -> None:
        """Forget the real side where it is another set's."""
        if self._stage != stage:
            self.frechet.forget_real()
        self._stage = stage
        self._wanted = self.frechet.real_samples == 0

    @torch.no_grad()
    def _update_real(self, batch: dict[str, Any]) -> None:
        if self._wanted:
            self.frechet.update(batch["image"], real=True)

    @torch.no_grad()
    def _finish(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> dict[str, float]:
        """Make samples, each rank its share, and log; on every rank, as scores are gathered."""
        assert isinstance(pl_module, GeneratorModule)
        if trainer.sanity_checking:
            self.frechet.forget_real()  # it saw part of the real images only
            return {}
        numbers = torch.arange(trainer.global_rank, self.samples, trainer.world_size, device=pl_module.device)
        for part in torch.split(numbers, self.batch_size):
            self.frechet.update(pl_module.sample(part, stage), real=False)
        seen = torch.tensor(self.frechet.real_samples, device=pl_module.device)  # where NCCL can add it up
        self.real_images = int(trainer.strategy.reduce(seen, reduce_op="sum"))
        values = {
            f"frechet_{self.frechet.name}": float(self.frechet.compute()),
            f"variety_{self.frechet.name}": self.frechet.variety,
        }
        self.frechet.reset()
        protocol = {"extractor": self.frechet.name, "real": self.real_images, "generated": self.samples}
        self.latest = {f"{stage}/{name}": {"value": value, **protocol} for name, value in values.items()}
        pl_module.log_dict({f"{stage}/{name}": value for name, value in values.items()}, prog_bar=True, sync_dist=True)
        return values

    def _write(self, trainer: Trainer, pl_module: LightningModule, values: dict[str, float]) -> None:
        assert isinstance(pl_module, GeneratorModule)
        weights = pl_module.average.state_dict_for_network(pl_module.generator)
        for name, value in values.items():
            ProtocolRecord(
                metric=f"test/{name}",
                value=value,
                samples={"real": self.real_images, "generated": self.samples},
                split="test",
                seeds={"latents": pl_module.seed},
                extractor=self.frechet.name,
                fingerprints={"generator": fingerprint(weights)},
            ).write(run_folder(trainer) / "evaluation" / f"{name}.json")
