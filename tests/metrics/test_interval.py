"""Tests of confidence intervals against scipy and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from sisug.errors import ConfigError, DataError
from sisug.metrics import mean_interval


@pytest.mark.parametrize("values", [[0.2, 0.5], [1.0, 2.0, 4.0, 8.0, 16.0], [-3e-3, 1e-3, 0.0]])
@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_it_is_scipys_t_interval(values: list[float], confidence: float) -> None:
    result = mean_interval(values, confidence)
    low, high = scipy.stats.t.interval(confidence, len(values) - 1, np.mean(values), scipy.stats.sem(values))
    assert result.mean == pytest.approx(np.mean(values))
    assert (result.low, result.high) == pytest.approx((low, high))
    assert result.half_width == pytest.approx((high - low) / 2)
    assert (result.repeats, result.confidence) == (len(values), confidence)


def test_it_holds_the_true_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(3.0, 2.0, (2000, 4))
    held = np.mean([result.low <= 3 <= result.high for result in map(mean_interval, draws.tolist())])
    assert held == pytest.approx(0.95, abs=0.015)


def test_one_repeat_says_nothing_about_the_spread() -> None:
    one = mean_interval([0.5])
    assert (one.mean, one.low, one.high) == (0.5, -math.inf, math.inf)
    assert not one.apart_from(mean_interval([7.0, 7.0]))
    assert str(one) == "0.5 (one repeat)"


def test_equal_values_have_no_width() -> None:
    assert mean_interval([0.25] * 3)[:3] == (0.25, 0.25, 0.25)


def test_intervals_that_touch_are_not_apart() -> None:
    low, high = mean_interval([1.0, 1.0]), mean_interval([2.0, 2.0])
    assert low.apart_from(high)
    assert high.apart_from(low)
    assert not low.apart_from(low)
    assert not mean_interval([0.0, 4.0]).apart_from(high)


def test_text() -> None:
    assert str(mean_interval([0.5, 0.52, 0.54])) == "0.52 ± 0.05 (95%, n = 3)"


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf, 0.0]])
def test_no_mean_of_nothing_or_of_nan(values: list[float]) -> None:
    with pytest.raises(DataError):
        mean_interval(values)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_a_confidence_out_of_range_is_refused(confidence: float) -> None:
    with pytest.raises(ConfigError, match="probability"):
        mean_interval([1.0, 2.0], confidence)
