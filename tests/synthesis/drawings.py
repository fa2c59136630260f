"""Drawings for the tests of synthesis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mapper.mappers import THREE
from PIL import Image


def mask(seed: int = 0, size: int = 16) -> np.ndarray:
    """Blocks of the three classes."""
    coarse = np.random.default_rng(seed).integers(0, 3, (4, 4))
    return np.kron(coarse, np.ones((size // 4, size // 4), np.int64))


def draw(path: Path, numbers: np.ndarray) -> Path:
    """A mask as a picture in the label set's colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(THREE.palette, np.uint8)[numbers]).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)
