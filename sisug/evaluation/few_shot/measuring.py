"""One cell of the few-shot table (evaluation): a method's images of the targets, timed, read by the judge, scored."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sisug.common.atomic_file import atomic_write
from sisug.common.image_bytes import to_bytes
from sisug.common.provenance import machine
from sisug.errors import DataError
from sisug.evaluation.few_shot.methods import Method
from sisug.evaluation.few_shot.targets import Targets
from sisug.metrics import PerImageSegmentationScore, SegmentationScore
from sisug.segmentation.judges.protocol import JudgeProtocol
from sisug.types import Images, Masks

SHOWN_TARGETS, SHOWN_SEEDS = 8, 3
"""Of the images that are kept for the pictures."""

ALONE = 3
"""Images that are made one by one, for their time."""

BACKGROUND = "background"
"""Class whose own score is left out of the mean, where the label set has it."""


@dataclass(frozen=True)
class Measurement:
    """What one method reached with one set of labels; JSON values.

    Args:
        miou: per image, then per class, then over the classes without the background (SCS), all images.
        miou_by_seed: the same for the images of each seed.
        dataset_miou: by one confusion matrix over all images, background included.
        accuracy: share of pixels of all images, background included.
        iou: of each class, as `miou` is made of; None for classes that never occur.
        seconds_alone: from a mask to one image, with nothing shared; the median of `ALONE` images.
        seconds_in_batches: the same for all images together, divided by their number.
        images: how many.
        machine: that they were made on.
        details: of the method; JSON values.
    """

    miou: float
    miou_by_seed: list[float]
    dataset_miou: float
    accuracy: float
    iou: dict[str, float | None]
    seconds_alone: float
    seconds_in_batches: float
    images: int
    machine: str
    details: dict[str, Any] = field(default_factory=dict)


def measure(
    method: Method,
    targets: Targets,
    judge: JudgeProtocol,
    seeds: Sequence[int],
    *,
    device: torch.device,
    pictures: Path,
    batch_size: int,
    details: Mapping[str, Any],
) -> Measurement:
    """Make an image of each target with each seed, and score them all.

    Args:
        method: makes them.
        targets: layouts.
        judge: reads them; on the device.
        seeds: one a sample of each target.
        device: that is waited for when time is taken.
        pictures: file for the first images.
        batch_size: images that the judge reads at a time.
        details: of the method, for the record.

    Raises:
        DataError: images that cannot be scored: of another size or number, or not finite.
    """
    classes, ignore = judge.labels.classes, judge.labels.ignore
    background = classes.index(BACKGROUND) if BACKGROUND in classes else None
    per_image = PerImageSegmentationScore(len(classes), background, ignore)
    whole = SegmentationScore(len(classes), ignore)
    alone = _alone(method, targets.masks, seeds[0], device)
    by_seed: list[float] = []
    shown: list[Images] = []
    start = _now(device)
    images_of = method(targets.masks)
    seconds = _now(device) - start
    for seed in seeds:
        start = _now(device)
        images = images_of(seed)
        seconds += _now(device) - start
        found = read(images, judge, device, batch_size)
        one = PerImageSegmentationScore(len(classes), background, ignore)
        for score in (one, per_image, whole):
            score.update(found, targets.masks)
        by_seed.append(float(one.compute().miou))
        if len(shown) < SHOWN_SEEDS:
            shown.append(images[:SHOWN_TARGETS].cpu())
    _keep(shown, pictures)
    pooled, dataset = per_image.compute(), whole.compute()
    return Measurement(
        miou=float(pooled.miou),
        miou_by_seed=by_seed,
        dataset_miou=float(dataset.miou),
        accuracy=float(dataset.accuracy),
        iou={name: None if math.isnan(iou) else iou for name, iou in zip(classes, pooled.iou.tolist(), strict=True)},
        seconds_alone=alone,
        seconds_in_batches=seconds / (len(targets.masks) * len(seeds)),
        images=pooled.images,
        machine=machine_name(device),
        details=dict(details),
    )


def _alone(method: Method, masks: Masks, seed: int, device: torch.device) -> float:
    """Seconds of one image by itself; what a process does but once, in its first, does not count."""
    taken = []
    for turn in range(ALONE + 1):
        mask = masks[turn % len(masks)][None]
        start = _now(device)
        method(mask)(seed)
        taken.append(_now(device) - start)
    return statistics.median(taken[1:])


def read(images: Images, judge: JudgeProtocol, device: torch.device, batch_size: int) -> Masks:
    """The judge's masks of images, on the CPU.

    Args:
        images: in [-1, 1].
        judge: on the device.
        device: of the judge.
        batch_size: images at a time.

    Raises:
        DataError: values that are not finite.
    """
    if not bool(torch.isfinite(images).all()):
        raise DataError(
            "synthesised images with values that are not finite", "the method diverged", "lower its learning rate"
        )
    return torch.cat([judge.segment(part.to(device)).cpu() for part in torch.split(images, batch_size)])


def machine_name(device: torch.device) -> str:
    """The processor behind a device.

    Args:
        device: CPU or GPU.
    """
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(machine()["cpu"])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _keep(shown: Sequence[Images], path: Path) -> None:
    """Write some images as bytes, (target, seed, 3, height, width)."""
    with atomic_write(path) as file:
        np.save(file, torch.stack([to_bytes(images) for images in shown], dim=1).numpy())
