"""Pictures that stand for a look or a layout (synthesis): read from files or checked in memory, for inversion."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sisug.common.fingerprint import sha256_of
from sisug.errors import DataError
from sisug.labels.image_files import examine
from sisug.types import Images

WHITE = (255, 255, 255)
"""What lies behind transparent parts."""


def read_picture_of(given: str | Path | Tensor, size: int) -> tuple[Images, dict[str, Any]]:
    """One picture at the generator's resolution, and how to find it again.

    Files are cropped to the largest centred square, turned upright, laid on white and resized, as pictures for training
    are.

    Args:
        given: a file; or a picture in [-1, 1], (3, size, size), perhaps as a batch of one.
        size: height and width, pixels.

    Raises:
        DataError: it cannot be used.
    """
    if isinstance(given, Tensor):
        return _checked(given, size), {"tensor": list(given.shape), "sha256": sha256_of_tensor(given)}
    path = Path(given)
    if not path.is_file():
        raise DataError(f"the picture {path} cannot be used", "there is no such file", "check the path")
    found = examine(path, size, WHITE)
    if found.pixels is None:
        raise DataError(
            f"the picture {path} cannot be used",
            f"{found.problem}: {found.detail}",
            f"give a picture of {size}x{size} pixels or more, in PNG, JPEG or another format that Pillow reads",
        )
    image = torch.from_numpy(found.pixels)[None].float() / 127.5 - 1
    return image, {"file": str(given), "sha256": sha256_of(path)}


def sha256_of_tensor(values: Tensor | np.ndarray) -> str:
    """Checksum of values in memory, in their own type."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _checked(image: Tensor, size: int) -> Images:
    batch = image[None] if image.ndim == 3 else image
    if batch.shape != (1, 3, size, size):
        raise DataError(
            f"a picture of shape {tuple(image.shape)}",
            f"one of (3, {size}, {size}) is needed: the generator's resolution",
            "resize it, or give its file",
        )
    batch = batch.detach().float()
    low, high = float(batch.min()), float(batch.max())
    if not (low >= -1.5 and high <= 1.5):  # generators overshoot a little; NaN fails too
        raise DataError(
            f"a picture with values from {low:g} to {high:g}", "colours lie in [-1, 1]", "divide by 127.5, less 1"
        )
    return batch.clamp(-1, 1)
