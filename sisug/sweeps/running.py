"""Runs a sweep on this machine (all stages): several runs at a time, in folders of their own, again after any kill."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from filelock import FileLock

from sisug.errors import ConfigError
from sisug.sweeps.search import next_values, to_stop
from sisug.sweeps.sweep_file import SweepFile
from sisug.sweeps.trials import Trial, lock_trial, read_trials, write_trial

logger = logging.getLogger(__name__)

COPY = "sweep.yaml"
OUTPUT = "output.txt"

GRACE = 60.0
"""Seconds that a run has to end after SIGTERM, before SIGKILL."""


@dataclass
class _Process:
    """A run's process, and what must be closed after it."""

    trial: Trial
    process: subprocess.Popen[bytes]
    lock: int
    output: IO[bytes]
    slot: int
    began: float = field(default_factory=time.monotonic)
    earlier: float = 0.0
    stopping: bool = False


class LocalSweep:
    """Runs of a sweep file until there are so many.

    Any number of these may work on one folder at once, also after the death of others: each run's process holds a lock
    on the run's folder until it ends, and the next run is chosen by one at a time.

    Args:
        sweep: the file.
        folder: of the sweep; made if need be.
        count: runs in all, those of earlier calls included.
        workers: runs at a time. With several GPUs each has one; on the CPU they share the cores.
        seed: of the search.
        poll: seconds between two looks at the runs.

    Raises:
        ConfigError: the folder belongs to another sweep file.
    """

    def __init__(
        self, sweep: SweepFile, folder: Path, *, count: int, workers: int = 1, seed: int = 0, poll: float = 1.0
    ) -> None:
        self.sweep, self.folder, self.count, self.workers = sweep, folder, count, workers
        self.seed, self.poll = seed, poll
        self._active: list[_Process] = []
        self._tried: set[int] = set()
        self._waited_for: set[int] = set()
        self._asked_to_end: int | None = None
        folder.mkdir(parents=True, exist_ok=True)
        with self._lock():
            copy = folder / COPY
            if not copy.exists():
                shutil.copyfile(sweep.path, copy)
            elif copy.read_bytes() != sweep.path.read_bytes():
                raise ConfigError(
                    f"{folder} holds a sweep of another file than {sweep.path}",
                    f"runs of both in one table would mislead the search; what it began with is {copy}",
                    "choose another --out, or give that file",
                )

    def run(self) -> list[Trial]:
        """Start and watch runs until all are done, or Ctrl-C or SIGTERM comes: running ones then save and end.

        Returns:
            All runs of the sweep.

        Raises:
            KeyboardInterrupt: after Ctrl-C or SIGTERM, when the runs have ended.
        """
        with self._signals():
            try:
                while True:
                    self._reap()
                    if self._asked_to_end is None:
                        self._stop_early()
                        while len(self._active) < self.workers and self._start():
                            pass
                    if not self._active and (self._asked_to_end is not None or not self._elsewhere()):
                        break
                    time.sleep(self.poll)
            finally:
                for each in self._active:
                    _end(each)
                self._reap()
        if self._asked_to_end is not None:
            raise KeyboardInterrupt
        return self.trials()

    def trials(self) -> list[Trial]:
        """All runs of the sweep, with what they have logged."""
        return read_trials(self.folder, self.sweep.metric)

    def _lock(self) -> FileLock:
        return FileLock(self.folder / "sweep.lock")

    def _start(self) -> bool:
        """Start one run: an interrupted one goes on, else the search chooses a new one. False where none is left."""
        with self._lock():
            trials = self.trials()
            for trial in trials:
                if trial.state in ("running", "killed") and trial.number not in self._tried:
                    lock = lock_trial(self.folder / trial.folder_name)
                    if lock is not None:
                        logger.info("Run %d goes on.", trial.number)
                        self._launch(trial, lock)
                        return True
            if len(trials) >= self.count:
                return False
            values = next_values(self.sweep.config, trials, seed=self.seed)
            if values is None:
                logger.info("The grid has been run through.")
                return False
            trial = Trial(number=max((each.number for each in trials), default=0) + 1, values=values)
            folder = self.folder / trial.folder_name
            folder.mkdir(exist_ok=True)  # a kill between this line and the record leaves an empty folder
            lock = lock_trial(folder)
            if lock is None:
                return False
            logger.info("Run %d: %s", trial.number, ", ".join(f"{name} {value}" for name, value in values.items()))
            self._launch(trial, lock)
            return True

    def _elsewhere(self) -> bool:
        """Whether other processes have runs going on; they are waited for, and taken over after a kill."""
        numbers = {trial.number for trial in self.trials() if trial.state == "running"} - self._tried
        if numbers - self._waited_for:
            logger.info("Waiting for runs of another process: %s.", ", ".join(map(str, sorted(numbers))))
        self._waited_for |= numbers
        return bool(numbers)

    def _launch(self, trial: Trial, lock: int) -> None:
        self._tried.add(trial.number)
        earlier = trial.seconds
        trial.state, trial.note = "running", ""
        write_trial(self.folder, trial)
        slot = min(set(range(self.workers)) - {each.slot for each in self._active})
        # Where the files lie is not the search's: ROOT/NAME/VERSION, the version by the layer overlays/sweep.yaml.
        where = self.folder.absolute()
        command = [*self.sweep.command(trial.values), f"--run.root={where.parent}", f"--run.name={where.name}"]
        output = (self.folder / trial.folder_name / OUTPUT).open("ab")
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=self._environment(trial, slot),
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the runs in order
            pass_fds=(lock,),
        )
        self._active.append(_Process(trial, process, lock, output, slot, earlier=earlier))

    def _environment(self, trial: Trial, slot: int) -> dict[str, str]:
        own = {"WANDB_RUN_ID": f"{trial.number:03d}", "PYTHONUNBUFFERED": "1"}
        own["WANDB_MODE"] = os.environ.get("WANDB_MODE", "disabled")
        if self.workers > 1:
            gpus = _gpus()
            if gpus:
                own["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
            threads = max(1, (os.cpu_count() or 1) // self.workers)
            own["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
        return os.environ | own

    def _reap(self) -> None:
        """Write down what became of the runs that have ended."""
        for each in [one for one in self._active if one.process.poll() is not None]:
            self._active.remove(each)
            each.output.close()
            trial, code = each.trial, each.process.returncode
            trial.seconds = round(each.earlier + time.monotonic() - each.began, 1)
            if code == 0:
                trial.state = "finished"
            elif each.stopping:
                trial.state = "stopped"
            elif code < 0 or code in (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGKILL):
                trial.state = "killed"
            else:
                trial.state, trial.note = "failed", _last_line(self.folder / trial.folder_name / OUTPUT)
            write_trial(self.folder, trial)
            os.close(each.lock)
            logger.info("Run %d %s after %.0f s.%s", trial.number, trial.state, trial.seconds, _said(trial.note))

    def _stop_early(self) -> None:
        """Ask the runs that the search gives up to end; their best value so far is their score."""
        watched = [each for each in self._active if not each.stopping]
        if not watched or "early_terminate" not in self.sweep.config:
            return
        numbers = to_stop(self.sweep.config, self.trials())
        for each in watched:
            if each.trial.number in numbers:
                logger.info("Run %d is no better than the others and ends early.", each.trial.number)
                each.stopping = True
                each.process.terminate()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Note SIGINT and SIGTERM in the place of ending at once."""

        def note(number: int, frame: FrameType | None) -> None:
            self._asked_to_end = number
            for each in self._active:
                each.process.terminate()

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _end(each: _Process) -> None:
    each.process.terminate()
    try:
        each.process.wait(GRACE)
    except subprocess.TimeoutExpired:
        each.process.kill()
        each.process.wait()


def _gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [each for each in visible.split(",") if each]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _last_line(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _said(note: str) -> str:
    return f" {note}" if note else ""
