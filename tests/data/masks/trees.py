"""Small trees of images and masks for tests, drawn at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from sisug.labels.label_sets import LabelSet, label_set

FACE = LabelSet("face", ("skin", "left", "right"), ((200, 150, 100), (0, 0, 255), (0, 160, 0)), ((1, 2),))

PARTS = label_set("celebamask-hq").classes[1:]


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def image(seed: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def mask(seed: int, size: int = 16, classes: int = 3) -> np.ndarray:
    return np.random.default_rng(1000 + seed).integers(0, classes, (size, size), dtype=np.uint8)


def image_masks(folder: Path, names: list[str], size: int = 16) -> Path:
    """A folder of images and index masks of the label set FACE."""
    for number, name in enumerate(names):
        save(folder / "images" / f"{name}.png", image(number, size))
        save(folder / "masks" / f"{name}.png", mask(number, size))
    return folder


def celebamask(folder: Path, numbers: list[int], size: int = 16) -> dict[int, dict[str, np.ndarray]]:
    """CelebAMask-HQ in small: images of twice the size, parts that overlap; returns the parts."""
    written: dict[int, dict[str, np.ndarray]] = {}
    for number in numbers:
        random = np.random.default_rng(number)
        save(folder / "CelebA-HQ-img" / f"{number}.jpg", image(number, 2 * size))
        written[number] = {}
        for part in random.choice(PARTS, 8, replace=False).tolist():
            covered = random.random((size, size)) < 0.4
            written[number][part] = covered
            pixels = np.repeat((covered * 255).astype(np.uint8)[..., None], 3, axis=2)
            save(folder / "CelebAMask-HQ-mask-anno" / str(number // 2000) / f"{number:05d}_{part}.png", pixels)
    return written
