"""Callbacks that the tests of whole runs name by class_path: they end processes, and note what each rank holds."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sisug.proxies import KMeansFit, OnlineClustering
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
    """OnlineClustering as it would be without its broadcast: each rank keeps what it has itself."""

    def cluster(self, trainer: Trainer, pl_module: LightningModule) -> Any:
        sample, rows = self._sample, []

        def sample_and_keep(*arguments: Any) -> Any:
            features, own = sample(*arguments)
            rows.append(own)
            return features, own

        def broadcast(outcome: tuple[KMeansFit | None, Any], src: int = 0) -> tuple[KMeansFit | None, Any]:
            if outcome[0] is None:  # a rank that only waits for the others' result clusters what it has
                return self._fit(rows[-1], pl_module.codebook, int(pl_module.images_seen)), None  # type: ignore[arg-type]
            return outcome

        self._sample = sample_and_keep  # type: ignore[method-assign]
        trainer.strategy.broadcast = broadcast  # type: ignore[assignment, method-assign]
        try:
            return super().cluster(trainer, pl_module)
        finally:
            self._sample = sample  # type: ignore[method-assign]
            del trainer.strategy.broadcast


class FailingClustering(OnlineClustering):
    """Fails on rank 0 only, the one that clusters, with an error that is not sisug's own."""

    def _fit(self, *_: Any) -> KMeansFit:
        raise RuntimeError("k-means broke")
