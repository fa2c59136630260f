"""Checks that every score makes on the images and masks it is given (evaluation)."""

from __future__ import annotations

import logging
import math

import torch
from jaxtyping import Shaped
from torch import Tensor

from sisug.errors import ConfigError, DataError
from sisug.metrics._once import say_once
from sisug.types import Images

logger = logging.getLogger(__name__)

_FAR = 100.0
"""No generator that is any good overshoots [-1, 1] so far; pictures in [0, 255] do."""

_SUSPICIOUS = 8
"""Images of one batch that are all brighter than middle grey everywhere are hardly pictures in [-1, 1]."""


def clean_images(images: Shaped[Tensor, "*shape"], name: str) -> Images:
    """Give images as float32 in [-1, 1]: clamped, because generators overshoot and an 8-bit file would clamp as well.

    Args:
        images: RGB images, nominally in [-1, 1].
        name: what to call them in an error.

    Raises:
        DataError: not RGB, not floating point, with values that are not finite, or as far out as bytes would be.
    """
    if images.dim() != 4 or images.shape[1] != 3:
        raise DataError(
            f"{name} have the shape {tuple(images.shape)}",
            "scores are defined on RGB images of the shape (batch, 3, height, width)",
            "add the batch dimension, or repeat a grey channel three times",
        )
    if not images.is_floating_point():
        raise DataError(
            f"{name} have the type {images.dtype}",
            "images are floating point in [-1, 1] here",
            "convert bytes with images / 127.5 - 1",
        )
    images = images.detach().float()
    if not images.numel():
        return images
    lowest, highest = torch.stack(images.aminmax()).tolist()  # NaN spreads to both
    if not -math.inf < lowest <= highest < math.inf:
        raise DataError(
            f"{name} hold NaN or infinity",
            "a score of them would mean nothing; often a generator or a rearranger that diverged",
            "go back to an earlier checkpoint",
        )
    if max(-lowest, highest) > _FAR:
        raise DataError(
            f"{name} go from {lowest:g} to {highest:g}",
            "images lie in [-1, 1] here: these are bytes as floating point, or those of a generator that diverged",
            "convert bytes with images / 127.5 - 1",
        )
    if lowest >= 0 and len(images) >= _SUSPICIOUS:
        say_once(
            logger,
            f"{name}: a whole batch has no value below 0. Images lie in [-1, 1] here; if yours lie in [0, 1], the "
            "scores are wrong: convert them with images * 2 - 1.",
        )
    return images.clamp(-1, 1)


def check_labels(labels: Shaped[Tensor, "*shape"], count: int, ignore: int, name: str) -> None:
    """Refuse label maps that hold anything but 0 to count - 1 and the ignored value.

    Raises:
        DataError: another type than an integer, or a label out of range.
    """
    if labels.is_floating_point() or labels.is_complex():
        raise DataError(
            f"{name} have the type {labels.dtype}",
            "labels are whole numbers",
            "take argmax over the class scores first",
        )
    wrong = labels[(labels != ignore) & ((labels < 0) | (labels >= count))]
    if wrong.numel():
        raise DataError(
            f"{name} hold the label {int(wrong[0])} ({wrong.numel()} such pixels)",
            f"labels go from 0 to {count - 1}, and {ignore} is ignored",
            "use the label set that the masks were made with, and resize masks by nearest neighbour only",
        )


def check_label_count(count: int, ignore: int, name: str) -> None:
    """Refuse a number of labels that makes no sense or that swallows the ignored value.

    Raises:
        ConfigError: fewer than two labels, or the ignored value is one of them.
    """
    if count < 2:
        raise ConfigError(f"{name}={count}", "with one label there is nothing to tell apart", "pass 2 or more")
    if 0 <= ignore < count:
        raise ConfigError(
            f"{name}={count} with ignore={ignore}",
            f"{ignore} would be a label and the mark of pixels to leave out at the same time",
            "pass another ignore value, for example -1",
        )


def check_prediction(
    prediction: Shaped[Tensor, "*first"], target: Shaped[Tensor, "*second"], count: int, ignore: int
) -> Shaped[Tensor, "*first"]:
    """Refuse masks that cannot be scored, and say which pixels count.

    Args:
        prediction: class of each pixel; anything where the target is `ignore`.
        target: class of each pixel, or `ignore`.
        count: number of classes.
        ignore: value of target pixels that do not count.

    Returns:
        Whether the pixel counts.

    Raises:
        DataError: masks of different shapes, labels out of range, no class predicted where there is one.
    """
    check_same_shape(prediction, target, "prediction and target masks")
    check_labels(target, count, ignore, "target masks")
    counted = target != ignore
    predicted = prediction[counted]
    if bool((predicted == ignore).any()):
        raise DataError(
            f"predicted masks hold the ignored value {ignore} where the target has a class",
            "a prediction must name a class, otherwise leaving pixels out would raise the score",
            "take argmax over the classes alone",
        )
    check_labels(predicted, count, ignore, "predicted masks")
    return counted


def check_same_shape(first: Shaped[Tensor, "*first"], second: Shaped[Tensor, "*second"], names: str) -> None:
    """Refuse pairs of another shape.

    Raises:
        DataError: the shapes differ.
    """
    if first.shape != second.shape:
        raise DataError(
            f"{names} have the shapes {tuple(first.shape)} and {tuple(second.shape)}",
            "they are compared pixel by pixel",
            "resize one to the other beforehand (masks by nearest neighbour) and pass equal batches",
        )
