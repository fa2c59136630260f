"""CelebAMask-HQ: the merge of parts in both orders against painting pixel by pixel, listing, official splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data.masks.trees import celebamask, save

from sisug.data.masks import CelebAMaskPairs
from sisug.data.masks.celebamask import MAPPING
from sisug.errors import DataError
from sisug.labels.label_sets import label_set

OFFICIAL = [
    "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip", "l_lip",
    "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
]  # fmt: skip

BISENET = [
    "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r", "nose", "mouth", "u_lip",
    "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
]  # fmt: skip

FIFTEEN = [
    ["skin"], ["nose"], ["eye_g"], ["l_eye", "r_eye"], ["l_brow", "r_brow"], ["l_ear", "r_ear"], ["mouth"], ["u_lip"],
    ["l_lip"], ["hair"], ["hat"], ["ear_r"], ["neck_l", "neck"], ["cloth"],
]  # fmt: skip


def painted(parts: dict[str, np.ndarray], order: list[list[str]]) -> np.ndarray:
    """Pixel by pixel, as the published scripts do: later parts paint over earlier ones."""
    size = next(iter(parts.values())).shape[0]
    result = np.zeros((size, size), int)
    for number, group in enumerate(order, 1):
        for part in group:
            for row in range(size):
                for column in range(size):
                    if part in parts and parts[part][row, column]:
                        result[row, column] = number
    return result


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("celebamask-hq", [[part] for part in OFFICIAL]),
        ("celebamask-hq-bisenet", [[part] for part in BISENET]),
        ("celebamask-hq-15", FIFTEEN),
    ],
)
def test_merged_masks_are_those_of_the_published_tools(tmp_path: Path, name: str, order: list[list[str]]) -> None:
    numbers = [0, 7, 1999, 2000, 29999]
    parts = celebamask(tmp_path, numbers)
    pairs = CelebAMaskPairs(tmp_path, label_set(name))
    assert pairs.names == ("00000", "00007", "01999", "02000", "29999")
    assert not pairs.problems.count
    for number in numbers:
        expected = painted(parts[number], order)
        assert len(np.unique(expected)) > 3
        assert np.array_equal(pairs.mask(f"{number:05d}"), expected)
    assert len(pairs.sources("00007")) == 9
    assert pairs.image("00007").name == "7.jpg"


def test_orders_differ_where_parts_overlap(tmp_path: Path) -> None:
    save(tmp_path / "CelebA-HQ-img/3.jpg", np.zeros((16, 16, 3), np.uint8))
    for part in ("hair", "neck"):
        save(tmp_path / f"CelebAMask-HQ-mask-anno/0/00003_{part}.png", np.full((16, 16), 255, np.uint8))
    official, bisenet = label_set("celebamask-hq"), label_set("celebamask-hq-bisenet")
    assert (CelebAMaskPairs(tmp_path, official).mask("00003") == official.number("neck")).all()
    assert (CelebAMaskPairs(tmp_path, bisenet).mask("00003") == bisenet.number("hair")).all()


def test_what_does_not_match_is_named(tmp_path: Path) -> None:
    celebamask(tmp_path / "CelebAMask-HQ", [0, 1, 2])
    root = tmp_path / "CelebAMask-HQ"
    (root / "CelebA-HQ-img/1.jpg").unlink()
    save(root / "CelebA-HQ-img/5.jpg", np.zeros((8, 8, 3), np.uint8))
    save(root / "CelebA-HQ-img/five.jpg", np.zeros((8, 8, 3), np.uint8))
    beard = np.zeros((16, 16), np.uint8)
    save(root / "CelebAMask-HQ-mask-anno/0/00000_beard.png", beard)
    for name in (".DS_Store", "Thumbs.db", "._00000_skin.png"):
        (root / "CelebAMask-HQ-mask-anno/0" / name).touch()
    twice = next((root / "CelebAMask-HQ-mask-anno/0").glob("00000_[!b]*.png")).name
    save(root / "CelebAMask-HQ-mask-anno/1" / twice, beard)
    pairs = CelebAMaskPairs(tmp_path, label_set("celebamask-hq"))  # the folder above it will do
    assert pairs.names == ("00000", "00002")
    assert pairs.problems.lines() == [
        "1 images whose name is no number: five.jpg",
        "1 files that are no known part: 0/00000_beard.png",
        f"1 parts given twice: 0/{twice} and 1/{twice}",
        "1 images without a part: 5.jpg",
        "1 numbers with parts but without an image: 00001",
    ]


def test_parts_that_cannot_be_merged(tmp_path: Path) -> None:
    celebamask(tmp_path, [0, 1])
    first = next((tmp_path / "CelebAMask-HQ-mask-anno/0").glob("00000_*.png"))
    first.write_bytes(first.read_bytes()[:60])
    second = next((tmp_path / "CelebAMask-HQ-mask-anno/0").glob("00001_*.png"))
    save(second, np.zeros((8, 8), np.uint8))
    pairs = CelebAMaskPairs(tmp_path, label_set("celebamask-hq"))
    with pytest.raises(DataError, match=first.name):
        pairs.mask("00000")
    with pytest.raises(DataError, match=r"different sizes: .*8x8.*Remedy"):
        pairs.mask("00001")


def test_official_splits(tmp_path: Path) -> None:
    celebamask(tmp_path, [0, 1, 2, 1999, 2000, 28000])
    pairs = CelebAMaskPairs(tmp_path, label_set("celebamask-hq"))
    fixed = {"first-2000": ["00000", "00001", "00002", "01999"], "last-2000": ["28000"]}
    assert pairs.splits() == fixed
    rows = {0: 162770, 1: 162771, 2: 182637, 1999: 182638, 2000: 5, 28000: 200000}
    lines = [f"{number}\t{origin}\t{origin:06d}.jpg" for number, origin in rows.items()]
    (tmp_path / MAPPING).write_text("\n".join(["idx\torig_idx\torig_file", *lines, ""]))
    official = {"train": ["00000", "02000"], "val": ["00001", "00002"], "test": ["01999", "28000"]}
    assert pairs.splits() == fixed | official
    (tmp_path / MAPPING).write_text("idx orig_idx orig_file\n0 1 000001.jpg\n")
    with pytest.raises(DataError, match="does not list image 00001"):
        pairs.splits()


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="CelebA-HQ-img and CelebAMask-HQ-mask-anno"):
        CelebAMaskPairs(tmp_path, label_set("celebamask-hq"))
    celebamask(tmp_path, [0])
    with pytest.raises(DataError, match="no counterpart in 'avatars'"):
        CelebAMaskPairs(tmp_path, label_set("avatars"))
