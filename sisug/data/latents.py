"""Latents as data (every stage): endless random samples for training, fixed pairs for validation and test."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from sisug.common.seeding import fixed_latents, generator_for
from sisug.errors import ConfigError


class PositionDataset(Dataset[dict[str, int]]):
    """Positions 0 to length - 1: what to draw there depends on the run, so the latents are drawn after the loader.

    Args:
        length: number of positions.
    """

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"index": index}


class LatentDataModule(LightningDataModule):
    """Random latents for training, fixed pairs of latents for validation and test.

    Training batches hold `index` and `z`, drawn anew from (seed, rank, images seen), so that a resumed run equals an
    unbroken one. Validation and test batches hold `index`, `z` (the source) and `z_target` (whose layout the source
    shall take).

    Args:
        images_per_epoch: images over all ranks after which validation runs and a checkpoint is written.
        val_pairs: pairs for validation.
        test_pairs: pairs for test; other latents than those of validation.
        batch_size: images a step and rank.
        seed: of all draws.

    Raises:
        ConfigError: a count below what one batch needs.
    """

    def __init__(
        self,
        images_per_epoch: int = 4096,
        val_pairs: int = 256,
        test_pairs: int = 512,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 2 or images_per_epoch < batch_size or min(val_pairs, test_pairs) < 2:
            raise ConfigError(
                f"images_per_epoch {images_per_epoch}, batch_size {batch_size}, "
                f"val_pairs {val_pairs}, test_pairs {test_pairs}",
                "a batch needs two images, as each takes the layout of another; an epoch one batch; scores two pairs",
                "raise the smaller numbers",
            )
        self.save_hyperparameters()
        self.images_per_epoch = images_per_epoch
        self.val_pairs = val_pairs
        self.test_pairs = test_pairs
        self.batch_size = batch_size
        self.seed = seed

    def train_dataloader(self) -> DataLoader[dict[str, int]]:
        # Indices alone pass through the loader, so workers would only cost time.
        return DataLoader(PositionDataset(self.images_per_epoch), self.batch_size, drop_last=True)

    def val_dataloader(self) -> DataLoader[dict[str, int]]:
        return DataLoader(PositionDataset(self.val_pairs), self.batch_size)

    def test_dataloader(self) -> DataLoader[dict[str, int]]:
        return DataLoader(PositionDataset(self.test_pairs), self.batch_size)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Draw the latents, once the batch is on its device and the images seen are known."""
        assert self.trainer is not None
        module: Any = self.trainer.lightning_module
        z_dim, index = int(module.generator.z_dim), batch["index"]
        if self.trainer.training:
            stream = generator_for(
                seed=self.seed, rank=self.trainer.global_rank, images_seen=int(module.images_seen), purpose="latents"
            )
            return batch | {"z": torch.randn(len(index), z_dim, generator=stream).to(index.device)}
        split = "test" if self.trainer.testing else "val"
        return batch | {
            "z": fixed_latents(index, z_dim, seed=self.seed, purpose=f"{split} source"),
            "z_target": fixed_latents(index, z_dim, seed=self.seed, purpose=f"{split} target"),
        }
