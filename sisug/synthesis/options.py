"""What may be asked for (synthesis): defaults, and checks that need neither weights nor torch."""

from __future__ import annotations

import re

from sisug.errors import ConfigError

DEFAULT_SEEDS = range(8)

TRUNCATION = 0.7
"""Where nothing else is asked for."""

BATCH = 16
"""Images at a time."""

LARGEST = 512
"""Height and width at which the command writes images, pixels, where nothing else is asked for."""

MOST_SEEDS = 10_000
"""Seeds of one command: their features are held in memory."""


def check_truncation(truncation: float) -> None:
    """Refuse a truncation outside [0, 1].

    Raises:
        ConfigError: it is outside.
    """
    if not 0 <= truncation <= 1:
        raise ConfigError(
            f"truncation {truncation}", "1 is the generator's full range, 0 its mean image", "choose one from 0 to 1"
        )


def parse_seeds(text: str) -> list[int]:
    """Seeds as people write them, 0-7 or 1,5,9-12: in the order given, each once.

    >>> parse_seeds("1,5,9-12")
    [1, 5, 9, 10, 11, 12]

    Args:
        text: whole numbers and ranges (both ends belong to it) with commas between them.

    Raises:
        ConfigError: it is something else.
    """

    def refuse(cause: str) -> ConfigError:
        return ConfigError(f"seeds {text!r}", cause, "write them like 0-7, or 3, or 1,5,9-12")

    seeds: dict[int, None] = {}
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part, flags=re.ASCII)
        if found is None:
            raise refuse(f"{part.strip()!r} is neither a whole number nor a range")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise refuse(f"the range {part.strip()!r} ends before it begins")
        if last - first >= MOST_SEEDS or len(seeds) + last - first >= MOST_SEEDS:
            raise refuse(f"these are more than {MOST_SEEDS:,} seeds, whose features are held in memory")
        seeds |= dict.fromkeys(range(first, last + 1))
    return list(seeds)
