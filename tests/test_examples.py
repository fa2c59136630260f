"""The drawings that come with the project: each is read by the kind of condition that its folder is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from sisug.conditions.registry import condition
from sisug.labels.label_files import read_label_set
from sisug.labels.label_sets import AVATARS

EXAMPLES = Path(__file__).parents[1] / "examples"
KINDS = {
    "masks": "seg",
    "free-form": "seg",
    "scribbles": "scribble",
    "edges": "edges",
    "sketches": "sketch",
    "depth": "depth",
}
FILES = sorted(EXAMPLES.rglob("*.png"))


def test_every_kind_has_examples() -> None:
    assert {path.parent.name for path in FILES if path.parents[1] == EXAMPLES} == set(KINDS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_example_is_read(path: Path) -> None:
    labels = read_label_set("faces") if "faces" in path.parts else AVATARS
    encoded = condition(KINDS[path.parent.name], labels).load(path, 64)
    assert encoded.shape[1:] == (64, 64)
    assert float(encoded.max()) > 0.5
    assert float(encoded.min()) < 0.1
