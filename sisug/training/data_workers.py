"""Processes that read data (every stage): a SIGTERM to the whole job leaves them to the main process."""

from __future__ import annotations

import signal
from types import FrameType


def wait_for_main_process(worker: int) -> None:
    """For `worker_init_fn` of data loaders.

    A scheduler signals every process of a job. Were workers to die of it, the main process would meet dead workers
    in the place of its own signal, and end with their tracebacks instead of a saved state.

    Args:
        worker: number of the worker; unused.
    """

    def first(number: int, frame: FrameType | None) -> None:
        # The second one is of the main process, which is done with this worker, or of an impatient scheduler.
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, first)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal, too
