"""Label sets that users bring (every stage that reads masks): by name, or from a JSON file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sisug.errors import DataError, check_local
from sisug.labels.label_sets import LABEL_SETS, LabelSet, label_set

REMEDY = 'write {"sky": "#87ceeb", "house": [200, 80, 60]}, or the record of LabelSet.to_dict'


def read_label_set(name_or_path: str) -> LabelSet:
    """A label set by name, or from a JSON file: classes with their colours, or a whole `LabelSet.to_dict` record.

    Args:
        name_or_path: one of the project's label sets, else a file. Its simple form is an object of class names, in the
            order of their numbers, and colours as "#rrggbb" or [r, g, b]; the set is named like the file. With
            {"classes": that object, "flip_pairs": [["left_eye", "right_eye"]]} it also says what mirroring swaps.

    Raises:
        DataError: no such name or file, or one that holds no label set.
    """
    if name_or_path in LABEL_SETS:
        return label_set(name_or_path)
    check_local(name_or_path, "label set")
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        raise DataError(
            f"there is no label set {name_or_path!r}",
            f"there is no such file, and the label sets are {', '.join(LABEL_SETS)}",
            f"use one of these names, or give a JSON file: {REMEDY}",
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, OSError) as error:
        raise DataError(f"label set file {path} cannot be read", str(error), REMEDY) from error
    if not isinstance(content, dict):
        raise DataError(f"label set file {path} holds no label set", "it is not a JSON object", REMEDY)
    if isinstance(content.get("classes"), list) and "palette" in content:
        return LabelSet.from_dict(content)
    if isinstance(content.get("classes"), dict):
        return _with_pairs(path, content)
    return LabelSet(path.stem, tuple(content), _palette(path, content))


def _with_pairs(path: Path, content: Mapping[str, Any]) -> LabelSet:
    classes = content["classes"]
    listed = content.get("flip_pairs", [])
    pairs = []
    for pair in listed if isinstance(listed, list) else [listed]:
        if not isinstance(pair, list) or len(pair) != 2 or not all(name in classes for name in pair):
            raise DataError(
                f"label set file {path} has the flip pair {pair!r}",
                f"a pair names two of its classes: {', '.join(classes)}",
                'write "flip_pairs": [["left_eye", "right_eye"]]',
            )
        pairs.append((list(classes).index(pair[0]), list(classes).index(pair[1])))
    return LabelSet(path.stem, tuple(classes), _palette(path, classes), tuple(pairs))


def _palette(path: Path, classes: Mapping[str, object]) -> tuple[tuple[int, int, int], ...]:
    return tuple(_colour(path, name, colour) for name, colour in classes.items())


def _colour(path: Path, name: str, colour: object) -> tuple[int, int, int]:
    if isinstance(colour, str) and re.fullmatch("#[0-9a-fA-F]{6}", colour):
        return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
    if isinstance(colour, list) and len(colour) == 3 and all(type(value) is int for value in colour):
        return colour[0], colour[1], colour[2]
    raise DataError(
        f"label set file {path} has the colour {colour!r} for class {name!r}",
        'a colour is "#rrggbb" or three integers from 0 to 255',
        REMEDY,
    )


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ValueError(f"it names {', '.join(sorted(repeated))} twice")
    return dict(pairs)
