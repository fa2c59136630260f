"""Target masks of the few-shot protocol (evaluation): layouts that no generator made, with their names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sisug.errors import ConfigError, DataError
from sisug.evaluation.held_out import DRAWN, open_held_out
from sisug.labels.label_sets import LabelSet
from sisug.types import Masks

BATCH = 16
"""Masks that are read at a time."""


@dataclass(frozen=True)
class Targets:
    """Layouts to synthesise.

    Args:
        masks: at the generator's resolution, on the CPU.
        names: one a mask.
        record: where they come from; JSON values.
    """

    masks: Masks
    names: tuple[str, ...]
    record: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the masks."""
        return hashlib.sha256(self.masks.numpy().tobytes()).hexdigest()


def find_targets(data: str, split: str, count: int, labels: LabelSet, label_name: str, resolution: int) -> Targets:
    """The first masks of held-out data; always the same.

    Args:
        data: see `open_held_out`.
        split: see `open_held_out`.
        count: how many.
        labels: of the masks.
        label_name: how the label set was named.
        resolution: of the generator, pixels.

    Raises:
        ConfigError: data with other classes, or without masks.
        DataError: too few masks, data that cannot be used, or a mask without a labelled pixel.
    """
    held = open_held_out(data, split, resolution, None if data == DRAWN else label_name)
    if held.labels is None or held.labels.classes != labels.classes:
        found = "it has no masks" if held.labels is None else f"its masks are in {held.labels.name!r}"
        raise ConfigError(
            f"targets of {held.name}, with the label set {labels.name!r}",
            found,
            "name the label set of its masks in labels, or other data with masks",
        )
    held.check_count(count)
    masks = torch.cat([batch.masks for batch in held.batches(0, count, BATCH) if batch.masks is not None])
    blank = (masks == labels.ignore).flatten(1).all(dim=1)
    if bool(blank.any()):
        raise DataError(
            f"target {int(blank.nonzero()[0])} of {held.name} has no labelled pixel",
            "any image would match it",
            "leave it out of the split, or correct its mask",
        )
    return Targets(masks, tuple(f"{held.name} {index}" for index in range(count)), held.record(0, count))
