"""Pictures of the few-shot protocol (evaluation): targets, sisug's images and LinearGAN's side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sisug.common.image_grid import write_grid
from sisug.evaluation.few_shot.targets import Targets
from sisug.labels.label_sets import LabelSet
from sisug.synthesis.result import contact_sheet, sheet_row


def write_sheet(path: Path, targets: Targets, labels: LabelSet, sisug: Path, lineargan: Path) -> None:
    """A row a target: its mask, and what both methods made of it.

    Args:
        path: of the PNG.
        targets: layouts.
        labels: give the colours.
        sisug: images that `measure` kept.
        lineargan: the same.
    """
    made, found = _read(sisug), _read(lineargan)
    rows = [
        sheet_row(name, labels.colorize(mask), torch.cat([ours, theirs]))
        for name, mask, ours, theirs in zip(targets.names, targets.masks, made, found, strict=False)
    ]
    looks = [f"{name}, seed {seed}" for name in ("sisug", "LinearGAN") for seed in range(made.shape[1])]
    write_grid(contact_sheet(rows, looks), path)


def _read(path: Path) -> Float[Tensor, "target seed 3 height width"]:
    """Kept images in [-1, 1]."""
    kept: np.ndarray = np.load(path, allow_pickle=False)
    return torch.from_numpy(kept).float() / 127.5 - 1
