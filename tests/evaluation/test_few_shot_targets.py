"""Targets of the few-shot protocol: held-out masks, always the same, and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sisug.data.avatars import AvatarsDataset
from sisug.errors import ConfigError, DataError
from sisug.evaluation.few_shot.targets import find_targets
from sisug.labels.label_sets import AVATARS, label_set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six masks of 32 px, each of one class and one pixel of another, with images."""
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for number in range(6):
        mask = np.full((32, 32), number, dtype=np.uint8)
        mask[0, 0] = 10
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{number}.png")
        Image.new("RGB", (32, 32)).save(tmp_path / "data" / "images" / f"{number}.png")
    return tmp_path / "data"


def test_drawn_targets_are_the_first_of_the_test_split() -> None:
    found = find_targets("avatars", "test", 3, AVATARS, "avatars", 16)
    drawn = AvatarsDataset("test", 3, 16)
    assert torch.equal(found.masks, torch.stack([drawn[i]["mask"] for i in range(3)]))
    assert len(found.names) == 3
    assert found.digest == find_targets("avatars", "test", 3, AVATARS, "avatars", 16).digest
    assert found.digest != find_targets("avatars", "val", 3, AVATARS, "avatars", 16).digest


def test_targets_of_a_folder(folder: Path) -> None:
    found = find_targets(str(folder), "all", 6, AVATARS, "avatars", 16)
    assert found.masks.shape == (6, 16, 16)
    assert sorted(int(mask[8, 8]) for mask in found.masks) == list(range(6))
    assert torch.equal(find_targets(str(folder), "all", 4, AVATARS, "avatars", 16).masks, found.masks[:4])
    assert str(folder) not in str(found.record)


def test_too_few_masks_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"7 images of data.*it has 6"):
        find_targets(str(folder), "all", 7, AVATARS, "avatars", 16)


def test_a_target_without_a_label_is_refused(folder: Path) -> None:
    Image.fromarray(np.full((32, 32), 255, dtype=np.uint8)).save(folder / "masks" / "3.png")
    with pytest.raises(DataError, match="no labelled pixel"):
        find_targets(str(folder), "all", 6, AVATARS, "avatars", 16)


def test_targets_of_other_classes_or_without_masks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its masks are in 'avatars'"):
        find_targets("avatars", "test", 2, label_set("celebamask-hq"), "celebamask-hq", 16)
    Image.new("RGB", (16, 16)).save(tmp_path / "image.png")
    with pytest.raises(ConfigError, match="without masks"):
        find_targets(str(tmp_path), "all", 1, AVATARS, "avatars", 16)
