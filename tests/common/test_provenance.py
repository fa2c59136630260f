"""Where facts of a record come from: versions, machine, command and commit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from sisug.common import provenance
from sisug.common.provenance import command_line, git_commit, library_versions, machine


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
    code = tmp_path / "package" / "provenance.py"
    code.parent.mkdir()
    code.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(code))
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
