"""The house's rules, checked: rooms import upward only, plain torch knows no Lightning, every YAML parses."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "sisug"
SOURCES = sorted(PACKAGE.rglob("*.py"))

FOUNDATIONS = {"errors", "types", "nn"}
"""Open to all; they import nothing of ours."""

SHARED = {"common", "training"}
"""Rooms that every room may import; they import the foundations only."""

ROOMS = [
    "labels",
    "metrics",
    "faces",
    "generators",
    "proxies",
    "conditions",
    "data",
    "segmentation",
    "rearranger",
    "mapper",
    "synthesis",
    "baselines",
    "evaluation",
]
"""The method's rooms from the top: each may import those above it."""


def allowed_for(room: str) -> set[str]:
    if room in FOUNDATIONS:
        return {room}
    if room in SHARED:
        return FOUNDATIONS | {room, "common"}
    return FOUNDATIONS | SHARED | set(ROOMS[: ROOMS.index(room) + 1])


PLAIN_TORCH = {"network.py", "losses.py"}
"""What is learnt and how: usable without Lightning. (`errors` and `types` count as plain too.)"""


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def imports(path: Path) -> Iterator[str]:
    """Absolute names of all modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            if node.module == "sisug":
                yield from (f"sisug.{alias.name}" for alias in node.names)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_rooms_import_upward_only(path: Path) -> None:
    room = room_of(path)
    if room in {"__init__", "__main__", "cli"}:
        return  # the command line may open every door
    allowed = allowed_for(room)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "sisug" and len(parts) > 1 and parts[1] != "__version__":
            assert parts[1] in allowed, f"{name_of(path)} imports {name}: {room} may import {sorted(allowed)}"


def test_every_room_is_in_the_plan() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms <= SHARED | set(ROOMS), "a new room needs its place in ROOMS, which says what it may import"


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name in PLAIN_TORCH], ids=name_of)
def test_plain_torch_knows_no_lightning(path: Path) -> None:
    # Directly or through another file of ours.
    seen: set[Path] = set()
    todo = [path]
    while todo:
        current = todo.pop()
        seen.add(current)
        for name in imports(current):
            assert name.split(".")[0] not in {"lightning", "pytorch_lightning"}, f"{name_of(current)} imports {name}"
            if name.startswith("sisug."):
                file = PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
                if file.exists() and file not in seen:
                    todo.append(file)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_say_what_they_hold(path: Path) -> None:
    text = path.read_text()
    assert text.startswith('"""'), f"{name_of(path)} does not begin with what it holds"
    assert path.name == "__init__.py" or "from __future__ import annotations" in text


# --- experiments ---------------------------------------------------------------------------------------------------

YAMLS = sorted((REPOSITORY / "experiments").rglob("*.yaml"))


def command_of(path: Path) -> list[str]:
    """The command in a YAML's header: a comment that begins with `# sisug `, perhaps continued after a backslash."""
    text = path.read_text().replace("\\\n#", " ")
    found = re.search(r"^# (?:\S+=\S+ )*sisug (.+)$", text, flags=re.MULTILINE)
    assert found, f"{name_of(path)} lacks a header comment `# sisug fit --config ...` with its full command"
    return shlex.split(found[1])


@pytest.mark.parametrize("path", YAMLS, ids=name_of)
def test_experiment_parses_as_its_header_says(
    sisug: Callable[..., int], path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command_of(path)
    assert name_of(path) in arguments, "the command in the header uses the file itself"
    monkeypatch.chdir(REPOSITORY)
    assert sisug(*arguments, "--print_config") == 0, capsys.readouterr().err
    assert capsys.readouterr().out.strip()


# --- benchmarks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((REPOSITORY / "benchmarks").glob("*.py")), ids=name_of)
def test_benchmarks_find_what_they_import(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(path.parent))  # as Python does for a script
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem.replace('-', '_')}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    assert callable(module.main)
