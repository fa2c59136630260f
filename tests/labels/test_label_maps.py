"""Maps between label sets: matched by name, never by number; what has no counterpart is listed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sisug.errors import DataError
from sisug.labels.label_maps import LabelMap, match_labels
from sisug.labels.label_sets import AVATARS, LabelSet, label_set


def labels(name: str, *classes: str) -> LabelSet:
    return LabelSet(name, classes, tuple((7, number, 3) for number in range(len(classes))))


def test_two_orders_of_one_vocabulary() -> None:
    official, bisenet = label_set("celebamask-hq"), label_set("celebamask-hq-bisenet")
    forth, back = match_labels(official, bisenet), match_labels(bisenet, official)
    masks = torch.arange(19).reshape(1, 1, 19)
    assert forth(masks)[0, 0].tolist() == [0, 1, 10, 6, 4, 5, 2, 3, 7, 8, 11, 12, 13, 17, 18, 9, 15, 14, 16]
    assert torch.equal(back(forth(masks)), masks)
    assert match_labels(official, official).numbers == tuple(range(19))


def test_ignored_pixels_stay_ignored() -> None:
    first = LabelSet("first", ("a", "b"), ((1, 1, 1), (2, 2, 2)), ignore=9)
    second = LabelSet("second", ("b", "a"), ((1, 1, 1), (2, 2, 2)), ignore=200)
    assert match_labels(first, second)(torch.tensor([[0, 1, 9]])).tolist() == [[1, 0, 200]]
    with pytest.raises(DataError, match=r"\[200\]"):
        match_labels(first, second)(torch.tensor([[200]]))


def test_left_and_right_merge_and_necklaces_count_to_the_neck() -> None:
    fine, coarse = label_set("celebamask-hq"), label_set("celebamask-hq-15")
    found = match_labels(fine, coarse)
    names = found.to_dict()
    assert names["l_eye"] == names["r_eye"] == "eye"
    assert names["neck_l"] == names["neck"] == "neck"
    assert names["ear_r"] == "ear_r"
    assert found.unseen == ()
    masks = np.random.default_rng(0).integers(0, 19, (2, 8, 8))
    by_hand = np.vectorize(lambda n: coarse.classes.index(names[fine.classes[n]] or ""))(masks)
    assert np.array_equal(found(torch.from_numpy(masks)), by_hand)


def test_the_other_way_is_refused_with_all_names() -> None:
    with pytest.raises(DataError, match="3 classes of 'celebamask-hq-15' have no counterpart") as error:
        match_labels(label_set("celebamask-hq-15"), label_set("celebamask-hq"))
    assert "eye, brow, ear" in error.value.state
    for name in ("l_eye", "r_brow", "neck_l"):
        assert name in error.value.state
    assert "coarser" in error.value.remedy


def test_scenes_with_a_rest() -> None:
    scenes, church = label_set("ade20k"), label_set("lsun-church")
    with pytest.raises(DataError, match=r"139 classes of 'ade20k'.*and 127 more.*1 classes of 'lsun-church'"):
        match_labels(scenes, church)
    found = match_labels(scenes, church, rest="background")
    assert sum(number == 0 for number in found.numbers) == 139
    assert found.numbers[scenes.number("tree")] == church.number("tree")
    assert match_labels(label_set("ade20k-151"), scenes, rest="ignore").numbers == (255, *range(150))


def test_spelling_does_not_matter() -> None:
    written = labels("written", "Television, TV set", "arcade-machine", "bed ", "Left Eyebrow", "hair")
    wanted = labels("wanted", "hair", "l_brow", "bed", "arcade machine", "tv set")
    assert match_labels(written, wanted).numbers == (4, 3, 2, 1, 0)


def test_first_names_win_over_others() -> None:
    # Scene parsing has "blind, screen", "screen door, screen" and "screen, silver screen".
    written = labels("written", "blind, screen", "screen door, screen", "screen, silver screen")
    wanted = labels("wanted", "screen", "screen door", "blind")
    assert match_labels(written, wanted).numbers == (2, 1, 0)


def test_faces_to_avatars_by_hand() -> None:
    faces = label_set("celebamask-hq")
    with pytest.raises(DataError, match="ear_r"):
        match_labels(faces, AVATARS)
    renamed = {"ear_r": "accessories", "eye_g": "accessories", "u_lip": "mouth", "l_lip": "mouth", "neck": "skin"}
    renamed |= {"l_ear": "skin", "r_ear": "skin", "neck_l": "accessories"}
    found = match_labels(faces, AVATARS, renamed=renamed, allow_unseen=True)
    assert found.unseen == ("facial_hair",)
    assert found.to_dict()["l_eye"] == "eyes"
    assert found.to_dict()["cloth"] == "clothes"
    assert match_labels(faces, AVATARS, renamed={**renamed, "hat": None}, allow_unseen=True).to_dict()["hat"] is None


def test_unknown_names_are_refused() -> None:
    first, second = labels("first", "a", "b"), labels("second", "a", "c")
    with pytest.raises(DataError, match=r"'x' .of first.*'y' .of second"):
        match_labels(first, second, renamed={"x": "y"})
    with pytest.raises(DataError, match=r"'z' .of second"):
        match_labels(first, second, rest="z")
    with pytest.raises(DataError, match=r"2 classes needs|each of 2 classes"):
        LabelMap(first, second, (0,))
