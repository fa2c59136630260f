"""The smallest module and data that train under `sisug fit`; tests of the command line and the callbacks use them."""

from __future__ import annotations

import signal
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class ToyModule(LightningModule):
    def __init__(
        self, lr: float = 0.1, fail_at: int | None = None, interrupt_at: int | None = None, signal: int = 2
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.fail_at, self.interrupt_at, self.signal = lr, fail_at, interrupt_at, signal
        self.net = nn.Linear(4, 1)
        self.images_seen: Tensor
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (x,) = batch
        self.images_seen += len(x) * self.trainer.world_size
        if self.fail_at is not None and self.images_seen >= self.fail_at:
            raise RuntimeError("toy failure")
        if self.interrupt_at is not None and self.images_seen >= self.interrupt_at:
            signal.raise_signal(self.signal)
        loss = self.net(x).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self.net(batch[0]).square().mean())

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test/lr", self.lr)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class ToyData(LightningDataModule):
    def __init__(self, images: int = 16, batch_size: int = 4) -> None:
        super().__init__()
        self.images, self.batch_size = images, batch_size

    def loader(self) -> DataLoader[Any]:
        x = torch.randn(self.images, 4, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(x), batch_size=self.batch_size)

    train_dataloader = val_dataloader = test_dataloader = loader
