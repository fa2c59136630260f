"""Held-out images and masks that protocols compare with (evaluation): drawn avatars by name, or a folder."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from sisug.data.avatars.dataset import SEEDS_PER_SPLIT, AvatarsDataset, Split
from sisug.data.avatars.drawing import style_version
from sisug.data.images.scan import WHITE, check_form
from sisug.data.masks import CelebAMaskPairs, Pairs, check_batch, check_pairing, detect, open_pairs, read_names
from sisug.data.masks.conversion_record import check_finished
from sisug.data.masks.reading import check_square, header_size, read_pair
from sisug.data.masks.splits import SPLITS
from sisug.errors import ConfigError, DataError
from sisug.labels.image_files import examine
from sisug.labels.image_folders import list_images
from sisug.labels.label_sets import LabelSet
from sisug.metrics import fingerprint_files
from sisug.types import Images, Masks

DRAWN = "avatars"
"""The data that is drawn instead of read."""

ALL = "all"
"""The split that is the whole folder."""


@dataclass(frozen=True)
class HeldOutBatch:
    """Some held-out images.

    Args:
        images: in [-1, 1].
        masks: in the numbers of the label set; None where the data has none.
        index: places in the held-out set.
    """

    images: Images
    masks: Masks | None
    index: Int64[Tensor, " batch"]


class HeldOut(ABC):
    """Images in a fixed order, with masks where the data has them. `open_held_out` finds them.

    Any run of consecutive places is a fair sample of the whole, so that protocols may take the first so many.

    Args:
        name: of the data: "avatars", or the folder's own name.
        split: which part of the data.
        resolution: height and width, pixels.
        labels: label set of the masks; None without masks.
        resize: how images were brought to the resolution.
    """

    def __init__(self, name: str, split: str, resolution: int, labels: LabelSet | None, resize: str) -> None:
        self.name, self.split, self.resolution, self.labels, self.resize = name, split, resolution, labels, resize
        self._fingerprints: dict[tuple[int, int], str] = {}

    @abstractmethod
    def __len__(self) -> int:
        """Images that there are."""

    @abstractmethod
    def _fingerprint(self, first: int, last: int) -> str:
        """See `fingerprint`; may read every file."""

    @abstractmethod
    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Bytes of an image (3, height, width), and its mask (height, width)."""

    def fingerprint(self, first: int, last: int) -> str:
        """SHA-256 of what decides the images and masks `first` to `last` - 1."""
        if (first, last) not in self._fingerprints:
            self._fingerprints[first, last] = self._fingerprint(first, last)
        return self._fingerprints[first, last]

    def batches(self, first: int, last: int, size: int) -> Iterator[HeldOutBatch]:
        """Images `first` to `last` - 1 in their order; what decodes them side by side changes nothing.

        Args:
            first: place of the first.
            last: place after the last.
            size: images at a time.

        Raises:
            DataError: there are fewer, or one cannot be read.
        """
        self.check_count(last)
        with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
            for start in range(first, last, size):
                places = range(start, min(start + size, last))
                images, masks = zip(*pool.map(self._read, places), strict=True)
                batch = torch.from_numpy(np.stack(images)).float() / 127.5 - 1
                if self.labels is None:
                    yield HeldOutBatch(batch, None, torch.tensor(places))
                    continue
                stacked = torch.from_numpy(np.stack(masks)).long()
                check_batch(batch, stacked, self.labels)
                yield HeldOutBatch(batch, stacked, torch.tensor(places))

    def check_count(self, count: int) -> None:
        """Refuse to take more images than there are.

        Raises:
            DataError: there are fewer.
        """
        if count > len(self):
            raise DataError(
                f"{count:,} images of {self.name}, split {self.split}",
                f"it has {len(self):,}",
                "lower the counts of the protocol, or choose a larger split",
            )

    def check(self, count: int) -> None:
        """Refuse what cannot be measured with, before anything is: too few images, or a first one that is unusable.

        Args:
            count: images that are needed.

        Raises:
            DataError: what is wrong.
        """
        self.check_count(count)
        next(self.batches(0, 1, 1))

    def record(self, first: int, last: int) -> dict[str, Any]:
        """Which images these are, for records; without a path of this machine."""
        return {
            "name": self.name,
            "split": self.split,
            "images": f"{first} to {last - 1}",
            "label_set": None if self.labels is None else self.labels.name,
            "resize": self.resize,
            "sha256": self.fingerprint(first, last),
        }


class DrawnHeldOut(HeldOut):
    """Avatars of a split, drawn when they are asked for; their seeds are those of no other split.

    Args:
        split: train, val or test.
        resolution: height and width, pixels.

    Raises:
        ConfigError: another split, or a resolution at which none are drawn.
    """

    def __init__(self, split: str, resolution: int) -> None:
        if split not in get_args(Split):
            raise ConfigError(
                f"split {split!r} of the avatars", f"they have {', '.join(get_args(Split))}", "use one of these names"
            )
        super().__init__(DRAWN, split, resolution, AvatarsDataset.label_set, f"none: drawn at {resolution} px")
        self._drawn = AvatarsDataset(cast(Split, split), SEEDS_PER_SPLIT, resolution)

    def __len__(self) -> int:
        return len(self._drawn)

    def _fingerprint(self, first: int, last: int) -> str:
        key = f"{DRAWN}|{self.split}|{first}|{last}|{self.resolution}|{style_version()}"
        return hashlib.sha256(key.encode()).hexdigest()

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        return self._drawn.draw(index)


