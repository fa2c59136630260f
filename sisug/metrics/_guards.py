"""Checks that every score makes on the images and masks it is given (evaluation)."""

from __future__ import annotations

from jaxtyping import Shaped
from torch import Tensor

from sisug.errors import ConfigError, DataError
from sisug.types import Images


def clean_images(images: Shaped[Tensor, "*shape"], name: str) -> Images:
    """Give images as float32 in [-1, 1]: clamped, because generators overshoot and an 8-bit file would clamp as well.

    Args:
        images: RGB images, nominally in [-1, 1].
        name: what to call them in an error.

    Raises:
        DataError: not RGB, not floating point, or with values that are not finite.
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
    if not bool(images.isfinite().all()):
        raise DataError(
            f"{name} hold NaN or infinity",
            "a score of them would mean nothing; often a generator or a rearranger that diverged",
            "go back to an earlier checkpoint",
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
