"""The protocols' YAML files: each names every setting of its protocol, and settings that it takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from sisug.evaluation.commands import PROTOCOLS, make_protocol

FILES = sorted((Path(__file__).parents[2] / "experiments" / "evaluate").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_names_every_setting(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    protocol = make_protocol(content["protocol"], content["settings"])
    assert dataclasses.is_dataclass(protocol)
    assert content["settings"].keys() == {field.name for field in dataclasses.fields(protocol)}
    assert path.stem.startswith(content["protocol"])
    assert content["out"] == f"runs/evaluate-{path.stem}"


def test_there_is_a_file_for_each_protocol() -> None:
    assert {yaml.safe_load(path.read_text())["protocol"] for path in FILES} == set(PROTOCOLS)
