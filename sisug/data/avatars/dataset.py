"""Drawn avatars as a map-style data set: images and exact masks by index, for training and scoring every stage."""

from __future__ import annotations

from typing import Literal, TypedDict, get_args

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import Dataset

from sisug.data.avatars.drawing import check_size, draw_avatar
from sisug.errors import ConfigError
from sisug.labels.label_sets import AVATARS, LabelSet

Split = Literal["train", "val", "test"]
"""Which of the three disjoint seed ranges."""

SEEDS_PER_SPLIT = 1_000_000_000
"""Length of each split's range of seeds: train 0 to 10^9 - 1, val the next 10^9, test the next."""


class AvatarSample(TypedDict):
    """One avatar: image in [-1, 1], mask in the numbers of the label set, and its index within the split."""

    image: Float[Tensor, "3 height width"]
    mask: Int64[Tensor, "height width"]
    index: int


def seed_range(split: Split) -> range:
    """Seeds of a split; the ranges of two splits have none in common.

    Args:
        split: train, val or test.

    Raises:
        ConfigError: for another name.
    """
    names = get_args(Split)
    if split not in names:
        raise ConfigError(f"split {split!r}", f"avatars have the splits {', '.join(names)}", "use one of these names")
    start = names.index(split) * SEEDS_PER_SPLIT
    return range(start, start + SEEDS_PER_SPLIT)


def to_sample(image: np.ndarray, mask: np.ndarray, index: int) -> AvatarSample:
    """A sample of the arrays that are drawn or cached.

    Args:
        image: uint8 (3, height, width).
        mask: uint8 (height, width).
        index: number within the split.
    """
    return {
        "image": torch.from_numpy(image.astype(np.float32)) / 127.5 - 1,
        "mask": torch.from_numpy(mask.astype(np.int64)),
        "index": index,
    }


class AvatarsDataset(Dataset[AvatarSample]):
    """Avatars drawn on the fly, the same for a given split, index and resolution in every process and order.

    Args:
        split: train, val or test; their seed ranges are disjoint.
        length: number of avatars, 1 to 10^9; a shorter data set is the beginning of a longer one.
        resolution: height and width in pixels, 16 to 1024.

    Raises:
        ConfigError: for a value out of range.

    Source: our choice: no photo set has exact masks, endless samples and a licence that lets them travel.
    """

    label_set: LabelSet = AVATARS

    def __init__(self, split: Split = "train", length: int = 20_000, resolution: int = 64) -> None:
        check_size(resolution)
        self.seeds = seed_range(split)
        if not 1 <= length <= len(self.seeds):
            raise ConfigError(f"{length} avatars", f"a split has 1 to {len(self.seeds)}", "choose such a length")
        self.split, self.length, self.resolution = split, length, resolution

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> AvatarSample:
        image, mask = self.draw(index)
        return to_sample(image, mask, index)

    def draw(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The bytes of one avatar: uint8 image (3, height, width) and mask (height, width).

        Args:
            index: 0 to ``length`` - 1.

        Raises:
            IndexError: for an index outside the data set (so that plain iteration ends).
        """
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} of {self.length} avatars")
        image, mask = draw_avatar(self.seeds[index], self.resolution)
        return np.ascontiguousarray(image.transpose(2, 0, 1)), mask
