"""Where derived and downloaded data is kept (every stage): one folder outside the project, which may be deleted."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where derived data is kept: the environment variable SISUG_CACHE, else ~/.cache/sisug."""
    return Path(os.environ.get("SISUG_CACHE") or Path.home() / ".cache" / "sisug").expanduser()
