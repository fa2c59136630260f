"""Layouts (synthesis): what users draw, as files or in memory, brought to the form that the mapper reads."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from sisug.common.fingerprint import sha256_of
from sisug.conditions.condition import Condition
from sisug.conditions.label_condition import LabelCondition
from sisug.errors import DataError
from sisug.labels.pictures import Picture, picture_of, read_picture

Drawing = str | Path | Image.Image | np.ndarray | Tensor
"""A picture: its file, one of Pillow, or bytes of shape (height, width, 3 or 4), RGB or RGBA. Or values: class numbers,
integers of shape (height, width); an encoded condition, floats of shape (channel, size, size)."""

LONGEST = 100
"""Letters of a name: file systems take some 255 bytes, and the style's caption follows."""


@dataclass(frozen=True, repr=False)
class Layout:
    """What an image is to be laid out as.

    Args:
        name: for file names and captions.
        mask: proxy mask; of a drawing, how probable each cluster is in each position.
        shown: what was given, as a picture; of an exemplar, what the generator makes of it.
        record: how to find it again; JSON values.
        warnings: what a user should know about it.
    """

    name: str
    mask: Int64[Tensor, "split split"] | Float[Tensor, "cluster split split"]
    shown: UInt8[Tensor, "3 height width"]
    record: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Layout({self.name!r}, {self.mask.shape[-1]}x{self.mask.shape[-1]})"


def encode(
    drawing: Drawing, condition: Condition, size: int, name: str = "the drawing"
) -> tuple[Float[Tensor, "1 channel size size"], dict[str, Any], list[str]]:
    """A drawing as the mapper reads it, how to find it again, and what is doubtful about it.

    Args:
        drawing: see ``Drawing``; other sizes are brought to size.
        condition: what the mapper reads.
        size: height and width of its input, pixels.
        name: what messages call a drawing in memory.

    Raises:
        DataError: it cannot be used; the text lists what was found.
    """
    if isinstance(drawing, str | Path):
        path = Path(drawing)
        if path.is_dir():
            raise DataError(f"{path} is a folder", "a drawing is a picture", "give the files in it, as a list")
        picture = read_picture(path)
        encoded = condition.from_picture(picture, size)
        return encoded[None], {"file": str(drawing), "sha256": sha256_of(path)}, picture.warnings
    if isinstance(drawing, Image.Image) or (drawing.ndim == 3 and not _is_floating(drawing)):
        image = as_image(drawing)
        picture = picture_of(image, name)
        return condition.from_picture(picture, size)[None], record_of(image), picture.warnings
    values = drawing.detach().cpu() if isinstance(drawing, Tensor) else _as_tensor(drawing)
    record = {"tensor": list(values.shape), "sha256": sha256_of_values(values)}
    if values.is_floating_point():
        return _checked(values, condition, size), record, []
    picture = _as_picture(values, condition, size, name)
    return condition.from_picture(picture, size)[None], record, picture.warnings


def as_image(picture: Image.Image | np.ndarray | Tensor) -> Image.Image:
    """A picture of Pillow.

    Args:
        picture: one already; or bytes of shape (height, width, 3 or 4).

    Raises:
        DataError: it is another array.
    """
    if isinstance(picture, Image.Image):
        return picture
    pixels = picture.detach().cpu().numpy() if isinstance(picture, Tensor) else picture
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or pixels.dtype != np.uint8 or not pixels.size:
        raise DataError(
            f"an array of {pixels.dtype} and shape {tuple(pixels.shape)}",
            "colors are bytes (uint8) of shape (height, width, 3), or 4 with opacity; class numbers (height, width)",
            "give one of these; several drawings as a list",
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def record_of(picture: Image.Image) -> dict[str, Any]:
    """How to find a picture in memory again.

    Args:
        picture: of Pillow.
    """
    return {"picture": [picture.height, picture.width, picture.mode], "sha256": sha256_of_values(picture)}


def sha256_of_values(values: Tensor | np.ndarray | Image.Image) -> str:
    """Checksum of values in memory, in their own type.

    Args:
        values: of a tensor, an array or a picture.
    """
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _is_floating(values: np.ndarray | Tensor) -> bool:
    return values.is_floating_point() if isinstance(values, Tensor) else np.issubdtype(values.dtype, np.floating)


def _as_tensor(values: np.ndarray) -> Tensor:
    try:
        return torch.from_numpy(np.array(values))  # a copy: those of Pillow's pictures may not be written to
    except TypeError as error:
        raise DataError(
            f"an array of type {values.dtype}", "masks hold class numbers", "convert it to int64 or uint8"
        ) from error


def _as_picture(values: Tensor, condition: Condition, size: int, name: str) -> Picture:
    """Class numbers, or levels of gray, as the picture that holds them."""
    if values.ndim != 2:
        raise DataError(
            f"an array of integers of shape {tuple(values.shape)}",
            "class numbers are two-dimensional: height and width",
            "give several masks as a list",
        )
    if not values.numel():
        raise DataError(f"a mask of {values.shape[1]}x{values.shape[0]} pixels", "it is empty", "draw something")
    if isinstance(condition, LabelCondition):
        condition.labels.check(values.long())
    elif values.dtype not in (torch.uint8, torch.uint16):
        raise DataError(
            f"a mask of shape {tuple(values.shape)} for the condition {condition.name!r}",
            "this mapper reads no classes",
            "give a picture, levels of gray as bytes, or an encoded condition: floats in [0, 1] of shape "
            f"({condition.channels}, {size}, {size})",
        )
    levels = values if values.dtype == torch.uint16 and not isinstance(condition, LabelCondition) else values.byte()
    return picture_of(Image.fromarray(levels.numpy()), name)


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
