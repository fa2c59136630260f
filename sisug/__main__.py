"""`python -m sisug` is the `sisug` command (every stage)."""

from __future__ import annotations

import os
import signal
import sys

from sisug.cli import TERMINATED, main

if __name__ == "__main__":
    code = main()
    if code == TERMINATED and os.name == "posix":
        # End by the signal itself, as a process without a handler does: a shell sees 143 all the same, and an agent of
        # W&B, which stops runs by SIGTERM, does not count an exit code above 0 as a failure of the run.
        sys.stdout.flush()
        sys.stderr.flush()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    sys.exit(code)
