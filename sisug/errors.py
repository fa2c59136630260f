"""Errors that a user's input can cause, in every stage: each says the state, its cause and the remedy."""

from __future__ import annotations

import re
from pathlib import Path


def printable(text: str, keep: str = "") -> str:
    """Text that any terminal shows as it is: control characters and bytes that are no UTF-8 become their numbers.

    Names and records come from files, and an escape sequence in one could rewrite what a terminal shows.

    Args:
        text: from a file, or made of such.
        keep: control characters that may stay, such as the ends of lines.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


class SisugError(Exception):
    """Base of all errors that sisug raises on purpose.

    Args:
        state: what is the case, with the offending value.
        cause: why that cannot work.
        remedy: what to do about it.
    """

    def __init__(self, state: str, cause: str, remedy: str) -> None:
        self.state, self.cause, self.remedy = state, cause, remedy
        parts = (printable(" ".join(part.split("\n")).rstrip(".")) for part in (state, cause, remedy))
        super().__init__("{}. Cause: {}. Remedy: {}.".format(*parts))

    def __reduce__(self) -> tuple[type[SisugError], tuple[str, str, str]]:
        # Errors cross process borders (data workers, DDP ranks), which pickles them.
        return (type(self), (self.state, self.cause, self.remedy))


class CheckpointError(SisugError):
    """A generator, judge or training checkpoint is missing, unreadable or of the wrong kind."""


class FingerprintMismatch(CheckpointError):
    """A checkpoint was made with other generator weights than the ones at hand."""


class CodebookError(SisugError):
    """The codebook cannot be fitted or used: too few rows, values that are not finite, a missing backend."""


class ConfigError(SisugError):
    """An argument or a combination of arguments cannot work."""


class DataError(SisugError):
    """Images, masks or label sets that cannot be used."""


class RunError(SisugError):
    """A run cannot start or go on: an unwritable folder, a folder that belongs to another run."""


class DiskFullError(RunError):
    """A disk or quota is full; no input was wrong, and the same command may be given again."""


_ADDRESS = re.compile(r"(?:[\w+.-]+::)*[A-Za-z][A-Za-z0-9+.-]+:/")
"""`http://`, `file:///`, `simplecache::s3://`: pathlib makes one slash of two. `./x:/y` is a file in any case."""


def check_local(path: str | Path, what: str = "the file") -> None:
    """Refuse an address (http, ftp, s3, file and all others) in the place of a file or folder of this machine.

    Args:
        path: as the user gave it.
        what: it should be, for the message.

    Raises:
        ConfigError: it is an address.
    """
    if _ADDRESS.match(str(path)):
        raise ConfigError(
            f"{what} {str(path)!r}",
            "it is an address, and only files of this machine are read: what lies behind an address may change",
            "download it first, and give the path of the file",
        )


def check_range(*, above: float | None = None, **values: float) -> None:
    """Refuse numbers that are not above a bound; without one, numbers below 0.

    Raises:
        ConfigError: names the first such number.
    """
    for name, value in values.items():
        if not (value >= 0 if above is None else value > above):
            bound = "at least 0" if above is None else f"above {above:g}"
            raise ConfigError(f"{name} {value}", f"it must be {bound}", "correct it, or leave it out for the default")
