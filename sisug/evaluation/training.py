"""Trainings and tests within an evaluation: no logger, no bar, none of Lightning's remarks (evaluation)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer

from sisug.training.checkpoint_io import AtomicCheckpointIO
from sisug.training.lightning_cli import quieten_lightning

Precision = Literal["32-true", "bf16-mixed"]
"""Of training, as Lightning names it; scores are always taken in float32."""


def trainer_in(folder: Path, device: torch.device, **settings: Any) -> Trainer:
    """A Trainer that leaves nothing but checkpoints.

    Args:
        folder: of the checkpoints.
        device: to compute on.
        settings: what else the Trainer is to do.
    """
    gpu = device.type == "cuda"
    return Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices=[device.index or 0] if gpu else 1,
        default_root_dir=folder,
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[AtomicCheckpointIO()],
        **settings,
    )


@contextmanager
def without_remarks() -> Iterator[None]:
    """Without Lightning's remarks, which would come anew for each training."""
    quieten_lightning()
    log = logging.getLogger("lightning.pytorch")
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)
