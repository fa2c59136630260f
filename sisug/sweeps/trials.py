"""The runs of a sweep on disk (all stages): one folder each, never two processes in one, whole after any kill."""

from __future__ import annotations

import csv
import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sisug.common.atomic_file import atomic_write
from sisug.errors import DataError

TRIAL = "trial.json"
LOCK = "trial.lock"

State = Literal["running", "finished", "stopped", "failed", "killed"]
"""`stopped` early, by the search; `killed` by a signal from elsewhere, so that it can go on; `failed` by itself."""


@dataclass
class Trial:
    """One run of a sweep.

    Args:
        number: from 1.
        values: of the sweep's parameters.
        state: what became of it.
        seconds: that its processes ran, all parts together.
        note: last line of its output, where it failed.
        history: of the sweep's metric, one value a validation; read from the run's own files.
    """

    number: int
    values: dict[str, Any]
    state: State = "running"
    seconds: float = 0.0
    note: str = ""
    history: list[float] = field(default_factory=list)

    @property
    def folder_name(self) -> str:
        """Name of its folder in that of the sweep."""
        return f"run-{self.number:03d}"


def write_trial(folder: Path, trial: Trial) -> None:
    """Write a trial's record, whole or not at all.

    Args:
        folder: of the sweep.
        trial: its history is not written, as it stands in the run's metrics.csv.
    """
    content = {name: value for name, value in asdict(trial).items() if name != "history"}
    with atomic_write(folder / trial.folder_name / TRIAL) as file:
        file.write(json.dumps(content, indent=2).encode())


def read_trials(folder: Path, metric: str) -> list[Trial]:
    """All runs of a sweep, by number.

    Args:
        folder: of the sweep.
        metric: whose values are the histories.

    Raises:
        DataError: a record is damaged.
    """
    trials = []
    for path in sorted(folder.glob(f"*/{TRIAL}")):
        try:
            content = json.loads(path.read_text())
            trial = Trial(**content)
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{path} cannot be read", f"it is no record of a sweep's run: {error}", "remove that run's folder"
            ) from error
        trial.history = read_history(path.parent / "metrics.csv", metric)
        trials.append(trial)
    return sorted(trials, key=lambda trial: trial.number)


def read_history(path: Path, metric: str) -> list[float]:
    """Values that a run has logged of one metric, by step; those that are not finite are left out.

    Args:
        path: metrics.csv, which a resumed run goes on writing: of a step that was logged twice the later row counts.
        metric: name of a column.
    """
    values: dict[int, float] = {}
    if path.is_file():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                try:
                    step, value = int(row["step"] or ""), float(row[metric] or "")
                except (KeyError, TypeError, ValueError):  # another row's metrics, or one that is being written
                    continue
                if math.isfinite(value):
                    values[step] = value
    return [values[step] for step in sorted(values)]


def lock_trial(folder: Path) -> int | None:
    """Take a trial's lock; the run's process inherits it, so it holds until both have ended, however that comes.

    Args:
        folder: of the trial.

    Returns:
        A file descriptor to close in the end; None where another process has the lock.
    """
    import fcntl  # not on Windows, where nothing else of ours needs it

    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
