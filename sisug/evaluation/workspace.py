"""The folder of an evaluation: results are kept one by one, so that an interrupted run continues (evaluation)."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sisug.common.atomic_file import atomic_write
from sisug.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

IDENTITY = "identity.json"
PARTS = "parts"


class Workspace:
    """Where an evaluation leaves what it measured, part by part.

    Args:
        folder: made if need be.
        identity: all that decides the numbers: protocol, settings, fingerprints; JSON values.
        overwrite: throw away what other settings left there.

    Raises:
        ConfigError: the folder holds parts of an evaluation with other settings.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.folder = folder
        wanted = json.loads(json.dumps(identity))
        found = _read(folder / IDENTITY) if (folder / IDENTITY).is_file() else None
        if found is not None and found != wanted:
            if not overwrite:
                raise ConfigError(
                    f"{folder} holds an evaluation with other settings",
                    "they differ in " + ", ".join(_differences(found, wanted)),
                    "choose another --out, or add --overwrite true to begin anew there",
                )
            for part in sorted((folder / PARTS).glob("*.json")):
                part.unlink()
        if found != wanted:
            write_json(folder / IDENTITY, wanted)

    def part(self, name: str, measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What a part measured, now or in an earlier run that was interrupted.

        Args:
            name: of the part, a file's name.
            measure: gives JSON values; called where no earlier run has finished it.
        """
        path = self.folder / PARTS / f"{name}.json"
        if path.is_file():
            logger.info("%s: measured before", name)
            return _read(path)
        logger.info("%s: begins", name)
        start = time.perf_counter()
        result = dict(measure())
        write_json(path, result)
        logger.info("%s: done in %.0f s", name, time.perf_counter() - start)
        return _read(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all; numbers that are not finite are refused.

    Args:
        path: the file.
        content: JSON values.

    Raises:
        DataError: a number is not finite: no such number is reported.
    """
    try:
        text = json.dumps(content, indent=2, allow_nan=False)
    except ValueError as error:
        raise DataError(
            f"{path.name} would hold a number that is not finite",
            str(error),
            "the samples are too few or of one kind: raise the counts of the protocol",
        ) from error
    with atomic_write(path) as file:
        file.write(text.encode() + b"\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read", str(error), "delete it; that part is measured anew") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no object", "it was edited", "delete it; that part is measured anew")
    return content


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    names = []
    for name in sorted(found.keys() | wanted.keys()):
        one, other = found.get(name), wanted.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            names += _differences(one, other, f"{prefix}{name}.")
        elif one != other:
            names.append(f"{prefix}{name} ({one!r} there, {other!r} now)")
    return names
