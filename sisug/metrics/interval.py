"""Mean and confidence interval of a score over repeats with other seeds (evaluation of both stages)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy.special import stdtrit

from sisug.errors import ConfigError, DataError


class Interval(NamedTuple):
    """Mean of a score over repeats, and where the true mean lies.

    Args:
        mean: over the repeats.
        low: lower end; minus infinity with one repeat, which says nothing about the spread.
        high: upper end; infinity with one repeat.
        repeats: number of values.
        confidence: probability that such an interval holds the true mean.
    """

    mean: float
    low: float
    high: float
    repeats: int
    confidence: float

    @property
    def half_width(self) -> float:
        """Half the interval's width: what stands behind the plus-minus sign."""
        return (self.high - self.low) / 2

    def apart_from(self, other: Interval) -> bool:
        """Whether the two intervals do not even touch."""
        return self.high < other.low or other.high < self.low

    def __str__(self) -> str:
        if self.repeats == 1:
            return f"{self.mean:.4g} (one repeat)"
        return f"{self.mean:.4g} ± {self.half_width:.2g} ({self.confidence:.0%}, n = {self.repeats})"


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean and confidence interval of the mean by Student's t: the repeats are draws of a normal distribution.

    Not the spread that LinearGAN's tables show behind the plus-minus sign, the largest distance of a repeat from the
    mean, which grows with the number of repeats.

    Args:
        values: one a repeat; repeats differ by their seed.
        confidence: probability that such an interval holds the true mean, between 0 and 1.

    Raises:
        DataError: no value, or one that is not finite.
        ConfigError: a confidence out of range.

    Source: Student, "The probable error of a mean" (1908).
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence={confidence}", "it is a probability below certainty", "pass 0.95, for example")
    if not values:
        raise DataError("no value to average", "no repeat was measured", "measure at least one")
    if not all(map(math.isfinite, values)):
        raise DataError(
            f"values {list(values)}",
            "a mean of values that are not finite means nothing",
            "measure those repeats again",
        )
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Interval(mean, -math.inf, math.inf, 1, confidence)
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = float(stdtrit(len(values) - 1, (1 + confidence) / 2)) * error
    return Interval(mean, mean - half, mean + half, len(values), confidence)
