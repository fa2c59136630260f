"""How a folder of data is laid out: told from what it holds (data)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sisug.data.masks.celebamask import IMAGES, OFFICIAL, PARTS, CelebAMaskPairs
from sisug.data.masks.folder import FolderPairs
from sisug.data.masks.pairs import Crop, Pairs
from sisug.errors import DataError, check_local
from sisug.labels.image_folders import check_folder
from sisug.labels.label_files import read_label_set

Layout = Literal["image-masks", "celebamask-hq", "images"]
"""`images/` with `masks/`; CelebAMask-HQ as published; or images only at any depth: AFHQ, an LSUN export."""


def detect(folder: Path) -> Layout:
    """Tell the layout of a folder.

    Args:
        folder: with data of any known kind.

    Raises:
        DataError: it is missing, holds no images, or is a database.
    """
    check_local(folder, "the folder of data")
    if (folder / "data.mdb").is_file():
        raise lmdb_found(folder)
    for place in (folder, folder / "CelebAMask-HQ"):
        if (place / PARTS).is_dir() and (place / IMAGES).is_dir():
            return "celebamask-hq"
    if (folder / "masks").is_dir():
        return "image-masks"
    check_folder(folder)
    return "images"


def open_pairs(
    folder: Path, layout: Layout, labels: str | None, tolerance: int = 0, crop: Crop = "none"
) -> Pairs | None:
    """The images and masks of a folder, listed; None for images only.

    Args:
        folder: with data.
        layout: how it lies there.
        labels: name of a label set, or its JSON file; None for the layout's own.
        tolerance: of colours in masks, 0 to 255.
        crop: what becomes of images and masks that are not square; CelebAMask-HQ has none.

    Raises:
        ConfigError: no label set is named and the layout has none.
        DataError: folders are missing or empty, or the label set does not fit.
    """
    if layout == "celebamask-hq":
        return CelebAMaskPairs(folder, read_label_set(labels or OFFICIAL))
    if layout == "image-masks":
        return FolderPairs(folder, labels, tolerance=tolerance, crop=crop)
    if (folder / "data.mdb").is_file():
        raise lmdb_found(folder)
    check_folder(folder)
    return None


def lmdb_found(folder: Path) -> DataError:
    """What to say of a database in the place of a folder.

    Args:
        folder: with `data.mdb`.
    """
    return DataError(
        f"{folder} is an LMDB database, as LSUN is published",
        "images are read from folders",
        f"export it with the data set's own tool (data.py of github.com/fyu/lsun): "
        f"python data.py export {folder} --out_dir images; then give the folder images",
    )
