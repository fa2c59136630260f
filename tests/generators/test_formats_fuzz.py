"""Mutated files of every family: an error of ours or a correct load, never another exception, never wrong silently."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from generators import mutations
from generators.mutations import FAMILIES, Outcome


def outcomes(seed: int, count: int, seconds: float) -> dict[str, Outcome]:
    """What became of the mutations, by family; those that never came back are missing."""
    command = [sys.executable, mutations.__file__, str(seed), str(count)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
        text, errors = done.stdout, done.stderr
    except subprocess.TimeoutExpired as stopped:
        text, errors = (stopped.stdout or b"").decode(), "it did not end"
    found = [Outcome(**json.loads(line)) for line in text.splitlines()]
    assert found, errors
    return {outcome.family: outcome for outcome in found}


@pytest.fixture(scope="module")
def few() -> dict[str, Outcome]:
    return outcomes(seed=0, count=24, seconds=200)


def assert_right(outcome: Outcome | None) -> None:
    assert outcome is not None, "its mutations never ended"
    assert not outcome.problems, "\n".join(outcome.problems[:20])
    assert outcome.refused > 0
    assert outcome.unchanged + outcome.changed > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_mutated_files_are_refused_or_read_right(few, family):
    assert_right(few.get(family))


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", [1, 2])
def test_many_more_mutations(seed):
    found = outcomes(seed, count=1000, seconds=1400)
    for family in FAMILIES:
        assert_right(found.get(family))
