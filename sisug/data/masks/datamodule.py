"""Folders of images and masks as Lightning data loaders (judges, stage 2 and evaluation)."""

from __future__ import annotations

from typing import Any, get_args

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from sisug.common.seeding import generator_for
from sisug.data.masks.dataset import ImageMaskFolder, ImageMaskSample
from sisug.data.masks.pairs import Crop
from sisug.data.masks.splits import SPLITS, Split, check_disjoint, divided
from sisug.data.order import EndlessOrder
from sisug.errors import ConfigError, DataError
from sisug.labels.label_sets import LabelSet
from sisug.training.data_workers import wait_for_main_process
from sisug.training.throughput import images_seen_of


class ImageMaskDataModule(LightningDataModule):
    """Train, validation and test loaders of a folder with `images/` and `masks/`.

    Batches are dicts: ``image`` float in [-1, 1], ``mask`` int64, ``index`` int64. The order of the training images
    depends on the seed and the images seen only, their mirroring on seed, epoch and index; classes that swap in a
    mirror are swapped.

    Splits are the lists `splits/train.txt`, `val.txt` and `test.txt` of the folder, as `sisug data convert` writes
    them; no two may name one image. A folder without lists, or what the lists leave where none is for training, is
    divided by a hash of each name, so that further images move none of the others.

    Args:
        folder: with `images/` and `masks/`.
        resolution: height and width in pixels, 4 to 4096.
        labels: name of a label set, or its JSON file; None for the folder's own `labels.json`.
        batch_size: images a step and rank.
        val_share: share of images for validation where the folder has no lists, 0 to 1.
        test_share: share of images for test where the folder has no lists, 0 to 1.
        tolerance: largest difference per colour channel, 0 to 255, at which a pixel still counts as the nearest class.
        skip_bad: leave out what has no partner, instead of refusing the folder.
        flip: mirror half of the training images, others every epoch. Only where left and right mean the same.
        num_workers: data processes; 0 reads in the main process.
        seed: of order and mirroring.
        crop: "centre" takes the largest centred square of images and masks that are not square; "none" refuses them.

    Raises:
        ConfigError: a value out of range, or no label set.
        DataError: images and masks that do not match, pictures that are not square, or an empty split.
    """

    def __init__(
        self,
        folder: str,
        resolution: int,
        labels: str | None = None,
        batch_size: int = 32,
        val_share: float = 0.05,
        test_share: float = 0.05,
        tolerance: int = 0,
        skip_bad: bool = False,
        flip: bool = False,
        num_workers: int = 0,
        seed: int = 0,
        crop: Crop = "none",
    ) -> None:
        super().__init__()
        if batch_size < 1 or num_workers < 0:
            raise ConfigError(
                f"batch_size {batch_size} with num_workers {num_workers}",
                "a step needs an image, and processes are counted from 0",
                "correct the number",
            )
        if min(val_share, test_share) < 0 or val_share + test_share >= 1:
            raise ConfigError(
                f"val_share {val_share} and test_share {test_share}",
                "they are shares of the images, and some must remain to train on",
                "choose shares of 0 to 1 that are less than 1 together",
            )
        # Not for the logger, which refuses a module's and a data module's value of one name (labels, seed) that differ.
        self.save_hyperparameters(logger=False)
        self.whole = ImageMaskFolder(folder, resolution, labels, tolerance=tolerance, skip_bad=skip_bad, crop=crop)
        self.batch_size, self.num_workers, self.flip, self.seed = batch_size, num_workers, flip, seed
        self.names = _split_names(self.whole, val_share, test_share)
        if len(self.names["train"]) < batch_size:
            raise DataError(
                f"{len(self.names['train'])} training images in {folder} with batches of {batch_size}",
                "an epoch needs at least one whole batch",
                "lower data.batch_size, or add images",
            )
        self.datasets: dict[Split, ImageMaskFolder] = {}

    @property
    def label_set(self) -> LabelSet:
        """Of the masks."""
        return self.whole.label_set

    @property
    def description(self) -> dict[str, Any]:
        """Which images these are, for records that travel: without a path of this machine."""
        return {
            "folder": self.whole.pairs.folder.resolve().name,
            "images": len(self.names["train"]),
            "sha256": self.whole.digest,
            "labels": self.label_set.name,
            "resolution": self.whole.resolution,
            "crop": self.whole.pairs.crop,
            "flip": self.flip,
        }

    def dataset(self, split: Split) -> ImageMaskFolder:
        """The images of a split.

        Args:
            split: train, val or test.

        Raises:
            DataError: it has none.
        """
        if split not in self.datasets:
            if not self.names[split]:
                raise DataError(
                    f"no {split} images in {self.whole.pairs.folder}",
                    f"its lists or shares leave none of {len(self.whole)} for {split}",
                    f"write their names into splits/{split}.txt, or raise data.{split}_share",
                )
            self.datasets[split] = self.whole.subset(self.names[split])
        return self.datasets[split]

    def setup(self, stage: str) -> None:
        """Open the splits that a stage needs.

        Args:
            stage: fit, validate or test.
        """
        needed: dict[str, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        for split in needed.get(stage, ("test",)):
            self.dataset(split)

    def train_dataloader(self) -> DataLoader[ImageMaskSample]:
        ranks, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        length = len(self.names["train"])
        order = EndlessOrder(length, length, self.batch_size, self._images_seen, ranks, rank, seed=self.seed)
        return self._loader("train", order)

    def _images_seen(self) -> int:
        return int(images_seen_of(self.trainer.lightning_module)) if self.trainer else 0

    def val_dataloader(self) -> DataLoader[ImageMaskSample]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[ImageMaskSample]:
        return self._loader("test")

    def _loader(self, split: Split, order: Sampler[int] | None = None) -> DataLoader[ImageMaskSample]:
        return DataLoader(
            self.dataset(split),
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
        stream = generator_for(seed=self.seed, rank=0, images_seen=self.trainer.current_epoch, purpose="mask flips")
        mirrored_of = torch.rand(len(self.names["train"]), generator=stream) < 0.5
        mirrored = mirrored_of[batch["index"].cpu()].to(batch["image"].device)
        image = torch.where(mirrored[:, None, None, None], batch["image"].flip(-1), batch["image"])
        mask = torch.where(mirrored[:, None, None], self.label_set.flip(batch["mask"]), batch["mask"])
        return {**batch, "image": image, "mask": mask}


def _split_names(whole: ImageMaskFolder, val_share: float, test_share: float) -> dict[Split, list[str]]:
    lists: dict[Split, list[str]] = {}
    for split in get_args(Split):
        path = whole.pairs.folder / SPLITS / f"{split}.txt"
        if path.is_file():
            lists[split] = list(whole.subset(path).names)
    check_disjoint(lists, whole.pairs.folder)
    return divided(whole.names, lists, val_share, test_share)
