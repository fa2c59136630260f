"""Draws a part of an avatars cache in a process of its own; started by the cache only."""

from __future__ import annotations

import sys
from pathlib import Path

from sisug.data.avatars.cache import draw_range
from sisug.data.avatars.dataset import AvatarsDataset

folder, split, length, resolution, start, stop = sys.argv[1:]
source = AvatarsDataset(split, int(length), int(resolution))  # type: ignore[arg-type]  # the parent checked the name
draw_range(Path(folder), source, int(start), int(stop))
