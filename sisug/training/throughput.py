"""Progress in images and speed in images a second (every stage), logged and shown in the progress bar."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from sisug.errors import ConfigError


def images_seen_of(module: LightningModule) -> Tensor:
    """The module's count of images trained on, over all ranks (0-dimensional int64 buffer `images_seen`).

    Raises:
        ConfigError: the module has no such buffer.
    """
    count = getattr(module, "images_seen", None)
    if not isinstance(count, Tensor):
        raise ConfigError(
            f"{type(module).__name__} has no buffer `images_seen`",
            "progress, schedules and random streams are counted in images",
            'register it in __init__ (`self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))`) and '
            "add batch size times world size to it at the end of training_step",
        )
    return count


class Throughput(Callback):
    """Logs `progress/kimg` (thousands of images seen) and `progress/images_per_second`.

    The speed is a mean over windows of `log_every_n_steps` batches, all ranks together, data loading included and
    validation left out. Values stay on the device until a logger wants them, so that no step waits for a GPU.

    Source: our choice; `kimg` is the unit of the StyleGAN code bases.
    """

    def __init__(self) -> None:
        self._batches = 0
        self._window_start = 0.0
        self._images_at_start: Tensor | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._open_window(images_seen_of(pl_module))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._images_at_start is not None:
            self._open_window(images_seen_of(pl_module))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        seen = images_seen_of(pl_module)
        assert self._images_at_start is not None
        seconds = max(time.perf_counter() - self._window_start, 1e-6)
        pl_module.log("progress/kimg", seen / 1000)
        speed = (seen - self._images_at_start) / seconds
        pl_module.log("progress/images_per_second", speed)
        pl_module.log("images/s", speed, prog_bar=True, logger=False)  # a name that fits the bar
        self._batches += 1
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning's logger connector
        if self._batches % max(every, 1) == 0:
            self._open_window(seen)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._images_at_start = None

    def _open_window(self, images_seen: Tensor) -> None:
        self._window_start = time.perf_counter()
        self._images_at_start = images_seen.clone()
