"""The avatars' three splits as Lightning data loaders, for whatever trains or is scored on images with masks."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from sisug.common.seeding import generator_for
from sisug.data.avatars.cache import MaterialisedAvatars
from sisug.data.avatars.dataset import AvatarSample, AvatarsDataset, Split
from sisug.data.avatars.drawing import style_version
from sisug.data.order import EndlessOrder
from sisug.errors import ConfigError
from sisug.labels.label_sets import AVATARS, LabelSet
from sisug.training.data_workers import wait_for_main_process
from sisug.training.throughput import images_seen_of


class AvatarsDataModule(LightningDataModule):
    """Train, validation and test loaders of cached avatars.

    Batches are dicts: ``image`` float in [-1, 1], ``mask`` int64, ``index`` int64. The order of the training
    images depends on the seed and the images seen only, their mirroring on seed, epoch and index.

    Args:
        resolution: height and width in pixels, 16 to 1024.
        train_length: training avatars.
        val_length: validation avatars.
        test_length: test avatars.
        batch_size: images a step and rank.
        num_workers: data processes; 0 reads in the main process, which at 64 px is fast enough for most training.
        flip: mirror half of the training images, others every epoch.
        seed: of order and mirroring.

    Raises:
        ConfigError: for a value out of range.
    """

    label_set: LabelSet = AVATARS

    def __init__(
        self,
        resolution: int = 64,
        train_length: int = 20_000,
        val_length: int = 1_000,
        test_length: int = 2_000,
        batch_size: int = 32,
        num_workers: int = 0,
        flip: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.lengths: dict[Split, int] = {"train": train_length, "val": val_length, "test": test_length}
        for split, length in self.lengths.items():
            AvatarsDataset(split, length, resolution)  # refuses what is out of range before anything is drawn
        if not 1 <= batch_size <= train_length:
            raise ConfigError(
                f"batches of {batch_size} from {train_length} training avatars",
                "an epoch needs at least one whole batch",
                "lower data.batch_size or raise data.train_length",
            )
        self.save_hyperparameters()
        self.resolution, self.batch_size, self.num_workers = resolution, batch_size, num_workers
        self.flip, self.seed = flip, seed
        self.datasets: dict[Split, MaterialisedAvatars] = {}

    @property
    def description(self) -> dict[str, Any]:
        """Which images these are, for records that travel."""
        return {
            "drawn": "avatars",
            "images": self.lengths["train"],
            "style": style_version(),
            "resolution": self.resolution,
            "flip": self.flip,
        }

    def prepare_data(self) -> None:
        """Draw what is not cached yet, once a machine."""
        for split, length in self.lengths.items():
            MaterialisedAvatars(split, length, self.resolution)

    def setup(self, stage: str) -> None:
        """Open the splits that a stage needs.

        Args:
            stage: fit, validate or test.
        """
        needed: dict[str, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        for split in needed.get(stage, ("test",)):
            if split not in self.datasets:
                self.datasets[split] = MaterialisedAvatars(split, self.lengths[split], self.resolution)

    def train_dataloader(self) -> DataLoader[AvatarSample]:
        ranks, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        length = self.lengths["train"]
        order = EndlessOrder(length, length, self.batch_size, self._images_seen, ranks, rank, seed=self.seed)
        return self._loader("train", order)

    def _images_seen(self) -> int:
        return int(images_seen_of(self.trainer.lightning_module)) if self.trainer else 0

    def val_dataloader(self) -> DataLoader[AvatarSample]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[AvatarSample]:
        return self._loader("test")

    def _loader(self, split: Split, order: Sampler[int] | None = None) -> DataLoader[AvatarSample]:
        return DataLoader(
            self.datasets[split],
            batch_size=self.batch_size,
            sampler=order,
            num_workers=self.num_workers,
            worker_init_fn=wait_for_main_process,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Mirror training images and their masks, once they are on their device."""
        if not self.flip or self.trainer is None or not self.trainer.training:
            return batch
        stream = generator_for(seed=self.seed, rank=0, images_seen=self.trainer.current_epoch, purpose="avatar flips")
        mirrored_of = torch.rand(self.lengths["train"], generator=stream) < 0.5
        mirrored = mirrored_of[batch["index"].cpu()].to(batch["image"].device)
        image = torch.where(mirrored[:, None, None, None], batch["image"].flip(-1), batch["image"])
        mask = torch.where(mirrored[:, None, None], self.label_set.flip(batch["mask"]), batch["mask"])
        return {**batch, "image": image, "mask": mask}
