"""Images with masks from two folders as a map-style data set (stage 2, judges and evaluation)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import Dataset

from sisug.data.images.scan import WHITE, check_form
from sisug.data.masks.conversion_record import check_finished
from sisug.data.masks.folder import FolderPairs
from sisug.data.masks.pairs import Crop, Pairs, check_pairing, digest
from sisug.data.masks.reading import check_shapes, read_pair
from sisug.data.masks.splits import check_known, read_names
from sisug.errors import ConfigError, DataError
from sisug.labels.image_files import Colour
from sisug.labels.label_sets import LabelSet


class ImageMaskSample(TypedDict):
    """An image in [-1, 1], its mask in the numbers of the label set, and its index within the data set."""

    image: Float[Tensor, "3 height width"]
    mask: Int64[Tensor, "height width"]
    index: int


class ImageMaskFolder(Dataset[ImageMaskSample]):
    """Images and masks matched by name, decoded when they are asked for.

    Names, pairing and the sizes in the files' headers are checked at once, values of masks when they are read. What
    `sisug data convert` wrote is read fastest.

    Args:
        folder: with `images/` and `masks/`; `sisug data check` says what it holds.
        resolution: height and width in pixels, 4 to 4096.
        labels: name of a label set, or its JSON file; None for the folder's own `labels.json`.
        names: which images, in this order: a list of names, or a file with one a line. None for all, sorted.
        images: folder of the images, within ``folder``.
        masks: folder of the masks, within ``folder``.
        tolerance: largest difference per colour channel, 0 to 255, at which a pixel still counts as the nearest class.
        skip_bad: leave out what has no partner, instead of refusing the folder.
        background: colour behind transparent parts of images.
        crop: "centre" takes the largest centred square of images and masks that are not square; "none" refuses them.

    Attributes:
        label_set: of the masks.
        names: of the images, in order.
        digest: SHA-256 of label set, crop, names and file sizes, the key of cached statistics.

    Raises:
        ConfigError: a value out of range, or no label set.
        DataError: missing folders, pairs that do not match, pictures that are not square, unknown names, no image.
    """

    def __init__(
        self,
        folder: str | Path,
        resolution: int,
        labels: str | None = None,
        names: Sequence[str] | str | Path | None = None,
        images: str = "images",
        masks: str = "masks",
        tolerance: int = 0,
        skip_bad: bool = False,
        background: Colour = WHITE,
        crop: Crop = "none",
    ) -> None:
        check_form(resolution, background)
        self.resolution, self.background = resolution, background
        check_finished(Path(folder).expanduser())
        self.pairs: Pairs = FolderPairs(folder, labels, images, masks, tolerance, crop)
        self.label_set: LabelSet = self.pairs.labels
        if not (skip_bad and self.pairs.names):
            check_pairing(self.pairs)
        self.names = self.pairs.names if names is None else _chosen(self.pairs.names, names, self.pairs.folder)
        for name in self.names:
            check_shapes(self.pairs, name)
        self.digest = digest(self.pairs, self.names)

    def subset(self, names: Sequence[str] | str | Path) -> ImageMaskFolder:
        """Some of the images, without looking at the files again.

        Args:
            names: a list of names, in the order wanted, or a file with one a line.

        Raises:
            ConfigError: an empty list.
            DataError: names that are not here, repeats, or a list that cannot be read.
        """
        part = copy(self)
        part.names = _chosen(self.names, names, self.pairs.folder)
        part.digest = digest(self.pairs, part.names)
        return part

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> ImageMaskSample:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} images")
        image, mask = read_pair(self.pairs, self.names[index], self.resolution, self.background)
        return {
            "image": torch.from_numpy(image.astype(np.float32)) / 127.5 - 1,
            "mask": torch.from_numpy(mask.astype(np.int64)),
            "index": index,
        }


def check_batch(images: Tensor, masks: Tensor, labels: LabelSet) -> None:
    """Refuse images and masks that cannot be scored together, before anything is computed of them.

    Args:
        images: (batch, 3, height, width).
        masks: (batch, height, width).
        labels: what the masks are in.

    Raises:
        DataError: none at all, different counts or sizes, or masks with values outside the label set.
    """
    if not len(images):
        raise DataError("0 images", "a score of nothing would mean nothing", "give at least one image")
    if len(images) != len(masks):
        raise DataError(
            f"{len(images)} images and {len(masks)} masks",
            "each image is scored against its own mask",
            "give as many of both, in the same order",
        )
    if images.shape[-2:] != masks.shape[-2:]:
        raise DataError(
            f"images of {images.shape[-1]}x{images.shape[-2]} pixels and masks of {masks.shape[-1]}x{masks.shape[-2]}",
            "they are compared pixel by pixel",
            "read both at one resolution; masks are resized by nearest neighbour",
        )
    labels.check(masks)


def _chosen(there: tuple[str, ...], names: Sequence[str] | str | Path, folder: Path) -> tuple[str, ...]:
    listed = read_names(names) if isinstance(names, str | Path) else list(names)
    if not listed:
        raise ConfigError("an empty list of names", "nothing would be read", "name an image, or leave it out for all")
    what = str(names) if isinstance(names, str | Path) else "the list"
    check_known(listed, there, there, what, folder)
    return tuple(listed)
