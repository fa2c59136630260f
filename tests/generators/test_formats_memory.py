"""Memory that loading takes, at the size of published generators: 256 px with 16,384 channel pixels and 8 layers of
mapping.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from generators import checkpoint_files as files
from generators.loading_process import LoadingProcess

FAMILIES = ("ada-3", "stylegan3", "rosinality-exported", "rosinality-trained", "rosinality-legacy", "psp")
FAMILIES += ("tensorflow-4", "genforce", "torch-nvidia", "native")


@pytest.fixture
def process() -> Iterator[LoadingProcess]:
    """One for each file: memory that an earlier one gave back would not show."""
    running = LoadingProcess(patience=120.0)
    yield running
    running.end()


@pytest.fixture(scope="module")
def model() -> files.Model:
    return files.large_model()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_loading_takes_at_most_twice_the_file(tmp_path, process, model, family):
    path = files.FAMILIES[family](tmp_path / "file", model)
    size = path.stat().st_size
    verdict = process.load(path)
    path.unlink()
    assert verdict.error == "", verdict
    assert size > 90e6, "the file is as large as a published one"
    assert 50e6 < verdict.growth <= 2 * size, f"{verdict.growth / 1e6:.0f} MB for a file of {size / 1e6:.0f} MB"
