"""Counts, sums and histograms of a signal's values, before a change and since. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

from penstock_drift.records.evidence import Exemplar, Interval
from penstock_drift.records.values import Source

__all__ = ["BINS", "TWO_SIDED", "Examples", "Tally", "clipped", "difference", "mean_interval"]

# Bins of a histogram, at most.
BINS = 16
# Exemplars kept from before a change, and since.
EXAMPLES = 3
# Half the width of a two-sided 95 % interval, in standard errors.
TWO_SIDED = 1.96


class Tally:
    """Sums over some values.

    Attributes:
        count: How many values.
        total: Their sum, in the signal's unit.
        square: Sum of their squares.
        scaled: Sum of the values as detectors see them, before autoregression is taken out.
        scaled_square: Sum of the squares of those.
        bins: Values by bin; of shares the sum of each category's, of points that of each
            dimension's.
    """

    __slots__ = ("bins", "count", "scaled", "scaled_square", "square", "total")

    def __init__(self, bins: int) -> None:
        self.count = 0
        self.total = 0.0
        self.square = 0.0
        self.scaled = 0.0
        self.scaled_square = 0.0
        self.bins: list[float] = [0] * bins

    def add(self, value: float, scaled: float) -> None:
        """Takes a number; its bin is the caller's to count."""
        self.count += 1
        self.total += value
        self.square += value * value
        self.scaled += scaled
        self.scaled_square += scaled * scaled

    @property
    def mean(self) -> float:
        """In the signal's unit; 0 of no values."""
        return self.total / self.count if self.count else 0.0

    @property
    def deviation(self) -> float:
        """In the signal's unit."""
        return math.sqrt(_variance(self.count, self.total, self.square))

    @property
    def scaled_variance(self) -> float:
        """Of the values as detectors see them."""
        return _variance(self.count, self.scaled, self.scaled_square)

    def state(self) -> list[Any]:
        """JSON; `from_state` takes it back."""
        numbers = [self.count, self.total, self.square, self.scaled, self.scaled_square]
        return [*numbers, self.bins]

    @classmethod
    def from_state(cls, state: Sequence[Any]) -> Self:
        """The tally of a state."""
        found = cls(0)
        found.count, found.total, found.square, found.scaled, found.scaled_square, bins = state
        found.bins = list(bins)
        return found


class Examples:
    """The few responses that show something best; the earlier of two that show it alike."""

    __slots__ = ("_kept", "least")

    def __init__(self) -> None:
        # Score, then the exemplar.
        self._kept: list[tuple[float, Exemplar]] = []
        # A score has to be above it to be kept.
        self.least = -math.inf

    def offer(self, score: float, value: float, seen: Exemplar) -> None:
        """Keeps a response with its value if it shows more than one that is kept."""
        if score <= self.least:
            return
        # As many digits as tell them apart, and states are small.
        kept = Exemplar(seen.request_id, seen.source, seen.time_ms, float(f"{value:.6g}"))
        self._kept.append((float(f"{score:.4g}"), kept))
        self._kept.sort(key=lambda each: -each[0])
        del self._kept[EXAMPLES:]
        if len(self._kept) == EXAMPLES:
            self.least = self._kept[-1][0]

    def all(self) -> tuple[Exemplar, ...]:
        """The best first."""
        return tuple(exemplar for _, exemplar in self._kept)

    def state(self) -> list[Any]:
        """JSON; `from_state` takes it back."""
        return [
            [score, each.request_id, *each.source, each.time_ms, each.value]
            for score, each in self._kept
        ]

    @classmethod
    def from_state(cls, state: Sequence[Any]) -> Self:
        """The examples of a state."""
        found = cls()
        for score, request_id, topic, partition, offset, time_ms, value in state:
            exemplar = Exemplar(request_id, Source(topic, partition, offset), time_ms, value)
            found._kept.append((score, exemplar))
        if len(found._kept) == EXAMPLES:
            found.least = found._kept[-1][0]
        return found


def mean_interval(count: int, mean: float, variance: float) -> Interval:
    """A mean's 95 % interval by the central limit theorem; of one value, the value."""
    half = TWO_SIDED * math.sqrt(variance / count) if count else 0.0
    return Interval(mean, mean - half, mean + half)


def difference(
    before: tuple[int, float, float], after: tuple[int, float, float], unit: float
) -> Interval:
    """How much larger a mean is, in units, with its 95 % interval (Welch).

    Args:
        before: Count, mean and variance.
        after: The same.
        unit: What the difference is told in.
    """
    if not before[0] or not after[0]:
        return Interval(0.0, 0.0, 0.0)
    shift = (after[1] - before[1]) / unit
    half = TWO_SIDED * math.sqrt(before[2] / before[0] + after[2] / after[0]) / unit
    return Interval(shift, shift - half, shift + half)


def clipped(interval: Interval, low: float, high: float) -> Interval:
    """An interval within what can be."""
    return Interval(
        min(high, max(low, interval.estimate)),
        min(high, max(low, interval.low)),
        min(high, max(low, interval.high)),
    )


def _variance(count: int, total: float, square: float) -> float:
    if count < 2:
        return 0.0
    mean = total / count
    return max(0.0, (square / count - mean * mean) * count / (count - 1))
