"""Packaging: pyproject, constraints, environment.yml, the Makefile and the package's imports agree with each other."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sisug

REPOSITORY = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("text", [*PROJECT["dependencies"], *EXTRAS["dev"]])
def test_each_dependency_is_pinned_within_its_range(text: str) -> None:
    requirement = Requirement(text)
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("text", [*PROJECT["dependencies"], *(one for extra in EXTRAS.values() for one in extra)])
def test_each_floor_has_a_reason(text: str) -> None:
    line = next(line for line in (REPOSITORY / "pyproject.toml").read_text().splitlines() if f'"{text}"' in line)
    assert any(specifier.operator == ">=" for specifier in Requirement(text).specifier)
    assert re.search(r"# \S.{10,}", line), f"{text} lacks a comment that says why"


def test_constraints_hold_names_and_versions_only() -> None:
    # No addresses, local paths, editable lines or options: they would not hold on another machine.
    for line in (REPOSITORY / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.!]+", line), line
    assert "sisug" not in pins()


def test_torch_and_torchvision_are_a_pair() -> None:
    assert (pins()["torch"], pins()["torchvision"]) == ("2.14.1", "0.29.2")


def test_faiss_for_the_cpu_is_the_one_pinned() -> None:
    # Both packages install the module `faiss`: never two at once.
    assert "faiss-cpu" in pins()
    assert not any(name.startswith("faiss-gpu") for name in pins())


def test_environment_yml_is_in_step() -> None:
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    *conda, last = environment["dependencies"]
    assert conda == [_python_of_classifiers(), "pip"]
    # Everything else comes from pyproject.toml with the tested versions, so that no list is kept twice.
    assert last == {"pip": ["--constraint constraints.txt", "--editable .[dev]"]}


def _python_of_classifiers() -> str:
    minors = [int(m[1]) for text in PROJECT["classifiers"] if (m := re.fullmatch(r".* :: 3\.(\d+)", text))]
    assert PROJECT["requires-python"] == f">=3.{min(minors)}"
    return f"python>=3.{min(minors)},<3.{max(minors) + 1}"


def test_importing_sisug_imports_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import sisug, sisug.errors; "
        "heavy = {'torch', 'lightning', 'numpy', 'faiss', 'wandb', 'PIL'} & (set(sys.modules) - before); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version_is_stated_once() -> None:
    from importlib.metadata import version

    assert version("sisug") == sisug.__version__
    assert "version" in PROJECT["dynamic"]


def test_citation_names_the_paper() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["preferred-citation"]["title"] == "Semantic Image Synthesis with Unconditional Generator"
    assert citation["license"] == PROJECT["license"]


def test_help_lists_every_target() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = {name.replace("%", "NAME") for name in re.findall(r"^([a-z][a-z%-]*):", makefile, flags=re.MULTILINE)}
    listed = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert targets == set(re.findall(r"^  ([a-z][a-zNAME-]*) {2,}\S", listed, flags=re.MULTILINE))


def test_unknown_data_is_refused_before_any_installation(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "train-rearranger", "DATA=unheard-of", f"VENV={tmp_path / 'venv'}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "DATA is one of: " in done.stderr
    assert not (tmp_path / "venv").exists()


def test_no_python_is_a_clear_message(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "sh").symlink_to("/bin/sh")
    done = subprocess.run(
        ["/usr/bin/env", f"PATH={tools}", "/usr/bin/make", "setup", f"VENV={tmp_path / 'venv'}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("name", ["my model.safetensors", "model.safetensors", "/somewhere else/my model.v2.pkl"])
def test_make_finds_what_it_trained_whatever_the_name(tmp_path: Path, name: str) -> None:
    for part in ("Makefile", "experiments", "pyproject.toml", "constraints.txt"):
        (tmp_path / part).symlink_to(REPOSITORY / part)
    (tmp_path / "venv").mkdir()

    def dry(target: str) -> str:
        command = ["make", "-n", target, f"DATA={name}", f"VENV={tmp_path / 'venv'}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    stem = Path(name).stem
    assert f'--run.name "rearranger-{stem}"' in dry("train-rearranger")
    last = tmp_path / f"runs/rearranger-{stem}/version_0/checkpoints/last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    assert f'rearranger "{last.relative_to(tmp_path)}"' in dry("train-mapper")
