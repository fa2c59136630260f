"""`python -m sisug` is the `sisug` command (every stage)."""

from __future__ import annotations

import sys

from sisug.cli import main

if __name__ == "__main__":
    sys.exit(main())
