"""Seeds as people write them (synthesis): 0-7, or 1,5,9-12."""

from __future__ import annotations

import re

from sisug.errors import ConfigError

MOST = 10_000
"""Seeds of one command: their features are held in memory."""


def parse_seeds(text: str) -> list[int]:
    """Whole numbers and ranges, in the order given, each once.

    Args:
        text: numbers and ranges (both ends belong to it) with commas between them.

    Raises:
        ConfigError: it is something else.
    """
    seeds: dict[int, None] = {}
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part, flags=re.ASCII)
        if found is None:
            raise _refuse(text, f"{part.strip()!r} is neither a whole number nor a range")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise _refuse(text, f"the range {part.strip()!r} ends before it begins")
        if last - first >= MOST or len(seeds) + last - first >= MOST:
            raise _refuse(text, f"these are more than {MOST:,} seeds, whose features are held in memory")
        seeds |= dict.fromkeys(range(first, last + 1))
    return list(seeds)


def _refuse(text: str, cause: str) -> ConfigError:
    return ConfigError(f"seeds {text!r}", cause, "write them like 0-7, or 3, or 1,5,9-12")
