"""Folders `images/` and `masks/`, matched by name (data of stage 2 and of evaluation)."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath

import numpy as np

from sisug.data.masks.conversion_record import read_record
from sisug.data.masks.pairs import Crop, Problems
from sisug.errors import ConfigError, DataError, check_local
from sisug.labels.image_folders import ImageFile, list_images
from sisug.labels.label_files import read_label_set
from sisug.labels.label_sets import LabelSet
from sisug.labels.mask_files import read_mask

LABELS = "labels.json"
"""Label set of a folder that `sisug data convert` wrote."""


class FolderPairs:
    """Images and masks in two folders: `images/cats/7.jpg` belongs to `masks/cats/7.png`.

    Masks are index, palette or colour pictures, as `sisug.labels.mask_files.read_mask` tells them apart.

    Args:
        folder: has the two folders.
        labels: name of a label set, or its JSON file; None for the folder's own `labels.json`.
        images: folder of the images, within ``folder``.
        masks: folder of the masks, within ``folder``.
        tolerance: largest difference per colour channel, 0 to 255, at which a pixel still counts as the nearest class.
        crop: what becomes of images and masks that are not square.

    Attributes:
        partnerless: names of images without a mask, and of masks without an image.

    Raises:
        ConfigError: no label set is named, and the folder has none.
        DataError: a folder is missing or empty, or the label set cannot be read.
    """

    def __init__(
        self,
        folder: str | Path,
        labels: str | None = None,
        images: str = "images",
        masks: str = "masks",
        tolerance: int = 0,
        crop: Crop = "none",
    ) -> None:
        check_local(folder, "the folder of data")
        self.folder = Path(folder).expanduser()
        if not 0 <= tolerance <= 255:
            raise ConfigError(f"tolerance {tolerance}", "colour values run from 0 to 255", "use a small number, or 0")
        self.tolerance, self.crop = tolerance, crop
        for part in (images, masks):
            if not (self.folder / part).is_dir():
                raise DataError(
                    f"{self.folder} has no folder {part}",
                    "images and masks lie in two folders and are matched by name: images/7.jpg with masks/7.png",
                    "move them there, or name the folders that they lie in",
                )
        self.labels = folder_labels(self.folder, labels)
        self._numbers = read_record(self.folder) is not None  # of `sisug data convert`
        self.problems = Problems()
        self._images = self._by_stem(images)
        self._masks = self._by_stem(masks)
        for stem in sorted(self._images.keys() - self._masks.keys()):
            self.problems.add("images without a mask", str(self._images[stem].relative_to(self.folder)))
        for stem in sorted(self._masks.keys() - self._images.keys()):
            self.problems.add("masks without an image", str(self._masks[stem].relative_to(self.folder)))
        self.names = tuple(sorted(self._images.keys() & self._masks.keys()))
        self.partnerless = frozenset(self._images.keys() ^ self._masks.keys())

    def image(self, name: str) -> Path:
        """File of an image."""
        return self._images[name]

    def sources(self, name: str) -> tuple[Path, ...]:
        """The image and the mask."""
        return self._images[name], self._masks[name]

    def mask(self, name: str) -> np.ndarray:
        """A mask at its own size.

        Raises:
            DataError: it cannot be read, holds what is no class, or is not square where it is not to be cropped.
        """
        return read_mask(
            self._masks[name], self.labels, tolerance=self.tolerance, square=self.crop == "none", numbers=self._numbers
        )

    def _by_stem(self, part: str) -> dict[str, Path]:
        """Files of a folder by their names without suffix; of several with one name the first counts."""
        files, _ = list_images(self.folder / part)
        same: dict[str, list[ImageFile]] = defaultdict(list)
        for file in files:
            same[str(PurePosixPath(file.name).with_suffix(""))].append(file)
        for twins in same.values():
            if len(twins) > 1:
                listed = " and ".join(file.name for file in twins)
                self.problems.add(f"names used twice in {part}", listed)
        return {stem: self.folder / part / twins[0].name for stem, twins in same.items()}


def folder_labels(folder: Path, labels: str | None) -> LabelSet:
    """The label set that is asked for, else the folder's own.

    Args:
        folder: perhaps with a `labels.json`.
        labels: name of a label set, or its JSON file.

    Raises:
        ConfigError: neither is there.
        DataError: it cannot be read, or the folder's masks were written with another one.
    """
    own = folder / LABELS
    if labels is None:
        if not own.is_file():
            raise ConfigError(
                f"{folder} without a label set",
                f"masks are numbers, and {LABELS}, which would say what they mean, is not there",
                "name their label set, as --labels celebamask-hq, or give its JSON file",
            )
        return read_label_set(str(own))
    asked = read_label_set(labels)
    if own.is_file():
        written = read_label_set(str(own))
        if written.classes != asked.classes:
            raise DataError(
                f"{folder} with the label set {asked.name!r}",
                f"its masks were written with {written.name!r}, whose classes have other names or another order",
                f"leave the label set out, or convert the data again with --labels {asked.name}",
            )
    return asked
