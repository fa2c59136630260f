"""The record of a conversion, `conversion.json`: what was asked for, and whether it is finished (data)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sisug.common.atomic_file import atomic_write
from sisug.data.masks.pairs import Crop
from sisug.errors import ConfigError, DataError

RECORD = "conversion.json"

SOURCES = ".sources.jsonl"
"""A line for each image that was written: its name, and a digest of the content that it was made of."""

FORMAT = "sisug-data-1"


@dataclass(frozen=True)
class Settings:
    """Everything that decides the content of a converted tree, apart from the files themselves.

    Args:
        layout: of the source: image-masks, celebamask-hq or images.
        source: the source folder's own name.
        key: tells the source folder from others of that name.
        resolution: height and width in pixels; None for each mask's (or image's) own.
        labels: `LabelSet.to_dict` of the masks; None without masks.
        background: colour behind transparent parts of images.
        crop: what becomes of images and masks that are not square.
    """

    layout: str
    source: str
    key: str
    resolution: int | None
    labels: dict[str, Any] | None
    background: list[int]
    crop: Crop


def source_key(folder: Path) -> str:
    """A short hash of where a folder lies, which says nothing about the machine.

    Args:
        folder: the source.
    """
    return hashlib.sha256(str(folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def check_target(out: Path, settings: Settings) -> None:
    """Refuse a folder in which results would mix with something else; nothing is written.

    Args:
        out: new, empty, or a tree of the same conversion.
        settings: what is asked for.

    Raises:
        ConfigError: the folder holds something else.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file", "a tree is written to a folder", "choose a new folder")
    record = read_record(out)
    if record is None:
        if out.is_dir() and any(path.name != LOCK for path in out.iterdir()):
            raise ConfigError(
                f"the folder {out} is not empty",
                f"it has no {RECORD}, so what is there was not written by `sisug data convert` and would mix with it",
                "choose a new folder",
            )
        return
    made = {"crop": "none", **record["settings"]}  # records did not say so when nothing was cropped
    if made != asdict(settings):
        changed = [key for key, value in asdict(settings).items() if made.get(key) != value]
        raise ConfigError(
            f"the folder {out} holds another conversion (other: {', '.join(changed)})",
            "images of two conversions would mix",
            "give the same options as before to go on with it, or choose a new folder",
        )


def begin(out: Path, settings: Settings) -> None:
    """Mark a tree as unfinished.

    Args:
        out: checked by `check_target`.
        settings: what is asked for.
    """
    _write(out, settings, False, {})


def finish(out: Path, settings: Settings, counts: dict[str, int]) -> None:
    """Mark a conversion as whole.

    Args:
        out: the tree.
        settings: as at the beginning.
        counts: images written, and left out.
    """
    _write(out, settings, True, counts)


def read_record(out: Path) -> dict[str, Any] | None:
    """The record of a tree; None where there is none.

    Args:
        out: perhaps a tree.

    Raises:
        DataError: it cannot be read.
    """
    path = out / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT or not isinstance(record.get("settings"), dict):
        raise _unreadable(path, f"it is not a record of the format {FORMAT}")
    return record


def read_sources(out: Path) -> dict[str, str]:
    """Of which content each image of a tree was made; what was interrupted while it was written is left out.

    Args:
        out: the tree.
    """
    found: dict[str, str] = {}
    try:
        lines = (out / SOURCES).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            name, content = json.loads(line)
        except (ValueError, TypeError):
            continue
        found[str(name)] = str(content)
    return found


def compact_sources(out: Path) -> None:
    """Leave one line for each image of ``read_sources``.

    Args:
        out: the tree.
    """
    content = "".join(f"{json.dumps(entry)}\n" for entry in sorted(read_sources(out).items()))
    with atomic_write(out / SOURCES) as file:
        file.write(content.encode("ascii"))


def check_finished(folder: Path) -> None:
    """Refuse a tree whose conversion was interrupted; folders that were not converted pass.

    Args:
        folder: of images and masks.

    Raises:
        DataError: it is not whole, or its record cannot be read.
    """
    record = read_record(folder)
    if record is not None and record.get("complete") is not True:
        raise DataError(
            f"the conversion of {folder} is not finished",
            "it was interrupted, or met files that cannot be used",
            "give the same `sisug data convert` command again: it goes on where it stopped",
        )


LOCK = ".lock"
"""File that keeps two conversions from writing one tree at a time."""


def _write(out: Path, settings: Settings, complete: bool, counts: dict[str, int]) -> None:
    record = {"format": FORMAT, "complete": complete, **counts, "settings": asdict(settings)}
    with atomic_write(out / RECORD) as file:
        file.write((json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape"))


def _unreadable(path: Path, cause: str) -> DataError:
    return DataError(f"the record {path} cannot be read", cause, "choose a new folder, or delete this one's content")
