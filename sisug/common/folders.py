"""Whether a folder can be written (every stage), told before any work."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from sisug.errors import RunError, check_local


def check_writable(folder: Path, what: str, choose: str) -> Path:
    """Refuse a folder that cannot be written; nothing is created.

    Args:
        folder: the folder, which need not exist yet.
        what: it is, for messages, like "run folder".
        choose: how to choose another one, for messages, like "choose another --out".

    Returns:
        The folder itself, or the nearest one above it that exists.

    Raises:
        ConfigError: an address.
        RunError: it is a file, or lies where nothing can be written.
    """
    check_local(folder, f"the {what}")
    nearest = folder.absolute()
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if not nearest.is_dir():
        raise RunError(
            f"the {what} {folder} cannot be made", f"{nearest} is not a folder", f"move that file away, or {choose}"
        )
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise RunError(
            f"the {what} {folder} cannot be written",
            f"writing a test file in {nearest} failed: {error.strerror or error}",
            f"change its permissions, or {choose}",
        ) from error
    return nearest
