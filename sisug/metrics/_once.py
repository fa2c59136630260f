"""Remarks in the log that a run makes once, however often their cause returns (evaluation)."""

from __future__ import annotations

from logging import Logger

SAID: set[str] = set()


def say_once(logger: Logger, text: str) -> None:
    """Warn in the log, unless the very same was said before in this process."""
    if text not in SAID:
        SAID.add(text)
        logger.warning(text)
