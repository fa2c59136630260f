"""CelebAMask-HQ as it is published: photos, and one black-and-white picture for each part of a face (data)."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from sisug.data.masks.pairs import Crop, Problems
from sisug.errors import DataError
from sisug.labels.image_folders import list_images
from sisug.labels.label_maps import LabelMap, match_labels
from sisug.labels.label_sets import LabelSet, label_set
from sisug.labels.opening import opened_picture

IMAGES, PARTS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"

MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
"""Lists for each image its number in CelebA, whose partition decides the official splits."""

VAL_FROM, TEST_FROM = 162_771, 182_638
"""First CelebA numbers of validation and test, as the data set's own tool divides: 24,183, 2,993 and 2,824 images."""

OFFICIAL = "celebamask-hq"


class CelebAMaskPairs:
    """The published files of CelebAMask-HQ; masks are merged from their parts when they are read.

    Parts overlap, and what is painted later hides what was painted earlier. Label sets with all 18 parts are painted in
    the order of their numbers, as the tools that gave them their orders do (celebamask-hq: the data set's own;
    celebamask-hq-bisenet: that of the BiSeNet face parser, where hair and hat come last), so the two differ where parts
    overlap. Other label sets, celebamask-hq-15 for one, are painted in the official order and then mapped by name.

    Args:
        folder: with `CelebA-HQ-img/` and `CelebAMask-HQ-mask-anno/`, or the folder above it.
        labels: label set of the masks.

    Raises:
        DataError: folders are missing or empty, or the label set does not fit the parts.
    """

    crop: Crop = "none"  # all of them are square

    def __init__(self, folder: str | Path, labels: LabelSet) -> None:
        self.folder = celebamask_folder(Path(folder).expanduser())
        self.labels = labels
        official = label_set(OFFICIAL)
        parts = set(official.classes[1:])
        self._painted = labels if parts <= set(labels.classes) and "background" in labels.classes else official
        self._map: LabelMap | None = None if self._painted is labels else match_labels(official, labels)
        self.problems = Problems()
        self._images = self._list_images()
        self._parts = self._list_parts(parts)
        for number in sorted(self._images.keys() - self._parts.keys()):
            self.problems.add("images without a part", self._images[number])
        for number in sorted(self._parts.keys() - self._images.keys()):
            self.problems.add("numbers with parts but without an image", f"{number:05d}")
        self.names = tuple(f"{number:05d}" for number in sorted(self._images.keys() & self._parts.keys()))

    def image(self, name: str) -> Path:
        """File of an image."""
        return self.folder / IMAGES / self._images[int(name)]

    def sources(self, name: str) -> tuple[Path, ...]:
        """The image and the parts of its mask."""
        return self.image(name), *self._files(int(name)).values()

    def mask(self, name: str) -> np.ndarray:
        """The merged mask at the parts' own size (512 pixels as published).

        Raises:
            DataError: a part cannot be read, or parts have different sizes.
        """
        parts = {part: _read_part(path) for part, path in self._files(int(name)).items()}
        if len({part.shape for part in parts.values()}) > 1:
            sizes = ", ".join(f"{part} {shape.shape[1]}x{shape.shape[0]}" for part, shape in parts.items())
            raise DataError(
                f"the parts of {name} have different sizes: {sizes}", "they are laid on one another", REMEDY
            )
        painted = merge_parts(parts, self._painted)
        if self._map is None:
            return painted
        return np.asarray(self._map(torch.from_numpy(painted)))

    def splits(self) -> dict[str, list[str]]:
        """Lists of names: the official train, val and test where the mapping file is there, and two fixed ones.

        `first-2000` are the targets that LinearGAN draws from; `last-2000` is another common choice of test images.

        Raises:
            DataError: the mapping file cannot be read.
        """
        lists = {
            "first-2000": [name for name in self.names if int(name) < 2000],
            "last-2000": [name for name in self.names if int(name) >= 28_000],
        }
        if (self.folder / MAPPING).is_file():
            lists |= _official_splits(self.folder / MAPPING, self.names)
        return {name: listed for name, listed in lists.items() if listed}

    def _list_images(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for file in list_images(self.folder / IMAGES)[0]:
            stem = Path(file.name).stem
            if not stem.isdecimal():
                self.problems.add("images whose name is no number", file.name)
            elif int(stem) in found:
                self.problems.add("images of one number", f"{found[int(stem)]} and {file.name}")
            else:
                found[int(stem)] = file.name
        return found

    def _list_parts(self, known: set[str]) -> dict[int, dict[str, str]]:
        """Folder of each part by number and part name: paths of 330,000 files would fill memory."""
        found: dict[int, dict[str, str]] = defaultdict(dict)
        for place in sorted(entry.name for entry in os.scandir(self.folder / PARTS) if entry.is_dir()):
            for entry in sorted(entry.name for entry in os.scandir(self.folder / PARTS / place)):
                match = re.fullmatch(r"(\d{5,})_(\w+)\.png", entry)
                if not entry.endswith(".png") or entry.startswith("."):  # what file managers leave behind
                    continue
                if match is None or match[2] not in known:
                    self.problems.add("files that are no known part", f"{place}/{entry}")
                elif match[2] in found[int(match[1])]:
                    self.problems.add(
                        "parts given twice", f"{found[int(match[1])][match[2]]}/{entry} and {place}/{entry}"
                    )
                else:
                    found[int(match[1])][match[2]] = place
        if not found:
            raise DataError(
                f"{self.folder / PARTS} holds no part of a face",
                "parts lie in folders 0 to 14 and are named like 00000_skin.png",
                "unpack the data set again",
            )
        return dict(found)

    def _files(self, number: int) -> dict[str, Path]:
        root = self.folder / PARTS
        return {part: root / place / f"{number:05d}_{part}.png" for part, place in self._parts[number].items()}


REMEDY = "unpack the data set again, for the file is not as it was published"


def celebamask_folder(folder: Path) -> Path:
    """The folder itself or the `CelebAMask-HQ` in it, whichever has the published folders.

    Args:
        folder: where the data set was unpacked.

    Raises:
        DataError: neither has.
    """
    for place in (folder, folder / "CelebAMask-HQ"):
        if (place / IMAGES).is_dir() and (place / PARTS).is_dir():
            return place
    raise DataError(
        f"{folder} is not CelebAMask-HQ as it is published",
        f"it has no folders {IMAGES} and {PARTS}",
        "give the folder CelebAMask-HQ of the unpacked archive",
    )


def merge_parts(parts: Mapping[str, np.ndarray], labels: LabelSet) -> np.ndarray:
    """One mask of the parts of a face, int64: of overlapping parts the one with the highest number wins.

    That is what painting one after the other does, without a loop over pixels; what no part covers is background.

    Args:
        parts: boolean pictures of one size by part name, one or more.
        labels: has all these names, and "background".
    """
    shape = next(iter(parts.values())).shape
    merged = np.full(shape, -1, dtype=np.int16)
    for part, covered in parts.items():
        np.maximum(merged, labels.number(part), out=merged, where=covered)
    merged[merged < 0] = labels.number("background")
    return merged.astype(np.int64)


def _read_part(path: Path) -> np.ndarray:
    try:
        with opened_picture(path) as image:
            return np.asarray(image.convert("L")) > 0
    except Exception as error:  # decoders raise a dozen kinds for damaged files
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise DataError(f"{path} cannot be read", reason, REMEDY) from error


def _official_splits(mapping: Path, names: tuple[str, ...]) -> dict[str, list[str]]:
    try:
        rows = [line.split() for line in mapping.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
        origin = {int(row[0]): int(row[1]) for row in rows}
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{mapping} cannot be read", str(error), REMEDY) from error
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for name in names:
        if int(name) not in origin:
            raise DataError(f"{mapping} does not list image {name}", "its split is not known", REMEDY)
        number = origin[int(name)]
        lists["test" if number >= TEST_FROM else "val" if number >= VAL_FROM else "train"].append(name)
    return lists
