"""Tools of the tests of whole runs: `sisug` in a process of its own, comparison of checkpoints, damaged files."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from torch import Tensor

TESTS = Path(__file__).parents[1]

Layers = tuple[str, ...]
"""The `--config` arguments of an experiment."""


class Process:
    """`sisug ARGUMENTS` in a process of its own, in a folder.

    Args:
        folder: where it runs.
        arguments: of the command.
    """

    def __init__(self, folder: Path, arguments: tuple[object, ...]) -> None:
        self._log = (folder / "output.txt").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sisug", *map(str, arguments)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def wait(self, seconds: float = 120) -> int:
        """Exit code."""
        return self.process.wait(seconds)

    def output(self) -> str:
        """What it has said so far."""
        return Path(self._log.name).read_text()

    def end(self) -> None:
        """Kill it where it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.close()


def load(path: Path) -> dict[str, Any]:
    """A checkpoint, as a resumed run would read it."""
    content = torch.load(path, weights_only=True)
    assert isinstance(content, dict)
    return content


def leaves(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in nested dicts and lists that is neither, by name."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from leaves(value, f"{name}/{key}")
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from leaves(value, f"{name}/{index}")
    else:
        yield name, content


def differences(a: Any, b: Any) -> list[str]:
    """Names of what two nested structures do not share, to the bit; numbers and texts count as tensors do."""
    one, other = dict(leaves(a)), dict(leaves(b))
    return sorted(one.keys() ^ other.keys()) + [
        name for name in one.keys() & other.keys() if not _same(one[name], other[name])
    ]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return bool(type(a) is type(b) and a == b)


def half_written(folder: Path) -> list[str]:
    """Files below a folder that are temporary, or that cannot be read as what their names say."""
    broken = []
    for path in folder.rglob("*"):
        try:
            if path.suffix in (".tmp", ".part"):
                broken.append(str(path))
            elif path.suffix == ".ckpt":
                load(path)["state_dict"]
            elif path.suffix == ".png":
                with Image.open(path) as image:
                    image.load()
            elif path.suffix == ".yaml":
                yaml.safe_load(path.read_text())
            elif path.suffix == ".csv":
                with path.open(newline="") as file:
                    rows = list(csv.reader(file))
                assert all(len(row) == len(rows[0]) for row in rows)
        except Exception as error:  # whatever a damaged file makes its reader raise
            broken.append(f"{path}: {error}")
    return broken
