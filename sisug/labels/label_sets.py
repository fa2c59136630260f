"""Label sets: classes, colours and mirror pairs of a mask; used by every stage that reads or shows conditions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from sisug.errors import DataError

IGNORE = 255
"""Value of mask pixels that carry no label."""

IGNORE_COLOUR = (255, 0, 255)
"""Magenta marks ignored pixels in pictures; no palette may use it."""


@dataclass(frozen=True)
class LabelSet:
    """The vocabulary of a mask: what each number means and how it is shown.

    Semantic conditions, segmenters and metrics carry their label set, so that a checkpoint explains its own masks.
    Mask values are the positions in ``classes``. Our choice: one flat record of primitives, which survives JSON and
    ``torch.load(weights_only=True)``.

    Args:
        name: short name, e.g. "avatars"; it appears in checkpoints and metric records.
        classes: unique class names; 2 to 255 of them.
        palette: one RGB colour (0 to 255) a class, all different.
        flip_pairs: class numbers that swap when an image is mirrored (left eye, right eye).
        ignore: mask value without a label, outside the class numbers; at most 255, so that masks fit in a byte.

    Raises:
        DataError: when a field contradicts another.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    flip_pairs: tuple[tuple[int, int], ...] = ()
    ignore: int = IGNORE

    def __post_init__(self) -> None:
        def refuse(cause: str) -> None:
            raise DataError(f"label set {self.name!r} is not valid", cause, "correct the label set's definition")

        count = len(self.classes)
        if not 2 <= count <= 255:
            refuse(f"it has {count} classes, 2 to 255 are possible")
        if len(set(self.classes)) != count or not all(isinstance(name, str) and name for name in self.classes):
            refuse("class names must be different, non-empty strings")
        if len(self.palette) != count:
            refuse(f"{count} classes, but {len(self.palette)} colours")
        if not all(
            len(colour) == 3 and all(type(v) is int and 0 <= v <= 255 for v in colour) for colour in self.palette
        ):
            refuse("a colour is three integers from 0 to 255")
        if len({*self.palette, IGNORE_COLOUR}) != count + 1:
            refuse(f"two classes share a colour, or one has the colour of ignored pixels {IGNORE_COLOUR}")
        paired = [number for pair in self.flip_pairs for number in pair]
        if any(len(pair) != 2 for pair in self.flip_pairs) or len(set(paired)) != len(paired):
            refuse("each flip pair names two classes, and no class is in two pairs")
        if not all(0 <= number < count for number in paired):
            refuse(f"a flip pair names a class outside 0 to {count - 1}")
        if not count <= self.ignore <= 255:
            refuse(f"ignore={self.ignore} must lie from {count} to 255")

    @property
    def num_classes(self) -> int:
        """Number of classes, without the ignored value."""
        return len(self.classes)

    def number(self, name: str) -> int:
        """Number of a class in masks.

        Args:
            name: one of ``classes``.

        Raises:
            DataError: for a name that the label set does not have.
        """
        if name not in self.classes:
            raise DataError(
                f"label set {self.name!r} has no class {name!r}",
                f"its classes are {', '.join(self.classes)}",
                "use one of these names",
            )
        return self.classes.index(name)

    def check(self, masks: Tensor) -> None:
        """Refuse masks with values that are neither a class nor ``ignore``.

        Args:
            masks: any integer tensor.

        Raises:
            DataError: naming the foreign values.
        """
        foreign = torch.unique(masks[((masks < 0) | (masks >= self.num_classes)) & (masks != self.ignore)])
        if foreign.numel():
            raise DataError(
                f"a mask has the values {foreign[:8].tolist()}",
                f"label set {self.name!r} has the classes 0 to {self.num_classes - 1}, and {self.ignore} to ignore",
                "convert the masks, or choose the label set that they were made with",
            )

    def colorize(self, masks: Int64[Tensor, "*batch height width"]) -> UInt8[Tensor, "*batch 3 height width"]:
        """Masks as RGB pictures in the palette; ignored pixels in ``IGNORE_COLOUR``.

        Args:
            masks: class numbers or ``ignore``.

        Raises:
            DataError: for values outside the label set.
        """
        self.check(masks)
        table = torch.zeros(256, 3, dtype=torch.uint8, device=masks.device)
        table[: self.num_classes] = torch.tensor(self.palette, dtype=torch.uint8, device=masks.device)
        table[self.ignore] = torch.tensor(IGNORE_COLOUR, dtype=torch.uint8, device=masks.device)
        return table[masks].movedim(-1, -3)

    def histogram(self, masks: Int64[Tensor, "*batch height width"]) -> Int64[Tensor, " classes"]:
        """Pixels of each class; ignored pixels are not counted.

        Args:
            masks: class numbers or ``ignore``.

        Raises:
            DataError: for values outside the label set.
        """
        self.check(masks)
        return torch.bincount(masks[masks != self.ignore].flatten(), minlength=self.num_classes)

    def flip(self, masks: Int64[Tensor, "*batch height width"]) -> Int64[Tensor, "*batch height width"]:
        """Masks of the horizontally mirrored images: mirrored, with ``flip_pairs`` swapped.

        Args:
            masks: class numbers or ``ignore``.
        """
        table = torch.arange(256, device=masks.device)
        for left, right in self.flip_pairs:
            table[left], table[right] = right, left
        return table[masks.flip(-1)]

    def to_dict(self) -> dict[str, Any]:
        """The record as lists, strings and integers, for JSON and checkpoints."""
        record = asdict(self)
        return {
            **record,
            "classes": list(self.classes),
            "palette": [list(colour) for colour in self.palette],
            "flip_pairs": [list(pair) for pair in self.flip_pairs],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> LabelSet:
        """The label set of a ``to_dict`` record.

        Args:
            record: as written by ``to_dict``, perhaps after a JSON round trip.

        Raises:
            DataError: for missing, unknown or contradicting fields.
        """
        try:
            fields = {
                **record,
                "classes": tuple(record["classes"]),
                "palette": tuple(tuple(colour) for colour in record["palette"]),
                "flip_pairs": tuple(tuple(pair) for pair in record.get("flip_pairs", ())),
            }
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise DataError(
                "a label set cannot be read", f"{type(error).__name__}: {error}", "write it with LabelSet.to_dict"
            ) from error


AVATARS = LabelSet(
    name="avatars",
    classes=(
        "background",
        "skin",
        "hair",
        "hat",
        "eyes",
        "eyebrows",
        "nose",
        "mouth",
        "facial_hair",
        "clothes",
        "accessories",
    ),
    # Our choice: soft tones for the large parts, strong ones for the parts of 2 to 5 pixels.
    palette=(
        (214, 219, 224),
        (246, 190, 142),
        (112, 72, 60),
        (94, 60, 153),
        (33, 102, 235),
        (20, 20, 20),
        (240, 110, 30),
        (214, 24, 62),
        (176, 136, 70),
        (64, 160, 120),
        (250, 214, 40),
    ),
)
"""Classes of the drawn avatars. Mirroring swaps none: left and right eyes share a class."""


def _shipped() -> dict[str, LabelSet]:
    """The label sets of the JSON files beside this one: class names with colours, and mirror pairs by name."""
    found = {}
    for path in sorted((Path(__file__).parent / "sets").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        names = tuple(record["classes"])
        palette = tuple((int(c[1:3], 16), int(c[3:5], 16), int(c[5:7], 16)) for c in record["classes"].values())
        pairs = tuple((names.index(left), names.index(right)) for left, right in record["flip_pairs"])
        found[path.stem] = LabelSet(path.stem, names, palette, pairs)
    return found


LABEL_SETS: Mapping[str, LabelSet] = {AVATARS.name: AVATARS, **_shipped()}
"""The label sets that come with the project, by name.

- ``avatars``: the drawn avatars.
- ``celebamask-hq``: 19 classes in the order and colours of the data set's own tool, which most image synthesis uses;
  ``celebamask-hq-bisenet``: the same classes in the order of the widespread BiSeNet face parser;
  ``celebamask-hq-15``: left and right parts merged, the necklace counted to the neck, as LinearGAN scores faces.
- ``ade20k``: the 150 classes of scene parsing from 0, as segmenters number them; ``ade20k-151``: with "other" as class
  0, as the annotation files number them. Two colours differ by one step from the usual palette, which shows road like
  skyscraper, and hovel in the colour of ignored pixels.
- ``lsun-bedroom``, ``lsun-church``: the classes of ADE20K that LinearGAN scores there, everything else as background.
"""


def label_set(name: str) -> LabelSet:
    """A label set that comes with the project.

    Args:
        name: key of ``LABEL_SETS``.

    Raises:
        DataError: for another name.
    """
    if name not in LABEL_SETS:
        raise DataError(
            f"there is no label set {name!r}", f"the label sets are {', '.join(LABEL_SETS)}", "use one of these names"
        )
    return LABEL_SETS[name]
