"""From a signal's values to its e-detector: one lane per type of signal. Pure.

A lane knows what to normalise, when the baseline is complete, which e-detector takes the values,
and how what was seen is told to people. The channel knows none of that.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from penstock_drift.channels.normalise import Normaliser, Season, usable
from penstock_drift.channels.tally import BINS, TWO_SIDED, Tally, clipped, difference, mean_interval
from penstock_drift.detectors.bernoulli import Bernoulli
from penstock_drift.detectors.bounded import Bounded
from penstock_drift.detectors.gaussian import Gaussian
from penstock_drift.detectors.mixture import Mixture
from penstock_drift.detectors.protocols import EDetector, Part
from penstock_drift.records.evidence import Histogram, Interval
from penstock_drift.records.values import Value

__all__ = ["BoundedLane", "Lane", "NumberLane", "RateLane", "Seen", "Told"]

# Histograms of numbers: bins of half a deviation, the outer ones open.
FIRST_EDGE = -3.5
BIN_WIDTH = 0.5


class Seen(NamedTuple):
    """What became of a value.

    Attributes:
        number: What an exemplar shows: the value, the index of a category, a distance.
        odd: How unlike the baseline's middle it is.
        tested: What the calibrated detectors see; None where it only fills a block or a baseline.
    """

    number: float
    odd: float
    tested: float | None


class Told(NamedTuple):
    """What people are told of the values before a change and since; `shift` as in the evidence."""

    before: Interval
    after: Interval
    effect: Interval
    histogram: Histogram
    shift: Interval | None = None


class Lane(abc.ABC):
    """One type's way. Learns a baseline until `armed`, then tests.

    Attributes:
        bins: Size of its tallies.
        learnt: Values that the baseline has.
    """

    bins: int
    _detector: EDetector[Any]

    def __init__(self) -> None:
        self.learnt = 0

    @property
    def armed(self) -> bool:
        """Whether the baseline is complete."""
        return self._detector.mixture is not None

    @property
    def mixture(self) -> Mixture:
        """The e-detector's, when armed."""
        assert self._detector.mixture is not None
        return self._detector.mixture

    def parts(self) -> tuple[Part, ...]:
        """What its detectors say, when armed."""
        return self._detector.parts()

    @abc.abstractmethod
    def learn(self, value: Value, time_ms: int, tally: Tally) -> Seen | None:
        """Takes a value of the baseline; None for one that no detector may see."""

    @abc.abstractmethod
    def test(self, value: Value, time_ms: int, tally: Tally) -> Seen | None:
        """Takes a value to be tested; None for one that no detector may see."""

    @abc.abstractmethod
    def told(self, before: Tally, after: Tally) -> Told:
        """What people are told."""

    @abc.abstractmethod
    def state(self) -> dict[str, Any]:
        """JSON; `restore` takes it back."""

    @abc.abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a state of a lane of the same arguments."""


class NumberLane(Lane):
    """Of numbers without bounds.

    Args:
        higher_is_worse: Which direction weighs more.
        logarithm: Whether log(1 + x) is compared.
        season: What time is subtracted.
        periods: Whole periods that the baseline spans.
        block: Values that are averaged into one.
        baseline: Values of the baseline, at least.
    """

    bins = BINS

    def __init__(
        self,
        higher_is_worse: bool | None,
        logarithm: bool,
        season: Season,
        periods: int,
        block: int,
        baseline: int,
    ) -> None:
        super().__init__()
        self._worse = higher_is_worse
        self._baseline, self._block = baseline, block
        self._seasonal = season != "none"
        self._normaliser = Normaliser(logarithm, season, periods, block, baseline)
        self._detector: Gaussian = Gaussian(higher_is_worse)

    def learn(self, value: Value, time_ms: int, tally: Tally) -> Seen | None:
        """Takes a value of the baseline."""
        number = _number(value)
        if number is None:
            return None
        self.learnt += 1
        normaliser = self._normaliser
        deseasoned = normaliser.deseasoned
        normalised = normaliser.push(number, time_ms)
        if deseasoned:
            self._add(tally, number)
        if normalised is not None:
            self._detector.learn(normalised)
            if self._complete(time_ms):
                self._detector.arm(normaliser.allowance)
        return Seen(number, abs(normaliser.scaled) if deseasoned else math.inf, None)

    def _complete(self, time_ms: int) -> bool:
        share = 3 / 8 if self._seasonal else 3 / 4
        enough = self._detector.count * self._block >= share * self._baseline - self._block
        return enough and self.learnt >= self._baseline and self._normaliser.covers(time_ms)

    def test(self, value: Value, time_ms: int, tally: Tally) -> Seen | None:
        """Takes a value to be tested."""
        number = _number(value)
        if number is None:
            return None
        normalised = self._normaliser.push(number, time_ms)
        self._add(tally, number)
        if normalised is not None:
            self._detector.update(normalised)
        return Seen(number, abs(self._normaliser.scaled), normalised)

    def _add(self, tally: Tally, number: float) -> None:
        scaled = self._normaliser.scaled
        tally.add(number, scaled)
        index = math.floor((scaled - FIRST_EDGE) / BIN_WIDTH) + 1
        tally.bins[0 if index < 0 else BINS - 1 if index >= BINS else index] += 1

    def told(self, before: Tally, after: Tally) -> Told:
        """Means, their difference and a histogram."""
        unit = math.sqrt(before.scaled_variance) or 1.0
        effect, shift = difference(_scaled(before), _scaled(after), unit), None
        if self.armed:
            mean, spread = (part.log_evidence for part in self.parts())
            if spread > mean:
                effect, shift = _spread(before, after), effect
        edges = (FIRST_EDGE + BIN_WIDTH * index for index in range(BINS - 1))
        raw = self._normaliser.raw if self._normaliser.piloted else float
        return Told(
            mean_interval(before.count, before.mean, before.deviation**2),
            mean_interval(after.count, after.mean, after.deviation**2),
            effect,
            Histogram(tuple(raw(edge) for edge in edges), (), _counts(before), _counts(after)),
            shift,
        )

    def state(self) -> dict[str, Any]:
        """JSON."""
        return {
            "learnt": self.learnt,
            "normaliser": self._normaliser.state(),
            "detector": self._detector.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a state."""
        self.learnt = state["learnt"]
        self._normaliser.restore(state["normaliser"])
        self._detector = Gaussian.from_state(state["detector"], self._worse)


