"""A folder of images as Lightning data loaders, for the training of generators on photos of one's own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Sampler, Subset

from sisug.data.images.cache import PreparedImages
from sisug.data.images.scan import WHITE, check_form
from sisug.data.order import EndlessOrder
from sisug.errors import ConfigError, DataError
from sisug.labels.image_files import Colour
from sisug.labels.image_folders import check_folder
from sisug.training.data_workers import wait_for_main_process
from sisug.training.throughput import images_seen_of

logger = logging.getLogger(__name__)


class ImageFolderDataModule(LightningDataModule):
    """Images of any size and format, checked, brought to one resolution once, and served in an endless order.

    Batches are dicts: ``image`` float in [-1, 1] (batch, 3, resolution, resolution) and ``index`` int64. Training
    order and mirroring depend on the seed and the images seen only (buffer ``images_seen`` of the module), so a run
    that goes on after any checkpoint equals an unbroken one. Validation and test serve each image once, in the order
    of the names and never mirrored: they are the real side of the Fréchet distance.

    The first use decodes every image and keeps the result under the environment variable SISUG_CACHE (else
    ~/.cache/sisug); with several processes the first one does so while the others wait, 30 minutes at most by torch's
    default, so prepare a very large folder with a run on one device.

    Args:
        folder: where the images lie; folders in it count, hidden files do not.
        resolution: height and width in pixels, 4 to 4096: the generator's. Others are cropped to their central square
            and resized; smaller ones are refused.
        batch_size: images a step and rank.
        images_per_epoch: images over all ranks after which validation runs and a checkpoint is written, rounded down
            to whole steps; it can be many times the images in the folder. None for as many as there are.
        val_length: images for validation and test, spread evenly over the folder's names; None for all.
        flip: mirror half of the training images, others in every pass. Only where left and right mean the same.
        skip_bad: leave out unreadable and too small images instead of refusing the folder.
        background: colour behind transparent parts: red, green and blue, 0 to 255.
        num_workers: data processes; 0 reads in the main process, which up to 256 px is fast enough for most training.
        seed: of order and mirroring.

    Raises:
        ConfigError: a value out of range, or more images a step than there are.
        DataError: no folder, no images in it, or unusable ones.
    """

    def __init__(
        self,
        folder: str,
        resolution: int,
        batch_size: int = 32,
        images_per_epoch: int | None = None,
        val_length: int | None = None,
        flip: bool = False,
        skip_bad: bool = False,
        background: Colour = WHITE,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_form(resolution, background)
        for name, value in (("batch_size", batch_size), ("val_length", val_length)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value}", "it is a number of images", "make it 1 or more")
        if images_per_epoch is not None and images_per_epoch < batch_size:
            raise ConfigError(
                f"images_per_epoch {images_per_epoch} with batches of {batch_size}",
                "an epoch needs at least one whole step",
                "raise data.images_per_epoch or lower data.batch_size",
            )
        if num_workers < 0:
            raise ConfigError(f"num_workers {num_workers}", "it is a number of processes", "make it 0 or more")
        check_folder(Path(folder).expanduser())
        self.save_hyperparameters()
        self.folder, self.resolution, self.background = folder, resolution, background
        self.batch_size, self.images_per_epoch, self.val_length = batch_size, images_per_epoch, val_length
        self.flip, self.skip_bad, self.num_workers, self.seed = flip, skip_bad, num_workers, seed
        self._images: PreparedImages | None = None

    @property
    def images(self) -> PreparedImages:
        """The prepared images; made now if need be."""
        if self._images is None:
            self._images = PreparedImages(self.folder, self.resolution, self.background, self.skip_bad)
        return self._images

    @property
    def length(self) -> int:
        """Number of usable images in the folder."""
        return len(self.images)

    @property
    def description(self) -> dict[str, Any]:
        """Which images these are, for records that travel: without a path of this machine."""
        return {
            "folder": self.images.report.folder,
            "images": self.length,
            "left_out": self.images.report.left_out,
            "sha256": self.images.digest,
            "resolution": self.resolution,
            "flip": self.flip,
        }

    def prepare_data(self) -> None:
        """Check and prepare the images where that is not done yet, and say in the log what they are."""
        logger.info("%s", self.images.report.text())
        if self.images.report.left_out:
            logger.warning("left out, as skip_bad says: %s", self.images.report.problems())
        self._check_counts()

    def setup(self, stage: str) -> None:
        """Open the prepared images.

        Args:
            stage: fit, validate or test.
        """
        self._check_counts()

    def _check_counts(self) -> None:
        step = self.batch_size * self._ranks()[0]
        if self.length < step:
            raise DataError(
                f"{self.length} images in {self.folder} with {step} a step ({self.batch_size} a rank)",
                "a step needs different images",
                f"lower data.batch_size to {max(self.length // self._ranks()[0], 1)} or less, or add images",
            )
        if self.images_per_epoch is not None and self.images_per_epoch < step:
            raise ConfigError(
                f"images_per_epoch {self.images_per_epoch} with {step} images a step over all ranks",
                "an epoch needs at least one whole step",
                "raise data.images_per_epoch or lower data.batch_size",
            )
        if self.val_length is not None and self.val_length > self.length:
            raise ConfigError(
                f"val_length {self.val_length} of {self.length} images",
                "each image is served once",
                f"lower data.val_length to {self.length}, or leave it out for all images",
            )

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _images_seen(self) -> int:
        return int(images_seen_of(self.trainer.lightning_module)) if self.trainer else 0

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        ranks, rank = self._ranks()
        order = EndlessOrder(
            self.length,
            self.images_per_epoch or self.length,
            self.batch_size,
            self._images_seen,
            num_ranks=ranks,
            rank=rank,
            flip=self.flip,
            seed=self.seed,
        )
        return self._loader(self.images, order)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        count = self.val_length or self.length
        # Evenly over the names: folders are often sorted by kind, and their beginning is not like the whole.
        chosen = [i * self.length // count for i in range(count)]
        return self._loader(Subset(self.images, chosen))

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self.val_dataloader()

    def _loader(self, images: Any, order: Sampler[int] | None = None) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            images,
            batch_size=self.batch_size,
            sampler=order,
            collate_fn=_as_it_is,
            num_workers=self.num_workers,
            worker_init_fn=wait_for_main_process,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def _as_it_is(batch: Any) -> Any:
    """In place of collation: the images come as a batch."""
    return batch
