"""What an evaluation says: tables with intervals, pictures, and the record of the protocol (evaluation)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sisug.common.atomic_file import atomic_write
from sisug.common.provenance import command_line, git_commit, library_versions, machine
from sisug.evaluation.workspace import write_json
from sisug.metrics import Interval

Cell = str | int | float | Interval | None
"""What a table shows; None where nothing was measured."""


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Args:
        title: what it shows.
        columns: heads.
        rows: as many cells as columns in each.
        notes: sentences below it; what decides the numbers that the record does not say.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """All that an evaluation found.

    Args:
        protocol: its name.
        summary: one sentence: what was compared with what.
        tables: the numbers.
        record: what decides them: extractor and its hash, counts, resize filter, split, seeds, segmenter, truncation,
            label set, fingerprints; JSON values.
        pictures: files beside the report, with captions.
    """

    protocol: str
    summary: str
    tables: Sequence[Table]
    record: Mapping[str, Any]
    pictures: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``report.json`` and ``report.md``, each whole or not at all.

        Args:
            folder: of the evaluation.

        Raises:
            DataError: a number is not finite.
        """
        record = dict(self.record) | {
            "versions": library_versions(),
            "commit": git_commit(),
            "command": command_line(),
            "machine": machine(),
        }
        content = {
            "protocol": self.protocol,
            "summary": self.summary,
            "tables": [
                {
                    "title": table.title,
                    "columns": list(table.columns),
                    "rows": [[_json(cell) for cell in row] for row in table.rows],
                    "notes": list(table.notes),
                }
                for table in self.tables
            ],
            "pictures": dict(self.pictures),
            "record": record,
        }
        write_json(folder / "report.json", content)
        with atomic_write(folder / "report.md") as file:
            file.write(self._markdown(record).encode())

    def _markdown(self, record: Mapping[str, Any]) -> str:
        lines = [f"# {self.protocol}", "", self.summary, ""]
        for table in self.tables:
            lines += [f"## {table.title}", "", *markdown(table), ""]
            lines += [f"- {note}" for note in table.notes] + [""] * bool(table.notes)
        for name, caption in self.pictures.items():
            lines += [f"![{caption}]({name})", "", f"*{caption}*", ""]
        lines += ["## Protocol", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {_plain(value)} |" for name, value in record.items()]
        return "\n".join(lines) + "\n"


def markdown(table: Table) -> list[str]:
    """Lines of a table in Markdown.

    Args:
        table: to show.
    """
    rows = [table.columns, ["---"] * len(table.columns), *([_shown(cell) for cell in row] for row in table.rows)]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _shown(cell: Cell) -> str:
    if cell is None:
        return "not yet run"
    if isinstance(cell, Interval):
        return f"{cell.mean:.3g}" if cell.repeats == 1 else f"{cell.mean:.3g} ± {cell.half_width:.2g}"
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def _json(cell: Cell) -> Any:
    if isinstance(cell, Interval):  # one repeat has no ends
        return {name: value if math.isfinite(value) else None for name, value in cell._asdict().items()}
    return cell


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return str(value).replace("|", "\\|")
