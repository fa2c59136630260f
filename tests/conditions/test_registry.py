"""Conditions by name, and records that bring them back from a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sisug.conditions.registry import CONDITIONS, condition, condition_from_dict
from sisug.errors import CheckpointError, ConfigError, DataError
from sisug.labels.label_sets import AVATARS

CHOICES: list[tuple[str, dict[str, Any]]] = [
    ("seg", {"tolerance": 3}),
    ("scribble", {"tolerance": 4}),
    ("edges", {"detector": "canny"}),
    ("sketch", {}),
    ("depth", {"stretch": True, "order": list(reversed(AVATARS.classes))}),
]


def test_names_are_those_of_the_kinds() -> None:
    assert {name: kind.name for name, kind in CONDITIONS.items()} == {name: name for name in CONDITIONS}
    assert [name for name, _ in CHOICES] == list(CONDITIONS)


@pytest.mark.parametrize(("name", "options"), [*CHOICES, *((name, {}) for name in CONDITIONS)])
def test_records_survive_json_and_checkpoints(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    made = condition(name, AVATARS, **options)
    torch.save(made.to_dict(), tmp_path / "x.ckpt")
    for record in (json.loads(json.dumps(made.to_dict())), torch.load(tmp_path / "x.ckpt", weights_only=True)):
        again = condition_from_dict(record)
        assert type(again) is type(made)
        assert again.labels == AVATARS
        assert again.options == made.options
        assert again.options.items() >= options.items()


def test_conditions_without_label_set() -> None:
    for name in ("edges", "sketch", "depth"):
        assert condition_from_dict(condition(name).to_dict()).labels is None
    for name in ("seg", "scribble"):
        with pytest.raises(ConfigError, match="label set"):
            condition(name)


def test_channels_and_masks() -> None:
    kinds = {name: condition(name, AVATARS) for name in CONDITIONS}
    assert {name: kind.channels for name, kind in kinds.items()} == {
        "seg": 11, "scribble": 11, "edges": 1, "sketch": 1, "depth": 1,
    }  # fmt: skip
    assert [name for name, kind in kinds.items() if kind.needs_masks] == ["seg", "scribble", "depth"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hed", {}, "seg, scribble, edges, sketch, depth"),
        ("seg", {"tolerence": 3}, "its options are tolerance"),
        ("sketch", {"width": 3}, "it has no options"),
        ("edges", {"detector": "pidinet"}, "sobel, canny, hed"),
        ("edges", {"detector": "hed"}, r"without weights.*network-bsds500.*ControlNetHED"),
        ("edges", {"weights": "hed.pth"}, "only hed has any"),
        ("depth", {"model": "a/b", "order": list(AVATARS.classes)}, "with an order of layers"),
        ("depth", {"model": "a/b", "stretch": False}, "with stretch false"),
        ("depth", {"model": "a/b", "resolution": 0}, "number of pixels"),
        ("depth", {"model": "a/b", "larger_is": "bright"}, "near and far"),
        ("depth", {"resolution": 64, "revision": "main"}, "with revision, resolution"),
    ],
)
def test_unknown_choices_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        condition(name, AVATARS, **options)


def test_damaged_records_are_refused() -> None:
    record = condition("seg", AVATARS).to_dict()
    with pytest.raises(CheckpointError, match="without name, options"):
        condition_from_dict({"label_set": record["label_set"]})
    with pytest.raises(DataError, match="label set"):
        condition_from_dict({**record, "label_set": {"name": "avatars"}})
