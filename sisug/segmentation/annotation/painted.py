"""One painted mask of an annotation folder (stage 2): read, checked, and brought to the generator's resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sisug.errors import DataError
from sisug.labels.label_sets import LabelSet
from sisug.labels.mask_files import read_mask

LEAST = 512
"""Pixels from which a mask smaller than the image is fine enough, where the image's size is a multiple of its."""


def read_painted(path: Path, labels: LabelSet, resolution: int, *, tolerance: int = 0) -> np.ndarray:
    """A painted mask at the generator's resolution, int64 (resolution, resolution).

    Args:
        path: picture of the image's size, a whole multiple of it, or a whole fraction of at least `LEAST` pixels;
            colours or numbers as `read_mask` takes them.
        labels: classes and colours.
        resolution: height and width of the generator's images, pixels.
        tolerance: largest difference per colour channel, 0 to 255, at which a pixel still counts as the nearest class.

    Raises:
        DataError: no such mask, another size, or nothing labelled.
    """
    mask = read_mask(path, labels, tolerance=tolerance)
    height, width = mask.shape
    if height == width and LEAST <= height < resolution and resolution % height == 0:
        mask = mask.repeat(resolution // height, axis=0).repeat(resolution // height, axis=1)
    elif height != width or height % resolution:
        raise DataError(
            f"{path} has {width}x{height} pixels",
            f"masks have {resolution}x{resolution} pixels or a whole multiple of that; other sizes would shift borders",
            "paint on the picture from images/ without cropping or scaling it",
        )
    else:
        mask = commonest(mask, height // resolution)
    if (mask == labels.ignore).all():
        raise DataError(
            f"{path} has no labelled pixel", "all are transparent or don't-care", "paint at least one class"
        )
    return mask


def commonest(mask: np.ndarray, factor: int) -> np.ndarray:
    """Reduce a mask by the commonest value of each block; of equals the smallest, so don't-care gives way to classes.

    Args:
        mask: (height, width), both multiples of `factor`.
        factor: height and width of a block.

    Source: our choice: the nearest pixel would make a strip of paint come and go with the place of its border.
    """
    values = np.unique(mask)
    height, width = mask.shape
    blocks = mask.reshape(height // factor, factor, width // factor, factor)
    counts = np.stack([(blocks == value).sum(axis=(1, 3)) for value in values])
    reduced: np.ndarray = values[counts.argmax(axis=0)]
    return reduced
