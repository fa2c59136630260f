"""Files of the evaluation that appear whole or not at all: a temporary name in the same folder, then a rename."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def replace_file(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file under a temporary name, then give it its own; folders are made.

    Args:
        target: the file to make or replace.
        write: makes the file that it is given the name of.

    Raises:
        OSError: the file cannot be written; an earlier one of that name is untouched.
    """
    # The process number keeps ranks and runs that write the same file out of each other's way.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        write(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
