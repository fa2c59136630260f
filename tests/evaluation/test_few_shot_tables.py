"""Tables of the few-shot protocol: intervals, ratios, bars, and the published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation.few_shot_toys import measurement
from scipy import stats

from sisug.evaluation.few_shot.tables import bars, class_table, main_table, published_ratio, summary
from sisug.labels.label_sets import AVATARS

GOOD = {
    (1, 0, "LinearGAN"): measurement(0.30, seconds=60),
    (1, 1, "LinearGAN"): measurement(0.32, seconds=64),
    (1, 0, "sisug"): measurement(0.50, seconds=1),
    (1, 1, "sisug"): measurement(0.51, seconds=1),
}


def test_published_ratios_are_those_of_the_bars() -> None:
    assert [published_ratio(shots) for shots in (1, 4, 8, 16)] == [1.34, 1.39, 1.38, 1.42]
    assert published_ratio(2) is None


def test_rows_hold_both_methods_with_intervals_over_repeats() -> None:
    table = main_table(GOOD, [1], ["a note"])
    theirs, ours = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert (theirs["method"], ours["method"]) == ("LinearGAN", "sisug")
    low, high = stats.t.interval(0.95, 1, loc=50.5, scale=stats.sem([50, 51]))
    interval = ours["mIoU, %"]
    assert (interval.mean, interval.low, interval.high) == pytest.approx((50.5, low, high))
    assert ours["ratio to LinearGAN"] == pytest.approx(50.5 / 31)
    assert (ours["seconds for one image"], ours["seconds an image in batches"]) == (2, 1)
    assert ours["times faster"] == ours["times faster in batches"] == pytest.approx(62)
    assert (theirs["published on FFHQ: mIoU, %"], ours["published on FFHQ: mIoU, %"]) == ("37.2 ± 0.8", "49.8 ± 1")
    assert ours["published ratio"] == 1.34
    assert ours["data-set mIoU, %"] == pytest.approx(25.25)
    assert table.notes[0] == "a note"


def test_one_repeat_has_an_interval_over_seeds() -> None:
    results = {(2, 0, method): measurement(0.4, 0.3, 0.4, 0.6) for method in ("sisug", "LinearGAN")}
    interval = main_table(results, [2], []).rows[1][2]
    low, high = stats.t.interval(0.95, 2, loc=100 * 1.3 / 3, scale=stats.sem([30, 40, 60]))
    assert (interval.low, interval.high, interval.repeats) == pytest.approx((low, high, 3))
    assert main_table(results, [2], []).rows[1][-2:] == ["-", "-"], "the paper has no such row"


def test_bars_say_what_is_reached() -> None:
    (line,) = bars(GOOD, [1])
    assert line.count("reached") == 4 - line.count("MISSED")
    assert "ratio 1.63 (1.34 or more, as published, wanted): reached" in line
    assert "one image 62 times faster (50 wanted): reached; in batches 62 times (50 wanted): reached" in line
    # Two repeats that differ by 2 have an interval of 12.7 either way.
    wide = GOOD | {(1, 1, "sisug"): measurement(0.7, seconds=1)}
    assert "intervals not apart: MISSED" in bars(wide, [1])[0]
    poor = {key: measurement(0.33, seconds=1) if key[2] == "sisug" else value for key, value in GOOD.items()}
    assert "ratio 1.06 (1.34 or more, as published, wanted): MISSED" in bars(poor, [1])[0]


def test_times_of_two_machines_are_not_compared() -> None:
    mixed = GOOD | {(1, 0, "sisug"): measurement(0.5, seconds=1, machine="another")}
    assert [main_table(mixed, [1], []).rows[1][column] for column in (7, 9)] == ["-", "-"]
    assert "one image unknown times faster (50 wanted): MISSED" in bars(mixed, [1])[0]


def test_nothing_is_divided_by_zero() -> None:
    nothing = {key: measurement(0.0, seconds=1) if key[2] == "LinearGAN" else value for key, value in GOOD.items()}
    assert main_table(nothing, [1], []).rows[1][3] == "-"


def test_classes_are_listed_and_absent_ones_marked() -> None:
    table = class_table(GOOD, [1], AVATARS)
    ours = dict(zip(table.columns, table.rows[1], strict=True))
    assert ours["hat"] == "-"
    assert ours["hair"] == pytest.approx(50.5)
    assert np.isfinite([row[3] for row in table.rows]).all()


def test_summary_names_both_numbers() -> None:
    assert "50.5 against 31.0 % at N = 1" in summary(GOOD, [1])
