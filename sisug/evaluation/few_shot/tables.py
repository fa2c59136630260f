"""Tables of the few-shot protocol (evaluation): both methods, their ratio, the paper's numbers, and what decides it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sisug.evaluation.few_shot.measuring import Measurement
from sisug.evaluation.few_shot.parts import METHODS, MethodName
from sisug.evaluation.report import Cell, Table
from sisug.labels.label_sets import LabelSet
from sisug.metrics import Interval, mean_interval

Results = Mapping[tuple[int, int, MethodName], Measurement]
"""By number of labels, repeat and method."""

PUBLISHED: Mapping[int, Mapping[MethodName, tuple[float, float]]] = {
    1: {"LinearGAN": (37.2, 0.8), "sisug": (49.8, 1.0)},
    4: {"LinearGAN": (39.1, 0.5), "sisug": (54.3, 1.18)},
    8: {"LinearGAN": (39.4, 0.9), "sisug": (54.4, 1.7)},
    16: {"LinearGAN": (40.0, 0.2), "sisug": (56.7, 1.19)},
}
"""Percent and what stands behind the plus-minus sign. Source: the paper's Table A, column FFHQ."""

FASTER = 50
"""How many times less time an image is to take."""

NOTHING = "-"


def published_ratio(shots: int) -> float | None:
    """The paper's mIoU over LinearGAN's on FFHQ, to two decimals; None where it has no such row.

    Args:
        shots: number of labels.
    """
    row = PUBLISHED.get(shots)
    return None if row is None else round(row["sisug"][0] / row["LinearGAN"][0], 2)


class Row:
    """One method with one number of labels, over its repeats.

    Args:
        parts: one a repeat.
    """

    def __init__(self, parts: Sequence[Measurement]) -> None:
        self.parts = parts
        one = len(parts) == 1
        values = parts[0].miou_by_seed if one else [part.miou for part in parts]
        self.miou: Interval = mean_interval([100 * value for value in values])
        self.dataset_miou = self._mean(lambda part: 100 * part.dataset_miou)
        self.accuracy = self._mean(lambda part: 100 * part.accuracy)
        self.alone = self._mean(lambda part: part.seconds_alone)
        self.in_batches = self._mean(lambda part: part.seconds_in_batches)
        self.machines = {part.machine for part in parts}

    def iou(self, name: str) -> Cell:
        """Mean over the repeats in which a class occurs, percent.

        Args:
            name: of the class.
        """
        found = [value for part in self.parts if (value := part.iou[name]) is not None]
        return 100 * sum(found) / len(found) if found else NOTHING

    def _mean(self, value: Callable[[Measurement], float]) -> float:
        return sum(map(value, self.parts)) / len(self.parts)


def rows_of(results: Results, shots: int) -> dict[MethodName, Row]:
    """Both methods' rows.

    Args:
        results: of all parts.
        shots: number of labels.
    """
    repeats = sorted({repeat for number, repeat, _ in results if number == shots})
    return {method: Row([results[shots, repeat, method] for repeat in repeats]) for method in METHODS}


def main_table(results: Results, shots: Sequence[int], notes: Sequence[str]) -> Table:
    """The table of the protocol.

    Args:
        results: of all parts.
        shots: numbers of labels.
        notes: what decides the numbers; the bars follow.
    """
    rows: list[list[Cell]] = []
    for number in shots:
        pair = rows_of(results, number)
        times = _time_ratios(pair)
        for method, row in pair.items():
            ours = method == "sisug"
            published = PUBLISHED.get(number, {}).get(method)
            rows.append(
                [
                    number,
                    method,
                    row.miou,
                    _ratio(pair) or NOTHING if ours else NOTHING,
                    row.dataset_miou,
                    row.accuracy,
                    row.alone,
                    times[0] or NOTHING if ours else NOTHING,
                    row.in_batches,
                    times[1] or NOTHING if ours else NOTHING,
                    NOTHING if published is None else f"{published[0]:g} ± {published[1]:g}",
                    (published_ratio(number) or NOTHING) if ours else NOTHING,
                ]
            )
    columns = (
        "N",
        "method",
        "mIoU, %",
        "ratio to LinearGAN",
        "data-set mIoU, %",
        "pixel accuracy, %",
        "seconds for one image",
        "times faster",
        "seconds an image in batches",
        "times faster in batches",
        "published on FFHQ: mIoU, %",
        "published ratio",
    )
    return Table("Few labels: sisug and LinearGAN from N of them", columns, rows, [*notes, *bars(results, shots)])


def class_table(results: Results, shots: Sequence[int], labels: LabelSet) -> Table:
    """The classes behind the mIoU.

    Args:
        results: of all parts.
        shots: numbers of labels.
        labels: names the classes.
    """
    rows: list[list[Cell]] = [
        [number, method, *(row.iou(name) for name in labels.classes)]
        for number in shots
        for method, row in rows_of(results, number).items()
    ]
    note = f"Per image, then averaged over the images in which a class is wanted or seen; {NOTHING} where it never is."
    return Table("IoU of each class, %", ("N", "method", *labels.classes), rows, [note])


def bars(results: Results, shots: Sequence[int]) -> list[str]:
    """What each number of labels is to reach, and whether it does.

    Args:
        results: of all parts.
        shots: numbers of labels.
    """
    lines = []
    for number in shots:
        pair = rows_of(results, number)
        ratio, published = _ratio(pair), published_ratio(number)
        alone, in_batches = _time_ratios(pair)
        apart = pair["sisug"].miou.apart_from(pair["LinearGAN"].miou)
        if published is None:
            wanted, better = "above 1", ratio is not None and ratio > 1
        else:
            wanted, better = f"{published:.2f} or more, as published,", ratio is not None and ratio >= published
        checks = (
            (f"ratio {_short(ratio)} ({wanted} wanted)", better),
            (f"intervals {'apart' if apart else 'not apart'}", apart),
            (f"one image {_short(alone)} times faster ({FASTER} wanted)", (alone or 0) >= FASTER),
            (f"in batches {_short(in_batches)} times ({FASTER} wanted)", (in_batches or 0) >= FASTER),
        )
        verdicts = "; ".join(f"{text}: {'reached' if holds else 'MISSED'}" for text, holds in checks)
        lines.append(f"Bars at N = {number}: {verdicts}.")
    return lines


def summary(results: Results, shots: Sequence[int]) -> str:
    """One sentence of what was found.

    Args:
        results: of all parts.
        shots: numbers of labels.
    """
    found = []
    for number in shots:
        pair = rows_of(results, number)
        ours, theirs = pair["sisug"].miou.mean, pair["LinearGAN"].miou.mean
        found.append(f"{ours:.1f} against {theirs:.1f} % at N = {number}")
    return f"sisug against LinearGAN from the same N labels, on one generator, one judge: mIoU {', '.join(found)}."


def _ratio(pair: Mapping[MethodName, Row]) -> float | None:
    ours, theirs = pair["sisug"].miou.mean, pair["LinearGAN"].miou.mean
    return ours / theirs if theirs > 0 else None


def _time_ratios(pair: Mapping[MethodName, Row]) -> tuple[float | None, float | None]:
    """Of one image by itself and of many; None where the two methods were timed on different machines."""
    ours, theirs = pair["sisug"], pair["LinearGAN"]
    if ours.machines != theirs.machines or len(ours.machines) > 1:
        return None, None
    return theirs.alone / ours.alone, theirs.in_batches / ours.in_batches


def _short(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
