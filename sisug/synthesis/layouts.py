"""Layouts (synthesis): what users give, as files or in memory, brought to the form that the mapper reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from sisug.common.fingerprint import sha256_of
from sisug.conditions.condition import Condition
from sisug.conditions.label_condition import LabelCondition
from sisug.errors import DataError
from sisug.labels.pictures import nearest
from sisug.synthesis.pictures import sha256_of_tensor

Drawing = str | Path | Tensor | np.ndarray
"""A file; a mask of class numbers (height, width); or an encoded condition (channel, size, size)."""

LONGEST = 100
"""Letters of a name: file systems take some 255 bytes, and the look's label follows."""


@dataclass(frozen=True)
class Layout:
    """What an image is to be laid out as.

    Args:
        name: for file names and labels.
        mask: proxy mask; of a drawing, how probable each cluster is in each cell.
        shown: what was given, as a picture; of an exemplar, what the generator makes of it.
        record: how to find it again; JSON values.
    """

    name: str
    mask: Int64[Tensor, "split split"] | Float[Tensor, "cluster split split"]
    shown: UInt8[Tensor, "3 height width"]
    record: dict[str, Any]


def encode(
    drawing: Drawing, condition: Condition, size: int
) -> tuple[Float[Tensor, "1 channel size size"], dict[str, Any]]:
    """A drawing as the mapper reads it, and how to find it again.

    Args:
        drawing: see ``Drawing``; masks of other sizes are brought to size by nearest neighbour.
        condition: what the mapper reads.
        size: height and width of its input, pixels.

    Raises:
        DataError: it cannot be used; the text lists what was found.
    """
    if isinstance(drawing, str | Path):
        path = Path(drawing)
        if path.is_dir():
            raise DataError(f"{path} is a folder", "a drawing is a picture", "give the files in it, as a list")
        encoded = condition.load(path, size)
        return encoded[None], {"file": str(drawing), "sha256": sha256_of(path)}
    values = drawing.detach().cpu() if isinstance(drawing, Tensor) else _as_tensor(drawing)
    record = {"tensor": list(values.shape), "sha256": sha256_of_tensor(values)}
    if values.is_floating_point():
        return _checked(values, condition, size), record
    return _from_mask(values, condition, size), record


def _as_tensor(values: np.ndarray) -> Tensor:
    try:
        return torch.from_numpy(np.array(values))  # a copy: those of Pillow's pictures may not be written to
    except TypeError as error:
        raise DataError(
            f"an array of type {values.dtype}", "masks hold class numbers", "convert it to int64 or uint8"
        ) from error


def _from_mask(mask: Tensor, condition: Condition, size: int) -> Float[Tensor, "1 channel size size"]:
    if not isinstance(condition, LabelCondition):
        raise DataError(
            f"a mask of shape {tuple(mask.shape)} for the condition {condition.name!r}",
            "this mapper reads no classes",
            f"give a file, or an encoded condition: floats in [0, 1] of shape ({condition.channels}, {size}, {size})",
        )
    if mask.ndim != 2:
        raise DataError(
            f"a mask of shape {tuple(mask.shape)}",
            "class numbers are two-dimensional: height and width",
            "give several masks as a list",
        )
    if abs(mask.shape[0] - mask.shape[1]) > 1 or not mask.numel():
        raise DataError(
            f"a mask of {mask.shape[1]}x{mask.shape[0]} pixels",
            "the generator's images are square, and cropping or padding would change the layout",
            "crop or extend the mask to a square",
        )
    resized = torch.from_numpy(nearest(mask.long().numpy(), size))
    encoded = condition.from_mask(resized)
    if not bool(encoded.any()):
        raise DataError("a mask without a labelled pixel", "all of it is don't-care", "draw at least one class")
    return encoded[None]


def _checked(encoded: Tensor, condition: Condition, size: int) -> Float[Tensor, "1 channel size size"]:
    batch = encoded[None] if encoded.ndim == 3 else encoded
    wanted = (condition.channels, size, size)
    if batch.shape != (1, *wanted):
        remedy = "encode one with the condition's `load` or `extract`"
        if isinstance(condition, LabelCondition):
            remedy += ", or give class numbers as integers of shape (height, width)"
        raise DataError(
            f"an encoded condition of shape {tuple(encoded.shape)}",
            f"this mapper reads {condition.name!r}: {wanted}",
            remedy,
        )
    low, high = float(batch.min()), float(batch.max())
    if not (low >= 0 and high <= 1):  # NaN fails too
        raise DataError(
            f"an encoded condition with values from {low:g} to {high:g}",
            "they lie in [0, 1]",
            "encode it with the condition's `load` or `extract`",
        )
    return batch.float()


def never_labelled(
    encoded: Float[Tensor, "1 channel size size"], condition: Condition, seen: Mapping[str, int]
) -> list[str]:
    """Classes in a drawing that the mapper cannot know, since no label showed them.

    Args:
        encoded: the drawing.
        condition: what the mapper reads.
        seen: pixels of each class among its labels; empty where it learnt from labels without limit, or none.
    """
    if not isinstance(condition, LabelCondition) or not any(seen.values()):
        return []
    drawn = encoded[0].flatten(1).any(dim=1).tolist()
    return [name for name, there in zip(condition.labels.classes, drawn, strict=True) if there and not seen.get(name)]


def name_of(drawing: Drawing, position: int) -> str:
    """What a drawing is called: its file's name without suffix, or its place among those given."""
    return Path(drawing).stem[:LONGEST] if isinstance(drawing, str | Path) else f"input{position}"


def distinct(layouts: Sequence[Layout]) -> list[Layout]:
    """Layouts with names that make different files, on file systems that do not tell capitals from others too.

    Where two files share a stem, their suffix goes into the name (face-png, face-jpg); if that does not help, a number.

    Args:
        layouts: in order.
    """
    names = [layout.name for layout in layouts]
    shared = Counter(name.casefold() for name in names)
    for i, layout in enumerate(layouts):
        suffix = Path(str(layout.record.get("file", ""))).suffix.removeprefix(".")
        if shared[names[i].casefold()] > 1 and suffix:
            names[i] = f"{names[i]}-{suffix}"
    taken: set[str] = set()
    for i, name in enumerate(names):
        number = 1
        while names[i].casefold() in taken:
            number += 1
            names[i] = f"{name}-{number}"
        taken.add(names[i].casefold())
    return [replace(layout, name=name) for layout, name in zip(layouts, names, strict=True)]
