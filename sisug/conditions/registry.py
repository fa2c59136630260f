"""All kinds of conditions by name, as experiments and mapper checkpoints (stage 2) refer to them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sisug.common.class_path import build, class_spec, spec_of_file
from sisug.conditions.condition import Condition
from sisug.conditions.depth import Depth
from sisug.conditions.edges import Edges
from sisug.conditions.scribble import Scribble
from sisug.conditions.seg import Seg
from sisug.conditions.sketch import Sketch
from sisug.errors import CheckpointError, ConfigError
from sisug.labels.label_sets import LabelSet

CONDITIONS: Mapping[str, type[Condition]] = {kind.name: kind for kind in (Seg, Scribble, Edges, Sketch, Depth)}
"""Every kind of condition by its name."""


def condition(name: str | Mapping[str, Any], label_set: LabelSet | None = None, **options: Any) -> Condition:
    """A kind of condition, ready to extract and load: networks that it needs are loaded.

    Args:
        name: key of ``CONDITIONS``; or the full name of any class of conditions, or its ``class_path`` and
            ``init_args``.
        label_set: classes of masks; ``seg`` and ``scribble`` need it, ``depth`` does to extract without a
            network.
        options: keyword arguments of that kind, e.g. ``tolerance`` for ``seg``.

    Raises:
        CheckpointError: a network that it needs cannot be loaded.
        ConfigError: for an unknown name or option, or a value out of range; or a class that is no condition.
    """
    made = _make(name, label_set, options)
    made.prepare()
    return made


def _make(name: str | Mapping[str, Any], label_set: LabelSet | None, options: Mapping[str, Any]) -> Condition:
    spec = class_spec(name, "condition")
    if spec is not None:
        return _of_class({**spec, "init_args": {**(spec.get("init_args") or {}), **options}}, label_set)
    assert isinstance(name, str)
    if name not in CONDITIONS:
        raise ConfigError(
            f"condition {name!r}",
            f"there are {', '.join(CONDITIONS)}",
            "choose one of these, or give a class of your own by class_path and init_args",
        )
    kind = CONDITIONS[name]
    known = [option for option in inspect.signature(kind).parameters if option != "labels"]
    for option in options:
        if option not in known:
            raise ConfigError(
                f"condition {name!r} with option {option!r}",
                f"its options are {', '.join(known)}" if known else "it has no options",
                "correct the name, or leave it out",
            )
    return kind(label_set, **options)


def _of_class(spec: Mapping[str, Any], label_set: LabelSet | None) -> Condition:
    made = build(spec, Condition, "condition", label_set)  # type: ignore[type-abstract]
    lost = [name for name, value in spec["init_args"].items() if made.options.get(name) != value]
    if lost:
        raise ConfigError(
            f"condition {spec['class_path']!r} with {', '.join(lost)}",
            "its property `options` does not repeat what it was given, so that no checkpoint could make it again",
            "let `options` give every argument of the constructor beyond the label set, as plain data",
        )
    return made


def condition_from_dict(
    record: Mapping[str, Any],
    given: str | Mapping[str, Any] | None = None,
    path: Path = Path("a condition's record"),  # only for messages
) -> Condition:
    """The condition of a ``Condition.to_dict`` record, ready to load; only ``extract`` loads networks.

    Args:
        record: as in a checkpoint, perhaps after a JSON round trip.
        given: the class, as ``condition`` takes it, where it is no part of sisug; without init_args it takes the
            record's.
        path: the file that holds the record, for messages.

    Raises:
        CheckpointError: for a record without one of the fields; or of a class that is no part of sisug and not given.
        ConfigError: for a kind or option that this release does not know.
        DataError: for a damaged label set.
    """
    missing = [key for key in ("name", "label_set", "options") if key not in record]
    if missing:
        raise CheckpointError(
            f"a condition's record without {', '.join(missing)}",
            f"it has {', '.join(map(str, record)) or 'nothing'}",
            "write it with Condition.to_dict",
        )
    labels = None if record["label_set"] is None else LabelSet.from_dict(record["label_set"])
    spec = None if given is None else class_spec(given, "condition")
    if "class_path" in record or spec is not None:
        recorded = {"class_path": record.get("class_path"), "init_args": record["options"]}
        chosen = spec_of_file(recorded, spec, path, "condition", "condition")
        return _of_class({**chosen, "init_args": chosen.get("init_args") or {}}, labels)
    if not isinstance(record["name"], str) or record["name"] not in CONDITIONS:
        raise ConfigError(
            f"condition {record['name']!r}"[:200], f"there are {', '.join(CONDITIONS)}", "give another file"
        )
    return _make(record["name"], labels, record["options"])
