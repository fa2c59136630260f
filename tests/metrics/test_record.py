"""Tests of the protocol record: round trip and atomic writing."""

from __future__ import annotations

import json
import math
import os
from importlib import metadata
from pathlib import Path

import pytest

from sisug.errors import DataError, RunError
from sisug.metrics import ProtocolRecord


def a_record(value: float = 1.25) -> ProtocolRecord:
    return ProtocolRecord(
        metric="test/frechet2k_judge",
        value=value,
        samples={"real": 2000, "generated": 2000},
        split="test",
        seeds={"latents": 7},
        extractor="avatars-judge",
        resize="nearest to 64",
        segmenter=None,
        fingerprints={"generator": "ab12"},
        truncation=0.7,
        label_set="avatars",
        interval=(1.0, 1.5),
    )


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    record = a_record()
    record.write(tmp_path / "deep" / "fid.json")
    assert ProtocolRecord.read(tmp_path / "deep" / "fid.json") == record
    content = json.loads((tmp_path / "deep" / "fid.json").read_text())
    assert content["value"] == 1.25
    assert content["versions"]["torch"] == metadata.version("torch")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["fid.json"]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e-300])
def test_values_that_json_has_no_word_for(value: float) -> None:
    text = a_record(value).to_json()
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    back = ProtocolRecord.from_json(text).value
    assert back == value or (math.isnan(back) and math.isnan(value))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "fid.json"
    a_record(1.0).write(file)

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(RunError, match=r"the disk is full.*free some space"):
        a_record(2.0).write(file)
    assert ProtocolRecord.read(file).value == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["fid.json"]


def test_a_folder_that_cannot_be_made_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="choose a folder"):
        a_record().write(tmp_path / "file" / "fid.json")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "is not JSON"),
        ("[1]", "is no protocol record"),
        ('{"metric": "x"}', "missing: .*'value'"),
        (a_record().to_json().replace("1.25", '"good"'), "has the value 'good'"),
        (a_record().to_json().replace('"resize"', '"resized"'), "unknown: .'resized'"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, text: str, match: str) -> None:
    file = tmp_path / "fid.json"
    file.write_text(text)
    with pytest.raises(DataError, match=match):
        ProtocolRecord.read(file)


def test_a_record_of_an_earlier_version_is_read() -> None:
    content = json.loads(a_record().to_json())
    for name in ("truncation", "label_set", "interval"):
        del content[name]
    back = ProtocolRecord.from_json(json.dumps(content))
    assert (back.truncation, back.label_set, back.interval) == (None, None, None)
    del content["versions"]  # what was measured with must never be made up
    with pytest.raises(DataError, match=r"missing: .'versions'"):
        ProtocolRecord.from_json(json.dumps(content))


def test_a_missing_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="check the path"):
        ProtocolRecord.read(tmp_path / "none.json")
