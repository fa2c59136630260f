"""Ends a training by the clock (every stage): in order, with a validation and a checkpoint."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from sisug.errors import check_range


class TimeLimit(Callback):
    """Ends training at the batch after so many seconds; the epoch then ends as always, with scores and checkpoints.

    The clock starts with each call: a run that goes on has the time again (Lightning's Timer counts all parts of a run
    together). Ranks end at the same batch.

    Args:
        seconds: of training, what comes before its first batch not included, above 0.

    Raises:
        ConfigError: no time at all.

    Source: our choice.
    """

    def __init__(self, seconds: float) -> None:
        check_range(seconds=seconds, above=0)
        self.seconds = seconds
        self._ends: float | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._ends is None:
            self._ends = time.monotonic() + self.seconds

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._ends is not None
        over = time.monotonic() >= self._ends
        if trainer.world_size > 1:
            over = trainer.strategy.reduce_boolean_decision(over, all=False)
        if over:
            trainer.should_stop = True
