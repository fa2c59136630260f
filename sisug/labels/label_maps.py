"""From one label set's numbers to another's, class by class and by name (evaluation, and conversion of data)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from sisug.errors import DataError
from sisug.labels.label_sets import LabelSet

SYNONYMS: Mapping[str, str] = {
    "bg": "background",
    "clothes": "cloth",
    "clothing": "cloth",
    "ears": "ear",
    "earring": "ear_r",
    "earrings": "ear_r",
    "eyebrow": "brow",
    "eyebrows": "brow",
    "eyeglass": "eye_g",
    "eyeglasses": "eye_g",
    "eyes": "eye",
    "glasses": "eye_g",
    "left_brow": "l_brow",
    "left_ear": "l_ear",
    "left_eye": "l_eye",
    "left_eyebrow": "l_brow",
    "lower_lip": "l_lip",
    "necklace": "neck_l",
    "right_brow": "r_brow",
    "right_ear": "r_ear",
    "right_eye": "r_eye",
    "right_eyebrow": "r_brow",
    "upper_lip": "u_lip",
}
"""Other names of CelebAMask-HQ's classes, as face parsers spell them."""

COARSER: Mapping[str, str] = {
    "l_brow": "brow",
    "r_brow": "brow",
    "l_ear": "ear",
    "r_ear": "ear",
    "l_eye": "eye",
    "r_eye": "eye",
    "neck_l": "neck",
}
"""What a class counts to where the other label set lacks it, as in LinearGAN's 15 classes of faces."""

LISTED = 12
"""Classes that a message names; the rest is counted."""


@dataclass(frozen=True)
class LabelMap:
    """Which class of a label set counts as which class of another one.

    Args:
        source: label set of the masks that come in.
        target: label set of the masks that go out.
        numbers: for each class of ``source`` its number in ``target``, or ``target.ignore``.
    """

    source: LabelSet
    target: LabelSet
    numbers: tuple[int, ...]

    def __post_init__(self) -> None:
        known = {*range(self.target.num_classes), self.target.ignore}
        if len(self.numbers) != self.source.num_classes or not known.issuperset(self.numbers):
            raise DataError(
                f"a label map of {len(self.numbers)} numbers from {self.source.name!r} to {self.target.name!r}",
                f"each of {self.source.num_classes} classes needs a number of {self.target.num_classes} or the ignored",
                "make it with match_labels",
            )

    @property
    def unseen(self) -> tuple[str, ...]:
        """Classes of ``target`` that no class of ``source`` counts as."""
        seen = set(self.numbers)
        return tuple(name for number, name in enumerate(self.target.classes) if number not in seen)

    def __call__(self, masks: Int64[Tensor, "*batch height width"]) -> Int64[Tensor, "*batch height width"]:
        """Masks in the numbers of ``target``; ignored pixels stay ignored.

        Args:
            masks: in the numbers of ``source``, or its ``ignore``.

        Raises:
            DataError: for other values.
        """
        self.source.check(masks)
        table = torch.full((256,), self.target.ignore, dtype=torch.int64)
        table[: self.source.num_classes] = torch.tensor(self.numbers)
        return table.to(masks.device)[masks]

    def to_dict(self) -> dict[str, str | None]:
        """For records: the name of the target's class for each of the source's, None where it is ignored."""
        names = dict(enumerate(self.target.classes))
        return {name: names.get(number) for name, number in zip(self.source.classes, self.numbers, strict=True)}


def counterparts(source: LabelSet, target: LabelSet) -> tuple[int | None, ...]:
    """For each class of ``source`` the number in ``target`` of the class that it counts as by name, or None.

    Args:
        source: classes to look up.
        target: classes to find.
    """
    first, other = _names(target)
    return tuple(_counterpart(name, first, other) for name in source.classes)