class FolderHeldOut(HeldOut):
    """Images of a folder, with masks where it has them: `images/` with `masks/`, CelebAMask-HQ as published, or images.

    Args:
        folder: with the data.
        split: the list `splits/SPLIT.txt` of the folder, one that CelebAMask-HQ has ("test", "first-2000",
            "last-2000"), a file with a name a line, or "all".
        resolution: height and width, pixels.
        labels: name of the masks' label set, or its JSON file; None for the folder's own.

    Raises:
        ConfigError: no such list, or no label set.
        DataError: a missing folder, images and masks that do not match, pictures that are not square.
    """

    def __init__(self, folder: str | Path, split: str, resolution: int, labels: str | None = None) -> None:
        root = Path(folder).expanduser()
        check_form(resolution, WHITE)
        layout = detect(root)
        check_finished(root)
        self.pairs: Pairs | None = open_pairs(root, layout, labels)
        if self.pairs is None:
            if labels is not None:
                raise ConfigError(
                    f"{root} with the label set {labels!r}",
                    "it holds images without masks",
                    "leave labels out, or give a folder with images/ and masks/",
                )
            self.folder = root
            files = {str(Path(file.name).with_suffix("")): root / file.name for file in list_images(root)[0]}
        else:
            check_pairing(self.pairs)
            self.folder = self.pairs.folder
            files = {name: self.pairs.image(name) for name in self.pairs.names}
        listed = _listed(root, self.folder, split, tuple(files), self.pairs)
        # In the order of names, the first so many would be those of one subfolder.
        self.names = sorted(listed, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
        self._files = files
        known = None if self.pairs is None else self.pairs.labels
        resize = f"Pillow's Lanczos filter to {resolution} px, masks by nearest neighbour"
        super().__init__(root.resolve().name, split, resolution, known, resize)
        if self.pairs is not None:
            for path in (path for name in self.names for path in self.pairs.sources(name)):
                check_square(path, header_size(path))

    def __len__(self) -> int:
        return len(self.names)

    def _fingerprint(self, first: int, last: int) -> str:
        names = self.names[first:last]
        if self.pairs is None:
            return fingerprint_files((self._files[name] for name in names), self.folder)
        files = fingerprint_files((path for name in names for path in self.pairs.sources(name)), self.folder)
        return hashlib.sha256("\n".join((*self.pairs.labels.classes, files)).encode()).hexdigest()

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        if self.pairs is not None:
            return read_pair(self.pairs, self.names[index], self.resolution)
        path = self._files[self.names[index]]
        found = examine(path, self.resolution, WHITE)
        if found.pixels is None:
            raise DataError(
                f"{path} cannot be used: {found.problem} ({found.detail})",
                f"a whole image of at least {self.resolution}x{self.resolution} pixels is needed",
                "remove it, or leave it out of the split's list",
            )
        return found.pixels, None


def open_held_out(data: str, split: str, resolution: int, labels: str | None = None) -> HeldOut:
    """Held-out images.

    Args:
        data: "avatars", or a folder.
        split: see `DrawnHeldOut` and `FolderHeldOut`.
        resolution: height and width, pixels: the generator's.
        labels: name of the masks' label set, or its JSON file; None for the data's own.

    Raises:
        ConfigError: no such split or label set.
        DataError: a missing folder, images and masks that do not match, pictures that are not square.
    """
    if data != DRAWN:
        return FolderHeldOut(data, split, resolution, labels)
    if labels not in (None, DRAWN):
        raise ConfigError(f"avatars with the label set {labels!r}", "they are drawn with their own", "leave it out")
    return DrawnHeldOut(split, resolution)


def _listed(root: Path, folder: Path, split: str, names: tuple[str, ...], pairs: Pairs | None) -> tuple[str, ...]:
    """Names of a split."""
    lists = pairs.splits() if isinstance(pairs, CelebAMaskPairs) else {}
    for place in (root / SPLITS / f"{split}.txt", Path(split).expanduser()):
        if place.is_file():
            listed = read_names(place)
            break
    else:
        if split == ALL:
            return names
        if split not in lists:
            known = sorted({*lists, *(path.stem for path in (root / SPLITS).glob("*.txt")), ALL})
            raise ConfigError(
                f"split {split!r} of {root}",
                f"there is neither a list {SPLITS}/{split}.txt nor a file of that name; it has {', '.join(known)}",
                "name one of these, or give a file with the name of an image a line",
            )
        listed = lists[split]
    there, counts = set(names), Counter(listed)
    if unknown := [name for name in counts if name not in there]:
        raise DataError(
            f"{len(unknown)} names of split {split!r} are not in {folder}: {', '.join(unknown[:5])}",
            f"it has {len(names):,} images, as {', '.join(names[:3])}",
            "write names as they are there: paths below the images' folder, without suffix",
        )
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise DataError(
            f"split {split!r} names {', '.join(repeated[:5])} more than once", "images count once", "remove the repeats"
        )
    return tuple(listed)
