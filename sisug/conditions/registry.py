"""All kinds of conditions by name, as experiments and mapper checkpoints (stage 2) refer to them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

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


def condition(name: str, label_set: LabelSet | None = None, **options: Any) -> Condition:
    """A kind of condition, ready to extract and load: networks that it needs are loaded.

    Args:
        name: key of ``CONDITIONS``.
        label_set: classes of masks; ``seg`` and ``scribble`` need it, ``depth`` does to extract without a
            network.
        options: keyword arguments of that kind, e.g. ``tolerance`` for ``seg``.

    Raises:
        CheckpointError: a network that it needs cannot be loaded.
        ConfigError: for an unknown name or option, or a value out of range.
    """
    made = _make(name, label_set, options)
    made.prepare()
    return made


def _make(name: str, label_set: LabelSet | None, options: Mapping[str, Any]) -> Condition:
    if name not in CONDITIONS:
        raise ConfigError(f"condition {name!r}", f"there are {', '.join(CONDITIONS)}", "choose one of these")
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


def condition_from_dict(record: Mapping[str, Any]) -> Condition:
    """The condition of a ``Condition.to_dict`` record, ready to load; only ``extract`` loads networks.

    Args:
        record: as in a checkpoint, perhaps after a JSON round trip.

    Raises:
        CheckpointError: for a record without one of the fields.
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
    labels = record["label_set"]
    return _make(record["name"], None if labels is None else LabelSet.from_dict(labels), record["options"])
