"""Mappers of the few-shot protocol (evaluation): trained by Lightning, resumed where a run was interrupted."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from sisug.data.latents import LatentDataModule
from sisug.errors import RunError
from sisug.evaluation.few_shot.settings import MapperTraining
from sisug.evaluation.training import trainer_in, without_remarks
from sisug.generators.checkpoints import read_checkpoint
from sisug.mapper.module import MapperModule
from sisug.training.run_folder import check_run_folder
from sisug.training.throughput import images_seen_of

logger = logging.getLogger(__name__)


def trained_mapper(
    folder: Path,
    name: str,
    *,
    rearranger: str,
    generator: str | dict[str, Any] | None,
    labels: str,
    annotations: Path,
    shots: int,
    decides: Mapping[str, str],
    training: MapperTraining,
    seed: int,
    device: torch.device,
) -> Path:
    """Train a mapper of masks from labelled samples, or go on where that was interrupted.

    Args:
        folder: of the protocol's mappers; each has a folder there that is named after all that decides it.
        name: of this one.
        rearranger: file or name of the rearranger that it begins with.
        generator: file or preset in the place of the one that the rearranger names.
        labels: name or file of the label set.
        annotations: folder of the labelled samples.
        shots: how many there are.
        decides: fingerprints of the rearranger and of the labelled samples.
        training: how much it learns.
        seed: of first weights and training samples.
        device: to train on.

    Returns:
        Its checkpoint.

    Raises:
        SisugError: it cannot be trained; what an earlier run saved stays.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = MapperModule(
            rearranger=rearranger,
            generator=generator,
            condition="seg",
            labels=labels,
            annotations=str(annotations),
            judge=None,
            shots=shots,
            reader_images=training.reader_images,
            seed=seed,
        )
        # Where files lie decides nothing.
        named = dict(module.hparams) | {"rearranger": None, "generator": None, "annotations": None}
        text = json.dumps([named, dict(decides), asdict(training)], sort_keys=True, default=str)
        home = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        checkpoint = home / "last.ckpt"
        earlier = _images_seen(checkpoint)
        total = training.total
        if earlier < total:
            check_run_folder(home)
            logger.info("%s: training from %d to %d images", name, earlier, total)
            with without_remarks():
                keep = ModelCheckpoint(
                    home, filename="last", save_top_k=1, save_on_train_epoch_end=True, enable_version_counter=False
                )
                trainer = trainer_in(
                    home,
                    device,
                    precision=training.precision,
                    max_epochs=training.epochs,
                    limit_val_batches=0,
                    callbacks=[keep, _Progress(name, total)],
                )
                trainer.fit(
                    module,
                    datamodule=LatentDataModule(training.images_per_epoch, 2, 2, training.batch_size, seed),
                    ckpt_path=checkpoint if earlier else None,
                )
    if (done := _images_seen(checkpoint)) < total:
        raise RunError(
            f"training in {home} ended after {done} of {total} images",
            "it was interrupted",
            "give the same command again: it goes on from there",
        )
    return checkpoint


class _Progress(Callback):
    """A line in the log at the end of each epoch: the command shows no bar."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total = name, total

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logger.info("%s: %d of %d images", self.name, int(images_seen_of(pl_module)), self.total)


def _images_seen(checkpoint: Path) -> int:
    """Images that an earlier run trained on."""
    if not checkpoint.is_file():
        return 0
    content = read_checkpoint(checkpoint, "the mapper", "delete it; the mapper is trained anew")
    return int(content["state_dict"]["images_seen"])
