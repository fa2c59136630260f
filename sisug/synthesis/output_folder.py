"""The folder of `sisug generate` (synthesis): checked before any work, and never a mixture of two commands' images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sisug.common.atomic_file import atomic_write
from sisug.errors import ConfigError

RECORD = "generate.json"
SHEET = "sheet.png"


def check_unused(folder: Path, command: str, overwrite: bool) -> None:
    """Refuse a folder with the result of another command, whose record would be lost.

    The same command may replace its own result: drawings are changed and tried again.

    Args:
        folder: that images are to lie in.
        command: that is to write them.
        overwrite: whether the user wants any earlier result replaced.

    Raises:
        ConfigError: there is another result.
    """
    earlier = read_record(folder)
    if earlier is not None and not overwrite and earlier.get("command") != command:
        raise ConfigError(
            f"{folder} holds images of another command",
            f"{folder / RECORD} says how they were made ({earlier.get('command')}), and would be replaced",
            "choose another --out, or add --overwrite true to replace them",
        )


def check_names(folder: Path, names: Iterable[str], overwrite: bool) -> None:
    """Refuse to replace files that no record of an earlier command names.

    Args:
        folder: that images are to lie in.
        names: of the files to write.
        overwrite: whether the user wants them replaced.

    Raises:
        ConfigError: there are such files.
    """
    earlier = read_record(folder) or {}
    known = set(_files(earlier))
    foreign = [name for name in names if name not in known and os.path.lexists(folder / name)]
    if foreign and not overwrite:
        raise ConfigError(
            f"{folder} has {len(foreign)} files of the names to be written: {', '.join(foreign[:3])}"
            + (", ..." if len(foreign) > 3 else ""),
            "they are of no finished `sisug generate`, and would be replaced",
            "choose another --out, or add --overwrite true to replace them",
        )


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record, and remove the images of an earlier one that are not among the new.

    Args:
        folder: of the images.
        record: with the names of all files under "files".
    """
    left_over = set(_files(read_record(folder) or {})) - set(_files(record))
    with atomic_write(folder / RECORD) as file:
        file.write((json.dumps(record, indent=1) + "\n").encode())
    for name in left_over:
        (folder / name).unlink(missing_ok=True)


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record in a folder; None where there is none of ours."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(record, dict) and str(record.get("format", "")).startswith("sisug-generated")
    return record if ours else None


def _files(record: Mapping[str, Any]) -> list[str]:
    """Names of the files that a record says were written; never one outside its folder."""
    names = record.get("files")
    return [name for name in names if _is_plain(name)] if isinstance(names, list) else []


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and name not in {"", ".", ".."} and Path(name).name == name
