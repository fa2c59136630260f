"""A rearranger small enough to train in a second, and a quiet Trainer: what the tests of its training share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sisug.data.latents import LatentDataModule
from sisug.proxies import OnlineClustering
from sisug.rearranger import RearrangerModule

TERMS = ("reconstruction", "image", "perceptual", "mask", "style", "adversarial")


def small_module(generator: Path, kind: type[RearrangerModule] = RearrangerModule, **settings: Any) -> RearrangerModule:
    """A module for features of 8 px, with every loss switched on; always the same weights."""
    torch.manual_seed(0)
    small = {"generator": str(generator), "split": 8, "clusters": 4, "normalisation": "instance", "width": 8}
    small |= {"key_channels": 8, "bands": 2, "refinement": 1} | {f"{term}_weight": 1.0 for term in TERMS}
    return kind(**(small | settings))


def quiet_trainer(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    """One epoch on the CPU, without files."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    return Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        **(quiet | {"max_epochs": 1} | settings),
    )


def train(module: LightningModule, folder: Path, *callbacks: Callback, images: int = 12, **settings: Any) -> Trainer:
    """Fit the codebook, train on `images` images in batches of 4, then validate on 4 pairs."""
    clustering = OnlineClustering(sample_images=8, rows_per_image=32, iterations=5, restarts=1, refresh_every=0)
    trainer = quiet_trainer(folder, clustering, *callbacks, **settings)
    trainer.fit(module, datamodule=LatentDataModule(images, val_pairs=4, test_pairs=4, batch_size=4))
    return trainer