class RateLane(Lane):
    """Of what happens or not: 0 or 1.

    Args:
        higher_is_worse: Which direction weighs more.
        baseline: Values of the baseline.
    """

    bins = 2

    def __init__(self, higher_is_worse: bool | None, baseline: int) -> None:
        super().__init__()
        self._worse = higher_is_worse
        self._baseline = baseline
        self._detector: Bernoulli = Bernoulli(higher_is_worse)

    def learn(self, value: Value, time_ms: int, tally: Tally) -> Seen | None:
        """Takes a value of the baseline."""
        del time_ms
        if not isinstance(value, float | int) or not math.isfinite(value):
            return None
        event = 1.0 if value >= 0.5 else 0.0
        _add_event(tally, event)
        self._detector.learn(event)
        self.learnt += 1
        if self.learnt >= self._baseline:
            self._detector.arm()
        return Seen(event, event, None)

    def test(self, value: Value, time_ms: int, tally: Tally) -> Seen | None:
        """Takes a value to be tested."""
        del time_ms
        if not isinstance(value, float | int) or not math.isfinite(value):
            return None
        event = 1.0 if value >= 0.5 else 0.0
        _add_event(tally, event)
        self._detector.update(event)
        return Seen(event, event, event)

    def told(self, before: Tally, after: Tally) -> Told:
        """Means, their difference and a histogram."""
        histogram = Histogram((), ("no", "yes"), _counts(before), _counts(after))
        return _in_unit(before, after, histogram)

    def state(self) -> dict[str, Any]:
        """JSON."""
        return dict(self._detector.state())

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a state."""
        self._detector = Bernoulli.from_state(state, self._worse)
        self.learnt = self._detector.count


class BoundedLane(Lane):
    """Of numbers in [0, 1], and of rates in blocks.

    Args:
        higher_is_worse: Which direction weighs more.
        block: Values that are averaged into one.
        baseline: Values of the baseline.
    """

    bins = BINS

    def __init__(self, higher_is_worse: bool | None, block: int, baseline: int) -> None:
        super().__init__()
        self._worse = higher_is_worse
        self._baseline, self._block = baseline, block
        self._total, self._filled = 0.0, 0
        self._detector: Bounded = Bounded(higher_is_worse)

    def learn(self, value: Value, time_ms: int, tally: Tally) -> Seen | None:
        """Takes a value of the baseline."""
        del time_ms
        number = self._taken(value, tally)
        if number is None:
            return None
        self.learnt += 1
        mean = self._blocked(number)
        if mean is not None:
            self._detector.learn(mean)
            if self.learnt >= self._baseline:
                self._detector.arm()
        return Seen(number, abs(number - tally.mean), None)

    def test(self, value: Value, time_ms: int, tally: Tally) -> Seen | None:
        """Takes a value to be tested."""
        del time_ms
        number = self._taken(value, tally)
        if number is None:
            return None
        mean = self._blocked(number)
        if mean is not None:
            self._detector.update(mean)
        return Seen(number, number, mean)

    def _taken(self, value: Value, tally: Tally) -> float | None:
        if not isinstance(value, float | int) or not math.isfinite(value):
            return None
        number = min(1.0, max(0.0, float(value)))
        tally.add(number, 0.0)
        tally.bins[min(BINS - 1, int(number * BINS))] += 1
        return number

    def _blocked(self, number: float) -> float | None:
        if self._block == 1:
            return number
        self._total += number
        self._filled += 1
        if self._filled < self._block:
            return None
        mean, self._total, self._filled = self._total / self._block, 0.0, 0
        return mean

    def told(self, before: Tally, after: Tally) -> Told:
        """Means, their difference and a histogram."""
        edges = tuple((index + 1) / BINS for index in range(BINS - 1))
        return _in_unit(before, after, Histogram(edges, (), _counts(before), _counts(after)))

    def state(self) -> dict[str, Any]:
        """JSON."""
        return {
            "learnt": self.learnt,
            "block": [self._total, self._filled],
            "detector": self._detector.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a state."""
        self.learnt = state["learnt"]
        self._total, self._filled = state["block"]
        self._detector = Bounded.from_state(state["detector"], self._worse)


