"""What a user draws (condition of stage 2): read from files, and made from generator samples to train the mapper."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sisug.common.class_path import is_own
from sisug.errors import ConfigError
from sisug.labels.label_sets import LabelSet
from sisug.labels.pictures import Picture, read_picture
from sisug.types import Images, Masks

Encoded = Float[Tensor, "batch channel height width"]
"""Encoded conditions: one-hot classes with all zeros for don't-care, or one channel in [0, 1]."""


class Condition(ABC):
    """One kind of input: how it is read, how it is made from a generator sample, and how it is shown.

    The mapper sees the same encoding in training (``extract``) and in use (``from_picture``). This class shows and
    mirrors conditions of one channel in [0, 1]; those of label classes override both.

    A class of your own derives from this one, takes the label set first, and is named by `class_path` and `init_args`
    wherever a condition is named; its ``options`` repeat what it was given.

    Args:
        labels: the classes that masks have; None where the kind needs none.
    """

    name: ClassVar[str] = ""
    """In messages and records; empty for the class's own name."""
    needs_masks: bool = False
    """Whether ``extract`` needs label masks of the samples, from a segmenter."""

    def __init__(self, labels: LabelSet | None = None) -> None:
        self.labels = labels

    @property
    def channels(self) -> int:
        """Channels of the encoded condition."""
        return 1

    @property
    def options(self) -> dict[str, Any]:
        """What the constructor was given beyond the label set, as primitives."""
        return {}

    def prepare(self) -> None:  # noqa: B027  # most kinds need nothing
        """Load what ``extract`` needs besides images and masks, unless that is done: networks, for some kinds.

        ``extract`` does so when it is called; called before, it shows what is missing before anything expensive.
        ``from_picture`` needs nothing, so that a trained mapper works where its networks are not at hand.

        Raises:
            CheckpointError: weights cannot be loaded, or are not those that the condition was made with.
            ConfigError: a package that loads them is not installed.
        """

    @abstractmethod
    def extract(self, images: Images, masks: Masks | None, random: torch.Generator) -> Encoded:
        """Conditions of generator samples, for training pairs; on the images' device.

        Args:
            images: generator samples in [-1, 1].
            masks: their label masks, where ``needs_masks``; class numbers or the label set's ``ignore``.
            random: source of every random choice; its state alone decides them. It may live on another device.

        Raises:
            ConfigError: without masks, where they are needed.
        """

    @abstractmethod
    def from_picture(self, picture: Picture, size: int) -> Float[Tensor, "channel size size"]:
        """The condition in a picture that a user brings; what is doubtful about it goes to ``picture.warn``.

        Args:
            picture: from a file, or from memory.
            size: height and width to bring it to, pixels.

        Raises:
            DataError: for a picture that is not such a condition; the text lists what was found.
        """

    def load(self, path: Path, size: int) -> Float[Tensor, "channel size size"]:
        """The condition in a file that a user brings.

        Args:
            path: of a picture.
            size: height and width to bring it to, pixels.

        Raises:
            DataError: for a file that is not such a condition; the text lists what was found.
        """
        return self.from_picture(read_picture(path), size)

    def show(self, encoded: Encoded) -> UInt8[Tensor, "batch 3 height width"]:
        """Conditions as RGB pictures, for grids.

        Args:
            encoded: results of ``extract`` or ``from_picture``.
        """
        return (encoded.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)

    def flip(self, encoded: Encoded) -> Encoded:
        """Conditions of the horizontally mirrored images.

        Args:
            encoded: results of ``extract`` or ``from_picture``.
        """
        return encoded.flip(-1)

    def to_dict(self) -> dict[str, Any]:
        """Name, label set and options as primitives, so that a mapper's checkpoint explains its input; and the class,
        where it is no part of sisug.

        ``sisug.conditions.registry.condition_from_dict`` reads it.
        """
        labels = None if self.labels is None else self.labels.to_dict()
        kind = type(self)
        class_path = f"{kind.__module__}.{kind.__qualname__}"
        record = {"name": self.name or kind.__name__, "label_set": labels, "options": self.options}
        return record if is_own(class_path) else record | {"class_path": class_path}

    def _masks_needed(self, masks: Masks | None) -> Masks:
        if masks is None:
            raise ConfigError(
                f"condition {self.name!r} without label masks",
                "it is made from masks of the samples",
                "give the masks of a segmenter (needs_masks says which conditions need them)",
            )
        return masks

    def _labels_needed(self) -> LabelSet:
        if self.labels is None:
            raise ConfigError(
                f"condition {self.name!r} without a label set",
                "it has to know the classes that masks have",
                "name the label set of the masks",
            )
        return self.labels
