"""One cell of an ablation (evaluation of stage 1): a rearranger trained through Lightning, and its scores."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from sisug.data.latents import LatentDataModule
from sisug.errors import ConfigError, RunError
from sisug.evaluation.training import Precision, trainer_in, without_remarks
from sisug.generators.checkpoints import images_seen
from sisug.proxies import OnlineClustering
from sisug.rearranger import RearrangerModule
from sisug.rearranger.quality import RearrangementQuality
from sisug.rearranger.trained import REMEDY


@dataclass(frozen=True)
class Training:
    """Everything that decides a trained rearranger, beside the generator's weights.

    Args:
        settings: of `RearrangerModule`, without its seed.
        clustering: of `OnlineClustering`, without its seed.
        images: to train on.
        checkpoint_every: images between two checkpoints.
        batch_size: images a step.
        precision: of training.
        seed: of weights, latents and clustering.
    """

    settings: Mapping[str, Any]
    images: int
    checkpoint_every: int
    batch_size: int
    precision: Precision
    seed: int
    clustering: Mapping[str, Any] = field(default_factory=dict)

    def module(self) -> RearrangerModule:
        """The untrained module; always the same weights, and the global random state stays as it is.

        Raises:
            SisugError: settings that cannot be used.
        """
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            try:
                return RearrangerModule(**self.settings, seed=self.seed)
            except (TypeError, ValueError) as error:
                raise ConfigError(
                    f"a rearranger with {dict(self.settings)}", str(error), "correct the values in base and grid"
                ) from error

    def callback(self) -> OnlineClustering:
        """What fits the codebook.

        Raises:
            SisugError: settings that cannot be used.
        """
        try:
            return OnlineClustering(**self.clustering, seed=self.seed)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"clustering with {dict(self.clustering)}", str(error), "correct the values in clustering"
            ) from error

    def run(self, folder: Path, device: torch.device) -> Path:
        """Train, or go on where an earlier run was interrupted, or nothing where it was finished.

        Args:
            folder: of the checkpoint; belongs to this training alone.
            device: to train on.

        Returns:
            The checkpoint.

        Raises:
            SisugError: the codebook cannot be fitted, or training ended early.
        """
        file = folder / "last.ckpt"
        seen = images_seen(file, REMEDY) if file.is_file() else None
        if seen == self.images:
            return file
        checkpoints = ModelCheckpoint(
            folder, filename=file.stem, save_top_k=1, save_on_train_epoch_end=True, enable_version_counter=False
        )
        data = LatentDataModule(self.checkpoint_every, batch_size=self.batch_size, seed=self.seed)
        with without_remarks():
            trainer = trainer_in(
                folder,
                device,
                max_epochs=self.images // self.checkpoint_every,
                precision=self.precision,
                limit_val_batches=0,
                callbacks=[self.callback(), checkpoints],
            )
            trainer.fit(self.module(), datamodule=data, ckpt_path=None if seen is None else str(file))
        done = images_seen(file, REMEDY) if file.is_file() else 0
        if done != self.images:
            raise RunError(
                f"training in {folder} ended after {done} of {self.images} images",
                "it was interrupted",
                "give the same command again: it goes on from there",
            )
        return file

    def scores(self, checkpoint: Path, judge: str, pairs: int, seed: int, device: torch.device) -> dict[str, float]:
        """What a test of stage 1 logs, over pairs of samples that no training saw; averaged weights, float32.

        Args:
            checkpoint: of `run`.
            judge: name or file of the judge.
            pairs: of samples.
            seed: of the samples.
            device: to compute on.

        Raises:
            DataError: images without a score, as of a training that diverged.
        """
        folder = checkpoint.parent / f"test-seed{seed}"
        data = LatentDataModule(self.batch_size, test_pairs=pairs, batch_size=self.batch_size, seed=seed)
        with without_remarks():
            # A test needs none of the callbacks that trained.
            warnings.filterwarnings("ignore", message=r".*callbacks used to create the checkpoint need to be provided")
            trainer = trainer_in(folder, device, callbacks=[RearrangementQuality(judge)], enable_checkpointing=False)
            (found,) = trainer.test(self.module(), datamodule=data, ckpt_path=str(checkpoint), verbose=False)
        return {name.removeprefix("test/"): float(value) for name, value in found.items()}
