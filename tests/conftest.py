"""Fixtures that several folders of tests share: one thread, a tiny generator, the `sisug` command."""

from __future__ import annotations

import importlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Small tensors are slower on several threads than on one, and tests share the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_interrupts() -> Iterator[None]:
    """A shell starts background jobs with SIGINT ignored, and Python keeps that; tests of Ctrl-C need its handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def lightning_imported() -> None:
    """Lightning's log handlers keep the stderr of their import, which must not be that of one test's capsys."""
    importlib.import_module("lightning.pytorch")


@pytest.fixture
def sisug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lightning_imported: None) -> Iterator[Callable[..., int]]:
    """Run `sisug ARGUMENTS` in this process, in an empty folder (`tmp_path`); returns the exit code."""
    from sisug.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")

    def run(*arguments: object) -> int:
        texts = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["sisug", *texts])
        try:
            return main()
        except SystemExit as stop:  # argparse's errors and --print_config
            return int(stop.code or 0)

    yield run
    # What the command sets up for a whole process is not to reach other tests.
    log = logging.getLogger("sisug")
    log.handlers.clear()
    log.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def tiny_generator_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator of 16 px with random weights, as a native file."""
    from sisug.generators import Generator
    from sisug.generators.native import write_native

    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = Generator(6, 7, {4: 8, 8: 8, 16: 6}, mapping_layers=2)
    path = tmp_path_factory.mktemp("generator") / "tiny.safetensors"
    write_native(path, generator)
    return path
