"""`sisug sweep` (all stages): a W&B sweep file on this machine, without an account."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from sisug.common.atomic_file import atomic_write
from sisug.common.folders import check_writable
from sisug.errors import check_range
from sisug.sweeps.running import LocalSweep
from sisug.sweeps.sweep_file import SweepFile, read_sweep
from sisug.sweeps.trials import Trial


def sweep(file: Path, count: int = 20, out: Path | None = None, workers: int = 1, seed: int = 0) -> str:
    """Run a W&B sweep file here; the same command goes on where an earlier one ended, however it ended.

    Args:
        file: the sweep file, see experiments/sweeps/.
        count: runs in all, those of earlier calls included.
        out: folder of the sweep; runs/sweep-FILE if left out. Each run has a folder in it; runs.csv is the table.
        workers: runs at a time; with several GPUs each has one.
        seed: of the search.

    Returns:
        The table of the runs, best first, and where it lies.

    Raises:
        SisugError: the file is none that W&B accepts, or the folder cannot be used.
    """
    check_range(count=count, workers=workers, above=0)
    given = read_sweep(file)
    folder = out or Path("runs") / f"sweep-{file.stem}"
    check_writable(folder, "folder", "choose another --out")
    local = LocalSweep(given, folder, count=count, workers=workers, seed=seed)
    try:
        local.run()
    finally:
        trials = local.trials()
        with atomic_write(folder / "runs.csv") as written:
            written.write(table(given, trials).encode())
    return summary(given, trials, folder)


def score(sweep: SweepFile, trial: Trial) -> float | None:
    """The best value of the metric that a run has logged."""
    return (max if sweep.maximizes else min)(trial.history, default=None)


def ranked(sweep: SweepFile, trials: list[Trial]) -> list[Trial]:
    """Runs from the best to the worst; those without a score last."""
    sign = -1 if sweep.maximizes else 1

    def key(trial: Trial) -> tuple[bool, float, int]:
        best = score(sweep, trial)
        return best is None, 0.0 if best is None else sign * best, trial.number

    return sorted(trials, key=key)


def table(sweep: SweepFile, trials: list[Trial]) -> str:
    """The runs as CSV, best first.

    Args:
        sweep: the file.
        trials: of the sweep.
    """
    names = list(dict.fromkeys(name for trial in trials for name in trial.values))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["run", "state", sweep.metric, "validations", "seconds", *names, "note"])
    for trial in ranked(sweep, trials):
        values = [trial.values.get(name, "") for name in names]
        best = score(sweep, trial)
        row = [trial.folder_name, trial.state, "" if best is None else best, len(trial.history), trial.seconds]
        writer.writerow([*row, *values, trial.note])
    return text.getvalue()


def summary(sweep: SweepFile, trials: list[Trial], folder: Path) -> str:
    """The table for a terminal: parameters that differ between the runs, by the last part of their names.

    Args:
        sweep: the file.
        trials: of the sweep.
        folder: of the sweep.
    """
    names = list(dict.fromkeys(name for trial in trials for name in trial.values))
    shown = [name for name in names if len({repr(trial.values.get(name)) for trial in trials}) > 1]
    head = ["run", "state", sweep.metric, *(name.rsplit(".", 1)[-1] for name in shown)]
    rows = [head]
    for trial in ranked(sweep, trials):
        values = [_short(trial.values.get(name)) for name in shown]
        rows.append([trial.folder_name, trial.state, _short(score(sweep, trial)), *values])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    going_on = [trial.folder_name for trial in trials if trial.state == "running"]
    if going_on:
        lines += ["", f"Still running in another process: {', '.join(going_on)}; the same command collects them."]
    return "\n".join([*lines, "", f"Table: {folder / 'runs.csv'}. A run's files: {folder}/RUN."])


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
