"""Label sets: what they refuse, their colours, counts, mirror pairs and round trips."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from sisug.errors import DataError
from sisug.labels.label_sets import AVATARS, IGNORE_COLOUR, LabelSet, label_set

FACE = LabelSet("face", ("skin", "left", "right"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), ((1, 2),))
MASKS = torch.tensor([[[0, 1, 2, 255], [1, 1, 0, 0]]])


def changed(**fields: Any) -> dict[str, Any]:
    return FACE.to_dict() | fields


@pytest.mark.parametrize(
    ("record", "cause"),
    [
        (changed(classes=["skin"], palette=[[1, 2, 3]], flip_pairs=[]), "1 classes"),
        (changed(classes=["skin", "left", "left"]), "different"),
        (changed(classes=["skin", "left", ""]), "non-empty"),
        (changed(palette=[[1, 2, 3], [4, 5, 6]]), "2 colours"),
        (changed(palette=[[1, 2, 3], [4, 5, 6], [7, 8, 256]]), "0 to 255"),
        (changed(palette=[[1, 2, 3], [4, 5, 6], [7, 8, 9.0]]), "int"),
        (changed(palette=[[1, 2, 3], [4, 5, 6], [4, 5, 6]]), "share a colour"),
        (changed(palette=[[1, 2, 3], [4, 5, 6], list(IGNORE_COLOUR)]), "ignored pixels"),
        (changed(flip_pairs=[[1, 2], [2, 0]]), "two pairs"),
        (changed(flip_pairs=[[1, 1]]), "two pairs"),
        (changed(flip_pairs=[[1, 3]]), "outside 0 to 2"),
        (changed(ignore=2), "ignore=2"),
        (changed(ignore=256), "ignore=256"),
        ({"name": "face"}, "classes"),
        (changed(colour="red"), "colour"),
    ],
)
def test_refuses_contradictions(record: dict[str, Any], cause: str) -> None:
    with pytest.raises(DataError, match=cause):
        LabelSet.from_dict(record)


def test_is_immutable() -> None:
    with pytest.raises(AttributeError):
        FACE.name = "other"  # type: ignore[misc]


def test_colours_are_those_of_the_palette() -> None:
    picture = FACE.colorize(MASKS)
    assert picture.shape == (1, 3, 2, 4)
    assert picture.dtype == torch.uint8
    assert [tuple(colour) for colour in picture[0, :, 0].T.tolist()] == [(1, 2, 3), (4, 5, 6), (7, 8, 9), IGNORE_COLOUR]
    assert FACE.colorize(MASKS[0]).shape == (3, 2, 4)


def test_histogram_counts_what_numpy_counts() -> None:
    masks = torch.randint(0, 11, (3, 5, 7), generator=torch.Generator().manual_seed(0))
    masks[0, 0, :3] = 255
    labelled = masks.numpy()[masks.numpy() != 255]
    assert AVATARS.histogram(masks).tolist() == np.bincount(labelled, minlength=11).tolist()


@pytest.mark.parametrize("value", [3, 254, -1, 300])
def test_foreign_values_are_named(value: int) -> None:
    masks = torch.full((1, 2, 2), value)
    for use in (FACE.colorize, FACE.histogram):
        with pytest.raises(DataError, match=str(value)):
            use(masks)


def test_flip_mirrors_and_swaps_pairs() -> None:
    assert FACE.flip(MASKS).tolist() == [[[255, 1, 2, 0], [0, 0, 2, 2]]]
    assert torch.equal(FACE.flip(FACE.flip(MASKS)), MASKS)


def test_round_trips_through_json_and_checkpoints(tmp_path: Any) -> None:
    assert LabelSet.from_dict(json.loads(json.dumps(FACE.to_dict()))) == FACE
    torch.save({"label_set": AVATARS.to_dict()}, tmp_path / "x.ckpt")
    loaded = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert LabelSet.from_dict(loaded["label_set"]) == AVATARS


def test_names_and_numbers() -> None:
    assert AVATARS.num_classes == 11
    assert AVATARS.classes[AVATARS.number("facial_hair")] == "facial_hair"
    with pytest.raises(DataError, match="background, skin"):
        AVATARS.number("face")


def test_shipped_label_sets_are_found_by_name() -> None:
    assert label_set("avatars") is AVATARS
    with pytest.raises(DataError, match="avatars"):
        label_set("moon")
