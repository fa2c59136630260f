"""Images with masks on disk, whatever their layout: the contract, and what is wrong with them (data, evaluation)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from sisug.data.images.scan import Group
from sisug.errors import DataError
from sisug.labels.label_sets import LabelSet

Crop = Literal["none", "centre"]
"""What is done to images and masks that are not square: they are refused, or the largest centred square is taken."""


@dataclass
class Problems:
    """What is wrong with a set of images and masks, by kind.

    Args:
        groups: number and first names of each kind.
    """

    groups: dict[str, Group] = field(default_factory=dict)

    def add(self, kind: str, example: str) -> None:
        """Count one problem.

        Args:
            kind: what is wrong, in words that follow a number: "images without a mask".
            example: the file, perhaps with detail.
        """
        self.groups.setdefault(kind, Group()).add(example)

    @property
    def count(self) -> int:
        """Number of all problems."""
        return sum(group.count for group in self.groups.values())

    def lines(self) -> list[str]:
        """A line a kind: number, kind, first names."""
        return [f"{group.count:,} {kind}: {group}" for kind, group in self.groups.items()]


@runtime_checkable
class Pairs(Protocol):
    """Images and their masks by name, before anything is decoded.

    Attributes:
        folder: where they lie.
        labels: label set of the masks.
        crop: what becomes of those that are not square.
        names: sorted names of what has both an image and a mask; paths without suffix, with forward slashes.
        problems: what has not, and what else the listing shows.
    """

    folder: Path
    labels: LabelSet
    crop: Crop
    names: tuple[str, ...]
    problems: Problems

    def image(self, name: str) -> Path:
        """File of an image.

        Args:
            name: one of ``names``.
        """
        ...

    def sources(self, name: str) -> tuple[Path, ...]:
        """All files that an image and its mask are made of.

        Args:
            name: one of ``names``.
        """
        ...

    def mask(self, name: str) -> np.ndarray:
        """A mask at its own size, int64 (height, width): class numbers or ``labels.ignore``. Nothing is cropped.

        Args:
            name: one of ``names``.

        Raises:
            DataError: it cannot be read, holds what is no class, or is not square where it is not to be cropped.
        """
        ...


def check_pairing(pairs: Pairs) -> None:
    """Refuse a set in which images and masks do not belong together one to one.

    Args:
        pairs: listed files.

    Raises:
        DataError: names how many of what, and the first of each.
    """
    if pairs.problems.count:
        raise DataError(
            f"images and masks in {pairs.folder} do not match: {'; '.join(pairs.problems.lines())}",
            "each image needs one mask of the same name, and the other way round",
            f"`sisug data check {pairs.folder}` lists all kinds; add, remove or rename files, "
            "or leave out what does not match with skip_bad: true",
        )
    if not pairs.names:
        raise DataError(
            f"{pairs.folder} holds no image with a mask", "nothing could be trained or scored", "correct the path"
        )


def digest(pairs: Pairs, names: tuple[str, ...]) -> str:
    """SHA-256 of the label set's classes, the crop, names and sizes of the files: which data a number rests on.

    Args:
        pairs: listed files.
        names: which of them.
    """
    total = hashlib.sha256("\n".join((*pairs.labels.classes, "")).encode())
    if pairs.crop != "none":
        total.update(f"crop\t{pairs.crop}\n".encode())
    for name in names:
        sizes = [path.stat().st_size for path in pairs.sources(name)]
        total.update(f"{name}\t{sizes}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()
