"""Statistics of rounds: medians, and confidence intervals by bootstrap."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence

__all__ = ["Interval", "interval_of_mean", "interval_of_ratio"]

RESAMPLES = 10_000
SEED = 1
Interval = tuple[float, float, float]  # low, middle, high


def interval_of_mean(values: Sequence[float]) -> Interval:
    """The mean and its 95 % percentile interval; without a second value, the value alone."""
    return _interval(statistics.mean(values), len(values), lambda drawn: _mean(values, drawn))


def interval_of_ratio(above: Sequence[float], below: Sequence[float]) -> Interval:
    """The ratio of two means over the same rounds, and its 95 % percentile interval.

    Rounds are drawn whole: what slowed one round slowed both.

    Raises:
        ValueError: There are not as many of one as of the other.
    """
    if len(above) != len(below):
        raise ValueError(f"{len(above)} and {len(below)} rounds")
    middle = statistics.mean(above) / statistics.mean(below)
    return _interval(middle, len(above), lambda drawn: _mean(above, drawn) / _mean(below, drawn))


def _interval(middle: float, count: int, statistic: Callable[[Sequence[int]], float]) -> Interval:
    if count < 2:
        return middle, middle, middle
    draw = random.Random(SEED)
    found = sorted(
        statistic([draw.randrange(count) for _ in range(count)]) for _ in range(RESAMPLES)
    )
    return found[int(0.025 * RESAMPLES)], middle, found[int(0.975 * RESAMPLES) - 1]


def _mean(values: Sequence[float], drawn: Sequence[int]) -> float:
    return statistics.mean(values[index] for index in drawn)
