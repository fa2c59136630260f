"""The house's rules, checked: rooms import upward only, plain torch loads no Lightning, every YAML parses."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "sisug"
SOURCES = sorted(PACKAGE.rglob("*.py"))

GROUND = {"errors", "types", "common", "nn"}
"""The ground floor: open to all rooms. It imports nothing of ours but itself."""

SHARED = {"training"}
"""Lightning pieces that the modules of every room share; they stand on the ground floor alone."""

ROOMS = [
    "labels",
    "faces",
    "metrics",
    "generators",
    "proxies",
    "conditions",
    "data",
    "segmentation",
    "rearranger",
    "mapper",
    "baselines",
    "synthesis",
    "evaluation",
    "sweeps",
]
"""The rooms from the top: each may import those above it, so no circle can close."""

COMMAND_LINE = {"__init__", "__main__", "cli", "testing"}
"""Files of the package itself that may open every door."""

WIRING = {
    "base_module.py",
    "datamodule.py",
    "grids.py",
    "latents.py",
    "module.py",
    "multiscale_module.py",
    "online_clustering.py",
    "pair_module.py",
    "quality.py",
    "sample_grid.py",
}
"""Files of rooms that Lightning runs: modules, callbacks and loaders. All others are plain torch."""

LIGHTNING = {"lightning", "pytorch_lightning"}


def allowed_for(room: str) -> set[str]:
    if room in GROUND:
        return {"errors", "types", "common"} if room == "common" else {room}
    if room in SHARED:
        return GROUND | {room}
    return GROUND | SHARED | set(ROOMS[: ROOMS.index(room) + 1])


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Modules that a file imports, wherever in the file, and the names that it takes from each."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = tuple(alias.name for alias in node.names)
            if node.module == "sisug":
                yield from ((f"sisug.{name}", ()) for name in names)
            else:
                yield node.module or "", names


def of_other_rooms(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Imports of our own modules that stand in another room than the file."""
    for name, names in imports(path):
        parts = name.split(".")
        if parts[0] == "sisug" and len(parts) > 1 and parts[1] not in ("__version__", room_of(path)):
            yield name, names


@pytest.mark.parametrize("path", [path for path in SOURCES if room_of(path) not in COMMAND_LINE], ids=name_of)
def test_rooms_import_upward_only(path: Path) -> None:
    allowed = allowed_for(room_of(path))
    for name, _ in of_other_rooms(path):
        assert name.split(".")[1] in allowed, f"{name_of(path)} imports {name}: it may import {sorted(allowed)}"


def test_every_room_is_in_the_plan() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} | {path.stem for path in PACKAGE.glob("*.py")}
    planned = GROUND | SHARED | set(ROOMS) | COMMAND_LINE
    assert rooms <= planned, "a new room needs its place in ROOMS, which says what it may import"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_room_takes_what_is_private_to_another(path: Path) -> None:
    for name, names in of_other_rooms(path):
        private = [part for part in (*name.split(".")[1:], *names) if part.startswith("_")]
        assert not private, f"{name_of(path)} imports {', '.join(private)} of {name}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_room_takes_a_helper_from_anothers_command(path: Path) -> None:
    for name, names in of_other_rooms(path):
        assert "commands" not in (*name.split("."), *names), f"{name_of(path)} imports {name}"


def is_plain(path: Path) -> bool:
    """Whether a file must be usable without Lightning: all but the wiring, and what runs whole trainings."""
    room = room_of(path)
    whole_runs = room in SHARED | COMMAND_LINE | {"evaluation"} or path.name in ("commands.py", "__main__.py")
    return not whole_runs and path.name not in WIRING


@pytest.mark.parametrize("path", [path for path in SOURCES if is_plain(path)], ids=name_of)
def test_only_wiring_names_lightning(path: Path) -> None:
    for name, _ in imports(path):
        assert name.split(".")[0] not in LIGHTNING, f"{name_of(path)} imports {name}: is it wiring?"


def test_plain_torch_loads_no_lightning() -> None:
    # One fresh interpreter for all: the first module that brings Lightning in is named.
    program = f"""
import importlib, sys
for name in {[module_of(path) for path in SOURCES if is_plain(path)]}:
    importlib.import_module(name)
    loaded = {LIGHTNING} & set(sys.modules)
    assert not loaded, f"importing {{name}} loads {{loaded}}"
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


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
