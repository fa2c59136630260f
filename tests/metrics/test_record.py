"""Tests of the protocol record: round trip, atomic writing, and where its facts come from."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from sisug.errors import DataError, RunError
from sisug.metrics import ProtocolRecord, command_line, git_commit, library_versions, machine
from sisug.metrics import record as record_file


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
    real = Path.write_text

    def full_disk(self: Path, text: str, encoding: str) -> int:
        real(self, text[:20], encoding=encoding)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(RunError, match=r"No space left.*has space left"):
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


def test_versions_and_machine() -> None:
    versions = library_versions()
    assert versions["torch"] == metadata.version("torch")
    assert versions["python"] == sys.version.split()[0]
    assert not {"faiss-cpu", "faiss-gpu"} <= set(versions)  # never both
    facts = machine()
    assert facts["cpu"]
    assert 1 <= facts["cores"] <= os.cpu_count()
    assert (facts["gpu"] is None) == (not torch.cuda.is_available())
    json.dumps(facts)


def test_the_command_does_not_name_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/someone/.venv/bin/sisug", "evaluate", "--name", "two words"])
    assert command_line() == "sisug evaluate --name 'two words'"
    monkeypatch.setattr(sys, "argv", ["/home/someone/sisug/__main__.py", "fit"])
    assert command_line() == "python -m sisug fit"


def git(folder: Path, *arguments: str) -> str:
    name = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *name, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_that_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(variable, raising=False)
    code = tmp_path / "package" / "record.py"
    code.parent.mkdir()
    code.write_text("")
    monkeypatch.setattr(record_file, "__file__", str(code))
    assert git_commit() is None  # no repository
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "of something else")
    assert git_commit() is None  # a repository that does not hold the file, as around an installed package
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    assert git_commit() == commit
    code.write_text("changed")
    assert git_commit() == f"{commit}-dirty"
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None  # no git
