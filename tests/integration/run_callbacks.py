"""Callbacks that the tests of whole runs name by class_path: they end processes, and note what each rank holds."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sisug.proxies import OnlineClustering
from sisug.training import checkpoint_io


class SignalAt(Callback):
    """Sends a signal to its own process once so many images were seen.

    Args:
        images: when.
        name: SIGKILL, SIGINT, ...
    """

    def __init__(self, images: int, name: str = "SIGKILL") -> None:
        self.images, self.signal = images, signal.Signals[name]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if int(pl_module.images_seen) >= self.images:  # type: ignore[arg-type]
            os.kill(os.getpid(), self.signal)


class KillWhileSaving(Callback):
    """Kills its own process when half of a checkpoint is written.

    Args:
        checkpoint: which one, from 0.
    """

    def __init__(self, checkpoint: int = 1) -> None:
        self.left = checkpoint

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        save = torch.save

        def save_or_die(content: Any, file: Any) -> None:
            if self.left == 0:
                save(content, file)
                file.flush()
                file.truncate(file.tell() // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            save(content, file)

        checkpoint_io.torch.save = save_or_die  # type: ignore[attr-defined]


class RankDigests(Callback):
    """Writes what each rank holds at the end of training: a checksum of every tensor, and the codebook's centroids.

    Args:
        folder: where `rank_N.json` is to lie.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        tensors = {name: value for name, value in pl_module.state_dict().items() if isinstance(value, torch.Tensor)}
        for number, optimizer in enumerate(trainer.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{number}.{index}.{name}": value for name, value in state.items()}
        digests = {
            name: hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest() for name, value in tensors.items()
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"rank_{trainer.global_rank}.json").write_text(json.dumps(digests))


class ClusteringWithoutBroadcast(OnlineClustering):
    """OnlineClustering where nothing passes between ranks: each clusters what it has sampled itself."""

    def cluster(self, trainer: Trainer, pl_module: LightningModule) -> Any:
        strategy = trainer.strategy
        with (
            patch.object(strategy, "broadcast", lambda local, src=0: local),
            patch.object(type(strategy), "is_global_zero", new=True),
            patch.object(pl_module, "all_gather", lambda local: local),
        ):
            return super().cluster(trainer, pl_module)


class FailingClustering(OnlineClustering):
    """Fails on rank 0 only, the one that clusters, with an error that is not sisug's own."""

    def _fit(self, *_: Any) -> Any:
        raise RuntimeError("k-means broke")
