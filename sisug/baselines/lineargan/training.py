"""Training of LinearGAN's extractor (baseline of the few-shot protocol): on a few labelled samples, or on many that a
segmenter labels.

Numbers are those of the authors' published settings, for generators of 256 to 1024 px; the same serve all sizes here.
Adapted: noise is constant, as everywhere in sisug (theirs is drawn anew every epoch), and masks may have any size
(theirs 512 px for faces, 256 px for scenes).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from sisug.baselines.lineargan.arithmetic import repeatable_gradients
from sisug.baselines.lineargan.losses import class_loss
from sisug.baselines.lineargan.network import LinearExtractor, resized
from sisug.common.seeding import fixed_latents, generator_for
from sisug.errors import DataError, check_range
from sisug.generators import GeneratorBackbone
from sisug.labels.label_sets import LabelSet
from sisug.types import Images, Masks, Styles

log = logging.getLogger(__name__)

EPOCHS = 50
ITEMS = 128
"""Samples shown in an epoch of few-shot training, over and over again: 128 / N steps of all N."""

DECAY = 20
"""Epoch, of `EPOCHS`, from which the learning rate is a tenth."""

GROUPS = {0: 1, 2: 4, 18: 64}
"""Images of a step in training on many samples, by the epoch from which they hold."""

LAYER_RATE = 10.0
"""Learning rate of the layers' weights, relative to that of the others."""

BATCH = 8
"""Samples whose features are computed at once."""


