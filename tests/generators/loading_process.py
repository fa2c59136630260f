"""Loads generators and training checkpoints in a process of its own that measures itself: hostile files cannot hang or
exhaust the tests, and the memory that loading takes is seen.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parents[1]
MOST_MEMORY = 6 << 30
"""Address space of the process, bytes: torch takes some GB of it without using them."""


@dataclass(frozen=True)
class Verdict:
    """What became of one file.

    Args:
        error: name of the exception's class; "" where it was loaded, "hang" or "crash" where nothing came back.
        message: of the exception.
        seconds: of processor time.
        growth: of the resident memory at its highest, bytes.
    """

    error: str
    message: str
    seconds: float
    growth: int


class LoadingProcess:
    """A process that loads files one after another, `.ckpt` by `load_run`, others by `load_generator`; it is started
    anew where it died.

    Args:
        patience: seconds after which a file is given up.
    """

    def __init__(self, patience: float = 5.0) -> None:
        self.patience = patience
        self.process: subprocess.Popen[str] | None = None

    def load(self, path: Path) -> Verdict:
        """Load one file."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            assert self._answer(120) is not None, "the process did not start"
        assert self.process.stdin is not None
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        answer = self._answer(self.patience)
        if answer:
            return Verdict(**json.loads(answer))
        self.end()
        return Verdict("hang" if answer is None else "crash", "", self.patience, 0)

    def _answer(self, seconds: float) -> str | None:
        """A line; empty where the process has ended, None where nothing came in time."""
        assert self.process is not None
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return self.process.stdout.readline() if ready else None

    def end(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def peak() -> int:
    """Highest resident memory since the last `forget_peak`, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak() -> None:
    """Let the highest resident memory be the present one."""
    Path("/proc/self/clear_refs").write_text("5")


def main(arguments: Sequence[str] = ()) -> None:
    """Load the files that are named on the standard input; a line of JSON for each."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    import torch

    from sisug.common.torch_files.data import load_run
    from sisug.generators import load_generator

    torch.set_num_threads(1)
    load_generator("avatars")  # what is imported on first use is imported now
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        forget_peak()
        memory, begun = peak(), time.process_time()
        error = message = ""
        path = Path(line.rstrip("\n"))
        try:
            if path.suffix == ".ckpt":
                load_run(path, "the checkpoint", "use another one")
            else:
                load_generator(path)
        except BaseException as caught:
            error, message = type(caught).__name__, str(caught)[:1000]
        verdict = Verdict(error, message, time.process_time() - begun, peak() - memory)
        sys.stdout.write(json.dumps(verdict.__dict__) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
