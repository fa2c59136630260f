"""Text that looks like a number stays text, whoever reads the configuration again."""

from __future__ import annotations

from io import StringIO

import pytest
import yaml
from omegaconf import OmegaConf

from sisug.training.yaml_text import dump_yaml

TEXTS = [
    "1e5",
    "12e34567",
    "2024_01",
    "1.10",
    "0x1f",
    "0o17",
    "007",
    "+1e3",
    "-.5e2",
    ".inf",
    "NaN",
    "1_000.5",
    "12:30",
]
PLAIN = ["runs", "e5", "true", "null", "", "a: b", "- x", "größe", "'", "1 a"]


@pytest.mark.parametrize("text", TEXTS + PLAIN)
def test_text_stays_text(text: str) -> None:
    content = {"run": {"name": text}, "list": [text, 1, 1.5, None, True]}
    written = dump_yaml(content)
    assert yaml.safe_load(written) == content
    assert OmegaConf.to_container(OmegaConf.create(written)) == content
    assert OmegaConf.to_container(OmegaConf.load(StringIO(written))) == content


def test_numbers_stay_numbers() -> None:
    content = {"a": 1e-05, "b": 3, "c": float("inf"), "d": [0.1, -2]}
    assert yaml.safe_load(dump_yaml(content)) == content
