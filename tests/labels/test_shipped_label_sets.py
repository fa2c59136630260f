"""Label sets that ship, and label set files: orders and colours against the facts that they were made from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sisug.errors import DataError
from sisug.labels.label_files import read_label_set
from sisug.labels.label_sets import IGNORE_COLOUR, LABEL_SETS, LabelSet, label_set

BISENET = {  # as the parser's users write it down: number and name
    1: "skin", 2: "l_brow", 3: "r_brow", 4: "l_eye", 5: "r_eye", 6: "eye_g", 7: "l_ear", 8: "r_ear", 9: "ear_r",
    10: "nose", 11: "mouth", 12: "u_lip", 13: "l_lip", 14: "neck", 15: "neck_l", 16: "cloth", 17: "hair", 18: "hat",
}  # fmt: skip

OFFICIAL = {
    1: "skin", 2: "nose", 3: "eye_g", 4: "l_eye", 5: "r_eye", 6: "l_brow", 7: "r_brow", 8: "l_ear", 9: "r_ear",
    10: "mouth", 11: "u_lip", 12: "l_lip", 13: "hair", 14: "hat", 15: "ear_r", 16: "neck_l", 17: "neck", 18: "cloth",
}  # fmt: skip


@pytest.mark.parametrize(("name", "order"), [("celebamask-hq", OFFICIAL), ("celebamask-hq-bisenet", BISENET)])
def test_both_orders_of_faces(name: str, order: dict[int, str]) -> None:
    labels = label_set(name)
    assert labels.classes == ("background", *(order[number] for number in range(1, 19)))
    pairs = {frozenset((labels.classes[a], labels.classes[b])) for a, b in labels.flip_pairs}
    assert pairs == {frozenset((f"l_{part}", f"r_{part}")) for part in ("eye", "brow", "ear")}


def test_a_part_has_one_colour_in_every_order() -> None:
    first, second = (
        dict(zip(labels.classes, labels.palette, strict=True))
        for labels in map(label_set, ("celebamask-hq", "celebamask-hq-bisenet"))
    )
    assert first == second
    assert first["hair"] == (0, 0, 204)  # place 13 of the official colours
    assert first["cloth"] == (0, 204, 0)


def test_scenes() -> None:
    scenes, files = label_set("ade20k"), label_set("ade20k-151")
    assert files.classes == ("other", *scenes.classes)
    assert files.palette[1:] == scenes.palette
    # Places of the official list of scene parsing, which counts from 1.
    for place, name in {1: "wall", 8: "bed", 54: "stairs", 90: "television receiver", 150: "flag"}.items():
        assert files.classes[place] == name
    for name, count in (("lsun-bedroom", 17), ("lsun-church", 12)):
        scene = label_set(name)
        assert scene.num_classes == count
        assert scene.classes[0] == "background"
        assert set(scene.classes[1:]) <= set(scenes.classes)


@pytest.mark.parametrize("name", list(LABEL_SETS))
def test_shipped_sets_are_usable(name: str) -> None:
    labels = label_set(name)
    assert labels.name == name
    assert IGNORE_COLOUR not in labels.palette
    assert LabelSet.from_dict(json.loads(json.dumps(labels.to_dict()))) == labels


def test_files_can_name_mirror_pairs(tmp_path: Path) -> None:
    path = tmp_path / "cat.json"
    record = {"classes": {"fur": "#102030", "left": "#ffffff", "right": [1, 2, 3]}, "flip_pairs": [["left", "right"]]}
    path.write_text(json.dumps(record))
    expected = LabelSet("cat", ("fur", "left", "right"), ((16, 32, 48), (255, 255, 255), (1, 2, 3)), ((1, 2),))
    assert read_label_set(str(path)) == expected
    for wrong in ([["left", "tail"]], "left", [["left"]], 3):
        path.write_text(json.dumps({**record, "flip_pairs": wrong}))
        with pytest.raises(DataError, match=r"flip pair.*Remedy"):
            read_label_set(str(path))
