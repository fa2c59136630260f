"""A rearranger of random weights as a file, for the tests of stage 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from mapper.mappers import random_rearranger

from sisug.rearranger.trained import write_rearranger


@pytest.fixture(scope="module")
def rearranger_file(tiny_generator_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rearranger") / "tiny.safetensors"
    write_rearranger(random_rearranger(tiny_generator_file), path)
    return path