def match_labels(
    source: LabelSet,
    target: LabelSet,
    *,
    renamed: Mapping[str, str | None] | None = None,
    rest: str | None = None,
    allow_unseen: bool = False,
) -> LabelMap:
    """The label map between two label sets, by the names of their classes; never by their numbers.

    A class counts as the one of the same name. Case, spaces, hyphens and underscores do not matter, "a, b" is a class
    with two names, and ``SYNONYMS`` are the same. Where ``target`` has no such class, the known coarser one counts
    (``COARSER``: a left eye is an eye).

    Args:
        source: what masks are in, a judge's for example.
        target: what they are wanted in, the data's for example.
        renamed: classes of ``source`` with the class of ``target`` that they count as, or None to ignore their pixels;
            these come before any other rule.
        rest: class of ``target`` for every class without counterpart, or "ignore".
        allow_unseen: accept classes of ``target`` that no class of ``source`` counts as. They then count as missed
            wherever they occur, so that is for data without them only.

    Raises:
        DataError: classes without counterpart, on either side, or names that do not exist; all are listed.
    """
    chosen = dict(renamed or {})
    _check_names(source, target, chosen, rest)
    numbers, lonely = [], []
    for name, found_number in zip(source.classes, counterparts(source, target), strict=True):
        number = found_number
        if name in chosen:
            goal = chosen[name]
            number = target.ignore if goal is None else target.number(goal)
        if number is None and rest is not None:
            number = target.ignore if rest == "ignore" and rest not in target.classes else target.number(rest)
        if number is None:
            lonely.append(name)
        numbers.append(target.ignore if number is None else number)
    found = LabelMap(source, target, tuple(numbers))
    unseen = () if allow_unseen else found.unseen
    if lonely or unseen:
        raise _no_match(source, target, lonely, unseen)
    return found


def _canonical(name: str) -> str:
    plain = re.sub(r"[\s_-]+", "_", name.strip().lower())
    return SYNONYMS.get(plain, plain)


def _parts(name: str) -> list[str]:
    return [_canonical(part) for part in re.split("[,;]", name) if part.strip()]


def _names(labels: LabelSet) -> tuple[dict[str, int], dict[str, int]]:
    """Numbers by the first name of each class, and by its other names."""
    first: dict[str, int] = {}
    other: dict[str, int] = {}
    for number, name in enumerate(labels.classes):
        parts = _parts(name) or [name]
        first.setdefault(parts[0], number)
        for part in parts[1:]:
            other.setdefault(part, number)
    return first, other


def _counterpart(name: str, first: Mapping[str, int], other: Mapping[str, int]) -> int | None:
    parts = _parts(name)
    for table in (first, other):
        for part in parts:
            if part in table:
                return table[part]
    for part in parts:
        if COARSER.get(part) in first:
            return first[COARSER[part]]
    return None


def _check_names(source: LabelSet, target: LabelSet, renamed: Mapping[str, str | None], rest: str | None) -> None:
    wrong = [f"{name!r} (of {source.name})" for name in renamed if name not in source.classes]
    goals = [goal for goal in renamed.values() if goal is not None] + ([rest] if rest not in (None, "ignore") else [])
    wrong += [f"{goal!r} (of {target.name})" for goal in goals if goal not in target.classes]
    if wrong:
        raise DataError(
            f"a label map names classes that do not exist: {', '.join(wrong)}",
            f"{source.name} has {_list(source.classes)}; {target.name} has {_list(target.classes)}",
            "use these names",
        )


def _no_match(source: LabelSet, target: LabelSet, lonely: list[str], unseen: tuple[str, ...]) -> DataError:
    states = []
    if lonely:
        states.append(f"{len(lonely)} classes of {source.name!r} have no counterpart in {target.name!r}: ")
        states[-1] += _list(lonely)
    if unseen:
        states.append(f"{len(unseen)} classes of {target.name!r} have none in {source.name!r}: {_list(unseen)}")
    remedies = []
    if lonely:
        example = f'renamed={{"{lonely[0]}": "{target.classes[0]}"}}'
        remedies.append(f'say what they count as, with {example} or, for all, rest="{target.classes[0]}" or "ignore"')
    if unseen:
        remedies.append("choose a judge that knows these classes, or a coarser label set for the data")
    return DataError(
        "; ".join(states),
        "masks of two label sets are compared class by class, and classes are matched by their names",
        "; ".join(remedies),
    )


def _list(names: tuple[str, ...] | list[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
