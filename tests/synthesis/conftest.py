"""Trained pieces of random weights as files: what the tests of synthesis share."""

from __future__ import annotations

from pathlib import Path

import pytest
from mapper.mappers import random_mapper, random_rearranger

from sisug.mapper.trained import write_mapper
from sisug.rearranger.trained import write_rearranger
from sisug.synthesis import Synthesizer


@pytest.fixture(scope="session")
def mapper_file(tiny_generator_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mapper of 16 px that reads masks of three classes."""
    path = tmp_path_factory.mktemp("mapper") / "seg.safetensors"
    write_mapper(random_mapper(tiny_generator_file), path)
    return path


@pytest.fixture(scope="session")
def edges_file(tiny_generator_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mapper") / "edges.safetensors"
    write_mapper(random_mapper(tiny_generator_file, "edges", None), path)
    return path


@pytest.fixture(scope="session")
def rearranger_file(tiny_generator_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rearranger") / "tiny.safetensors"
    write_rearranger(random_rearranger(tiny_generator_file), path)
    return path


@pytest.fixture
def synthesizer(mapper_file: Path) -> Synthesizer:
    return Synthesizer.load(mapper_file, device="cpu")
