"""The record that says how a number was measured, as a JSON file beside it (evaluation of both stages)."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sisug.common.atomic_file import atomic_write
from sisug.common.provenance import command_line, git_commit, library_versions, machine
from sisug.errors import DataError, RunError


@dataclass(frozen=True)
class ProtocolRecord:
    """A measured value and everything needed to measure it again.

    Args:
        metric: name with protocol, for example "test/frechet2k_judge".
        value: the number; NaN and infinities are kept.
        samples: how many of what, for example {"real": 2000, "generated": 2000}.
        split: part of the data that the samples come from: train, validation or test.
        seeds: every seed by purpose, for example {"latents": 7}.
        extractor: name of the feature extractor; None where the metric has none.
        resize: how images or masks were resized before scoring; None where they were not.
        segmenter: name of the network whose masks were scored; None where there was none.
        fingerprints: SHA-256 of every checkpoint involved, by part ("generator", "rearranger", "judge", "extractor").
        versions: see `library_versions`.
        command: see `command_line`.
        commit: see `git_commit`.
        machine: see `machine`.
        truncation: of the generator's samples; None where none were made, 1 for the full range.
        label_set: name of the label set of the masks; None where there were none.
        interval: lower and upper end of the confidence interval over repeats, see `mean_interval`; None where there
            was one repeat.
    """

    metric: str
    value: float
    samples: dict[str, int]
    split: str
    seeds: dict[str, int]
    extractor: str | None = None
    resize: str | None = None
    segmenter: str | None = None
    fingerprints: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=library_versions)
    command: str = field(default_factory=command_line)
    commit: str | None = field(default_factory=git_commit)
    machine: dict[str, str | int | None] = field(default_factory=machine)
    truncation: float | None = None
    label_set: str | None = None
    interval: tuple[float, float] | None = None

    def to_json(self) -> str:
        """The record as JSON text; a value that is not finite becomes a string, since JSON has no such numbers."""
        content = dataclasses.asdict(self)
        if not math.isfinite(self.value):
            content["value"] = str(self.value)
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "the text") -> ProtocolRecord:
        """Read a record back.

        Args:
            text: what `to_json` gave.
            source: what to call it in an error, for example the file name.

        Raises:
            DataError: no JSON, or not the fields of a record.
        """
        try:
            content: Any = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{source} is not JSON ({error})", "it was cut short or edited", "measure again to write a new record"
            ) from error
        entries = dataclasses.fields(cls)
        # Records of earlier versions lack what came later, which is None then.
        needed = {entry.name for entry in entries if entry.default is dataclasses.MISSING}
        found = set(content) if isinstance(content, dict) else set()
        missing, unknown = sorted(needed - found), sorted(found - {entry.name for entry in entries})
        if missing or unknown:
            raise DataError(
                f"{source} is no protocol record (missing: {missing}, unknown: {unknown})",
                "it was written by another program or another version of sisug",
                "measure again to write a new record",
            )
        try:
            content["value"] = float(content["value"])
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{source} has the value {content['value']!r}",
                "it is not a number",
                "measure again to write a new record",
            ) from error
        if content.get("interval") is not None:
            content["interval"] = tuple(content["interval"])
        return cls(**content)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the record as a JSON file, whole or not at all; folders are made.

        Raises:
            RunError: the file cannot be written.
        """
        target = Path(path)
        try:
            with atomic_write(target) as file:
                file.write(self.to_json().encode())
        except OSError as error:
            raise RunError(
                f"the record {target} cannot be written",
                str(error),
                "choose a folder that can be written to and has space left",
            ) from error

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> ProtocolRecord:
        """Read a record from a JSON file.

        Raises:
            DataError: no such file, or not a record.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"the record {path} cannot be read", str(error), "check the path; `sisug evaluate` writes records"
            ) from error
        return cls.from_json(text, source=str(path))