def train_extractor(
    generator: GeneratorBackbone,
    ws: Styles,
    masks: Int64[Tensor, "labelled height width"],
    labels: LabelSet,
    *,
    epochs: int = EPOCHS,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> LinearExtractor:
    """Train an extractor on a few labelled samples of a generator.

    Adam on the cross-entropy, all samples in each step, 128 / N steps an epoch; the learning rate falls to a tenth
    after two fifths of the epochs (20 of 50).

    Args:
        generator: frozen.
        ws: styles of the labelled samples (in the published protocol, truncated by 0.5).
        masks: of the samples, square, of any size.
        labels: label set of the masks.
        epochs: 50 in the published protocol.
        learning_rate: of Adam, at the start.
        seed: of the first weights.

    Returns:
        On the generator's device, frozen.

    Raises:
        DataError: masks that do not fit the samples or the label set, or nothing but ignored pixels.
        ConfigError: a number out of range.
    """
    check_range(epochs=epochs, learning_rate=learning_rate, above=0)
    _check_masks(masks, labels, len(ws))
    device = next(generator.parameters(), ws).device
    with repeatable_gradients(device):
        ws, masks = ws.detach().clone().to(device), masks.clone().to(device)
        size = masks.shape[-1]
        with torch.no_grad():
            parts = [generator.layers(part) for part in torch.split(ws, BATCH)]
            layers = [torch.cat(each) for each in zip(*parts, strict=True)]
            # Finer features than the masks would be resized in each step; a linear reading may as well come after.
            layers = [resized(each, size) if each.shape[-1] > size else each for each in layers]
        extractor = _new(layers, labels, generator, seed, weighted=False).to(device)
        optimizer = torch.optim.Adam(extractor.parameters(), learning_rate)
        for epoch in range(epochs):
            _set_rates(optimizer, learning_rate, 0.1 if epoch * EPOCHS >= DECAY * epochs else 1.0)
            for _ in range(math.ceil(ITEMS / len(ws))):
                loss = class_loss(extractor(layers, size), masks, labels.ignore).mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    log.info("linear extractor: %d labelled samples, cross-entropy %.3f", len(ws), float(loss.detach()))
    return extractor.requires_grad_(False)


def train_extractor_full(
    generator: GeneratorBackbone,
    teacher: Callable[[Images], Masks],
    labels: LabelSet,
    *,
    images_per_epoch: int = 1024,
    learning_rate: float = 1e-3,
    truncation: float = 0.5,
    batch: int = BATCH,
    seed: int = 0,
) -> LinearExtractor:
    """Train an extractor on a generator's samples that a segmenter labels, each seen once.

    50 epochs; a step is taken on 1 image in the first two, on 4 up to the eighteenth, then on 64, and the learning rate
    is a tenth from the twentieth on. A weight for each layer is learnt with the rest, at ten times the rate.

    Args:
        generator: frozen.
        teacher: images in [-1, 1] to their masks, for example `Judge.segment`; on the generator's device.
        labels: label set of the teacher's masks.
        images_per_epoch: 1024 in the published settings, 51,200 images in all; fewer shorten every epoch.
        learning_rate: of Adam, at the start.
        truncation: of the samples.
        batch: images whose features are computed at once; the steps do not depend on it.
        seed: of the samples and the first weights.

    Returns:
        On the generator's device, frozen.

    Raises:
        DataError: the teacher's masks do not fit the images or the label set.
        ConfigError: a number out of range.
    """
    check_range(images_per_epoch=images_per_epoch, learning_rate=learning_rate, batch=batch, above=0)
    check_range(truncation=truncation)
    device = next(generator.parameters(), torch.empty(0)).device

    @torch.no_grad()
    def labelled(numbers: Tensor) -> tuple[list[Tensor], Masks]:
        z = fixed_latents(numbers, generator.z_dim, seed=seed, purpose="lineargan full").to(device)
        ws = generator.map(z, truncation)
        images = generator.images(ws)
        masks = teacher(images).clone()  # a teacher in inference mode gives tensors that no gradient can use
        _check_masks(masks, labels, len(ws))
        return generator.layers(ws), masks

    with repeatable_gradients(device):
        extractor = _new(labelled(torch.zeros(1, dtype=torch.int64))[0], labels, generator, seed, weighted=True)
        extractor = extractor.to(device)
        groups: list[dict[str, Any]] = [
            {"params": [extractor.weight]},
            {"params": [extractor.layer_weight], "scale": LAYER_RATE},
        ]
        optimizer = torch.optim.Adam(groups, learning_rate)
        for epoch in range(EPOCHS):
            _set_rates(optimizer, learning_rate, 0.1 if epoch >= DECAY else 1.0)
            step = GROUPS[max(start for start in GROUPS if start <= epoch)]
            numbers = torch.arange(epoch * images_per_epoch, (epoch + 1) * images_per_epoch)
            total = 0.0
            for group in torch.split(numbers, step):
                optimizer.zero_grad()
                for part in torch.split(group, batch):
                    layers, masks = labelled(part)
                    loss = class_loss(extractor(layers, masks.shape[-1]), masks, labels.ignore).sum() / len(group)
                    loss.backward()  # type: ignore[no-untyped-call]
                    total += float(loss.detach()) * len(group)
                optimizer.step()
            log.info("linear extractor: epoch %d of %d, cross-entropy %.3f", epoch + 1, EPOCHS, total / len(numbers))
    return extractor.requires_grad_(False)


def _new(
    layers: list[Tensor], labels: LabelSet, generator: GeneratorBackbone, seed: int, *, weighted: bool
) -> LinearExtractor:
    """An extractor with first weights as torch's convolutions draw them: uniform, up to 1 / sqrt(channels)."""
    extractor = LinearExtractor([each.shape[1] for each in layers], labels, generator.fingerprint, weighted=weighted)
    stream = generator_for(seed=seed, rank=0, images_seen=0, purpose="lineargan weights")
    with torch.no_grad():
        for part, width in zip(
            torch.split(extractor.weight, list(extractor.widths), dim=1), extractor.widths, strict=True
        ):
            part.uniform_(-(width**-0.5), width**-0.5, generator=stream)
    return extractor


def _set_rates(optimizer: torch.optim.Optimizer, learning_rate: float, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * factor * group.get("scale", 1.0)


def _check_masks(masks: Tensor, labels: LabelSet, samples: int) -> None:
    """Refuse masks that do not belong to so many samples, are not square or say nothing."""
    if masks.ndim != 3 or len(masks) != samples or samples == 0 or masks.shape[1] != masks.shape[2]:
        raise DataError(
            f"masks of shape {tuple(masks.shape)} for {samples} samples",
            "each sample has one mask, as high as wide",
            "give one square mask a sample, and at least one sample",
        )
    if not bool(labels.histogram(masks).any()):
        raise DataError("no pixel of the masks is labelled", f"all are {labels.ignore} (ignored)", "label some")