def _number(value: Value) -> float | None:
    if isinstance(value, float | int) and usable(value):
        return float(value)
    return None


def _add_event(tally: Tally, event: float) -> None:
    tally.count += 1
    tally.total += event
    tally.square += event
    tally.bins[1 if event else 0] += 1


def _counts(tally: Tally) -> tuple[int, ...]:
    return tuple(round(count) for count in tally.bins)


def _scaled(tally: Tally) -> tuple[int, float, float]:
    mean = tally.scaled / tally.count if tally.count else 0.0
    return tally.count, mean, tally.scaled_variance


def _spread(before: Tally, after: Tally) -> Interval:
    """How much wider values lie, in deviations of the baseline; of a Gaussian's deviation."""
    unit = math.sqrt(before.scaled_variance) or 1.0
    ratio = math.sqrt(after.scaled_variance) / unit
    # A sample deviation's relative standard error.
    half = TWO_SIDED * ratio / math.sqrt(2 * max(1, after.count - 1)) if after.count else 0.0
    return Interval(ratio - 1, ratio - 1 - half, ratio - 1 + half)


def _in_unit(before: Tally, after: Tally, histogram: Histogram) -> Told:
    sides: Sequence[tuple[int, float, float]] = [
        (each.count, each.mean, each.deviation**2) for each in (before, after)
    ]
    return Told(
        clipped(mean_interval(*sides[0]), 0.0, 1.0),
        clipped(mean_interval(*sides[1]), 0.0, 1.0),
        difference(sides[0], sides[1], 1.0),
        histogram,
    )
