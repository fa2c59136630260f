"""`sisug evaluate` (evaluation): one command that prints a protocol's table and writes its report."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from sisug.common.folders import check_writable
from sisug.errors import ConfigError
from sisug.evaluation.protocol import Protocol
from sisug.evaluation.report import markdown
from sisug.evaluation.workspace import Workspace
from sisug.synthesis.synthesizer import device_of

PROTOCOLS = {
    "few-shot": "sisug.evaluation.few_shot:FewShot",
    "supervised": "sisug.evaluation.supervised:Supervised",
    "quality": "sisug.evaluation.quality:Quality",
    "diversity": "sisug.evaluation.diversity:Diversity",
    "ablation": "sisug.evaluation.ablation:Ablation",
}
"""Name on the command line to class."""


Setting = int | float | bool | list[Any] | dict[str, Any] | str | None
"""A value of plain data. (Of the type Any, jsonargparse would build whatever class_path names.)"""


def evaluate(
    protocol: str | None = None,
    settings: dict[str, Setting] | None = None,
    out: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> str:
    """Measure a protocol's table; interrupted runs continue.

    Args:
        protocol: few-shot, supervised, quality, diversity or ablation.
        settings: of the protocol, like `--settings.targets 20`; its file under experiments/evaluate/ names them all.
        out: folder of the report and of what is measured on the way; runs/evaluate-PROTOCOL if left out.
        device: auto for a GPU where there is one, cpu, or cuda:N.
        overwrite: begin anew where the folder holds parts with other settings.

    Returns:
        The tables, and where the report lies.

    Raises:
        SisugError: a setting cannot be used, or something cannot be measured; what was measured stays.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(
            "no protocol" if protocol is None else f"protocol {protocol!r}",
            f"there are {', '.join(PROTOCOLS)}",
            "give --protocol, or --config with a file of experiments/evaluate/",
        )
    chosen = make_protocol(protocol, settings or {})
    folder = out or Path("runs") / f"evaluate-{protocol}"
    check_writable(folder, "folder", "choose another --out")
    where = device_of(device)
    work = Workspace(folder, identity_of(chosen), overwrite=overwrite)
    report = chosen.run(work, where)
    report.write(folder)
    lines = [report.summary]
    for table in report.tables:
        lines += ["", table.title, *markdown(table), *table.notes]
    return "\n".join([*lines, "", f"Report: {folder / 'report.md'}, {folder / 'report.json'}"])


def identity_of(protocol: Protocol) -> dict[str, Any]:
    """All that decides a protocol's numbers, as JSON values.

    Args:
        protocol: a dataclass.
    """
    assert dataclasses.is_dataclass(protocol)
    return {"protocol": protocol.name, "settings": dataclasses.asdict(protocol), **protocol.identity()}


def make_protocol(name: str, settings: Mapping[str, Any]) -> Protocol:
    """A protocol with settings of the types that it asks for.

    Args:
        name: one of ``PROTOCOLS``.
        settings: its fields; those left out have their defaults.

    Raises:
        ConfigError: a setting is unknown or of another type, or out of range.
    """
    module, _, attribute = PROTOCOLS[name].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "settings", fail_untyped=False)
    try:
        made = parser.instantiate_classes(parser.parse_object({"settings": dict(settings)})).settings
    except (ArgumentError, TypeError, ValueError) as error:
        names = ", ".join(each.name for each in dataclasses.fields(kind))
        raise ConfigError(
            f"settings of the protocol {name}",
            " ".join(str(error).split())[:300],
            f"it has the settings {names}",
        ) from error
    assert isinstance(made, Protocol)
    return made
