"""Training of the judge segmenter on images with true masks; the trained judge scores every other stage."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from sisug.common.seeding import generator_for
from sisug.labels.label_sets import label_set
from sisug.metrics.segmentation import SegmentationScore
from sisug.segmentation.degradation import degrade
from sisug.segmentation.losses import SegmentationLoss
from sisug.segmentation.network import JudgeNetwork


class JudgeModule(LightningModule):
    """Trains a `JudgeNetwork` on batches of images and true masks.

    Args:
        labels: name of the label set that the masks are in.
        encoder: encoder name of segmentation_models_pytorch.
        decoder_channels: channels of the decoder stages, coarse to fine.
        detail_channels: channels of the branch at full resolution.
        dice_weight: weight of the Dice loss beside cross-entropy.
        degraded: share of training images that are blurred, tinted and disturbed, 0 to 1.
        learning_rate: highest learning rate of AdamW, a step.
        weight_decay: of AdamW.
        warm_up: share of the training during which the learning rate rises, 0 to 1; then it falls to 0 as a cosine.
        channels_last: store tensors with channels last, faster on CPUs and recent GPUs.
        seed: of the degradations.

    Raises:
        DataError: for a label set that does not exist.

    Source: our choice.
    """

    images_seen: Tensor

    def __init__(
        self,
        labels: str = "avatars",
        encoder: str = "tu-resnet10t",
        decoder_channels: tuple[int, int, int] = (96, 48, 24),
        detail_channels: int = 24,
        dice_weight: float = 0.5,
        degraded: float = 0.5,
        learning_rate: float = 4e-3,
        weight_decay: float = 1e-2,
        warm_up: float = 0.1,
        channels_last: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.labels = label_set(labels)
        self.degraded, self.seed = degraded, seed
        self.learning_rate, self.weight_decay, self.warm_up = learning_rate, weight_decay, warm_up
        self.network = JudgeNetwork(self.labels.num_classes, encoder, decoder_channels, detail_channels)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network.to(memory_format=self.memory_format)
        self.loss = SegmentationLoss(dice_weight, self.labels.ignore)
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        self.val_score = SegmentationScore(self.labels.num_classes, self.labels.ignore)
        self.test_score = SegmentationScore(self.labels.num_classes, self.labels.ignore)

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        images, masks = batch["image"], batch["mask"]
        stream = generator_for(
            seed=self.seed, rank=self.global_rank, images_seen=int(self.images_seen), purpose="degradation"
        )
        images = degrade(images, self.degraded, stream).contiguous(memory_format=self.memory_format)
        loss = self.loss(self.network(images), masks)
        self.images_seen += len(images) * self.trainer.world_size
        self.log("train/loss", loss, prog_bar=True, batch_size=len(images))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        self.val_score.update(self._predict(batch["image"]), batch["mask"])

    def on_validation_epoch_end(self) -> None:
        self.log("val/miou", self.val_score.compute().miou, prog_bar=True)
        self.val_score.reset()

    def test_step(self, batch: dict[str, Any], batch_index: int) -> None:
        self.test_score.update(self._predict(batch["image"]), batch["mask"])

    def on_test_epoch_end(self) -> None:
        result = self.test_score.compute()
        self.log("test/miou", result.miou)
        self.log_dict({f"test/iou_{name}": iou for name, iou in zip(self.labels.classes, result.iou, strict=True)})
        self.test_score.reset()

    def _predict(self, images: Tensor) -> Tensor:
        return self.network(images.contiguous(memory_format=self.memory_format)).argmax(dim=1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=self.learning_rate,
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=self.warm_up,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["label_set"] = self.labels.to_dict()
