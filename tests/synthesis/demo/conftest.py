"""A studio of tiny models, what the tests of the demo share."""

from __future__ import annotations

from pathlib import Path

import pytest

from sisug.synthesis.demo.models import Models, Reader
from sisug.synthesis.demo.studio import Studio


@pytest.fixture(autouse=True)
def short_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are sought in a few steps: what is found is the same wherever it is sought."""
    monkeypatch.setattr("sisug.synthesis.inversion.STEPS", 5)


@pytest.fixture(scope="session")
def studio(mapper_file: Path, edges_file: Path) -> Studio:
    readers = [Reader("tiny", "seg", str(mapper_file), mapper_file.name)]
    readers.append(Reader("tiny", "edges", str(edges_file), edges_file.name))
    return Studio(Models(readers, "cpu"))
