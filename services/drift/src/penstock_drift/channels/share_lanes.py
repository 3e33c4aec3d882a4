"""The lanes of categories, counts and points: values with many sides. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul
from typing import Any

from penstock_drift.channels.lanes import Lane, Seen, Told
from penstock_drift.channels.tally import TWO_SIDED, Tally, mean_interval
from penstock_drift.detectors.heading import Heading
from penstock_drift.detectors.multinomial import Multinomial
from penstock_drift.detectors.protocols import Part
from penstock_drift.detectors.vector import Point
from penstock_drift.records.evidence import Histogram, Interval
from penstock_drift.records.values import Value

__all__ = ["CategoryLane", "CountsLane", "PointLane"]

# Names that are told apart: the first that the baseline has, and the others as one.
NAMES = 7
OTHER = "other"
# Bins that hashed counts have, and that they are folded into to be shown.
HASHED = 64
FOLDED = 12
# Shares are tallied in whole parts of it: exact sums, and few digits.
PARTS = 1000


class CategoryLane(Lane):
    """Of one of few names.

    Args:
        baseline: Values of the baseline.
    """

    bins = NAMES + 1

    def __init__(self, baseline: int) -> None:
        super().__init__()
        self._baseline = baseline
        self._names: list[str] = []
        self._detector: Multinomial = Multinomial(NAMES + 1)

    def learn(self, value: Value, time_ms: int, tally: Tally) -> Seen | None:
        """Takes a value of the baseline."""
        del time_ms
        if not isinstance(value, str):
            return None
        if value not in self._names and len(self._names) < NAMES:
            self._names.append(value)
        index = self._index(value)
        _add_shares(tally, ((index, 1.0),))
        self._detector.learn(((index, 1.0),))
        self.learnt += 1
        if self.learnt >= self._baseline:
            self._detector.arm()
        # The commonest shows best what is usual.
        return Seen(float(index), -tally.bins[index], None)

    def test(self, value: Value, time_ms: int, tally: Tally) -> Seen | None:
        """Takes a value to be tested."""
        del time_ms
        if not isinstance(value, str):
            return None
        index = self._index(value)
        _add_shares(tally, ((index, 1.0),))
        self._detector.update(((index, 1.0),))
        return Seen(float(index), 0.0, float(index))

    def _index(self, name: str) -> int:
        try:
            return self._names.index(name)
        except ValueError:
            return NAMES

    def parts(self) -> tuple[Part, ...]:
        """Of the category with the strongest evidence."""
        (part,) = super().parts()
        name = self._name(self._detector.leader)
        return (Part(f"multinomial_sr({name})", part.log_evidence),)

    def _name(self, index: int) -> str:
        return self._names[index] if index < len(self._names) else OTHER

    def told(self, before: Tally, after: Tally) -> Told:
        """Means, their difference and a histogram."""
        leader = self._detector.leader if self.armed else 0
        used = [*range(len(self._names)), NAMES]
        names = tuple(self._name(index) for index in used)
        counts = [
            tuple(round(each.bins[index] / PARTS) for index in used) for each in (before, after)
        ]
        return _told_shares(before, after, leader, Histogram((), names, *counts))

    def state(self) -> dict[str, Any]:
        """JSON."""
        return {"names": self._names, "detector": self._detector.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a state."""
        self._names = list(state["names"])
        self._detector = Multinomial.from_state(state["detector"])
        self.learnt = self._detector.count


class CountsLane(Lane):
    """Of counts over the bins of a hashed vocabulary.

    Args:
        baseline: Values of the baseline.
    """

    bins = FOLDED

    def __init__(self, baseline: int) -> None:
        super().__init__()
        self._baseline = baseline
        self._detector: Heading = Heading(HASHED, baseline)

    def learn(self, value: Value, time_ms: int, tally: Tally) -> Seen | None:
        """Takes a value of the baseline."""
        del time_ms
        shares = _shares(value)
        if shares is None:
            return None
        _add_folded(tally, shares)
        self._detector.learn(shares)
        self.learnt += 1
        if self.learnt >= self._baseline:
            self._detector.arm()
        return Seen(0.0, 0.0, None)

    def test(self, value: Value, time_ms: int, tally: Tally) -> Seen | None:
        """Takes a value to be tested."""
        del time_ms
        shares = _shares(value)
        if shares is None:
            return None
        _add_folded(tally, shares)
        self._detector.update(shares)
        along = self._detector.along
        tally.total += along
        tally.square += along * along
        return Seen(along, 0.0, along)

    def told(self, before: Tally, after: Tally) -> Told:
        """Before is 0 and after the mean place along the way the values took, in deviations.

        The direction is known before each value, so that chance is no distance; the total
        variation distance of two samples is never 0 and grows with the number of bins.
        """
        names = tuple(f"bin {index}" for index in range(FOLDED))
        counts = [tuple(round(total / PARTS) for total in each.bins) for each in (before, after)]
        shift = mean_interval(after.count, after.mean, after.deviation**2)
        return Told(Interval(0, 0, 0), shift, shift, Histogram((), names, *counts))

    def state(self) -> dict[str, Any]:
        """JSON."""
        return dict(self._detector.state())

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a state."""
        self._detector = Heading.from_state(state)
        self.learnt = self._detector.count


class PointLane(Lane):
    """Of points.

    Args:
        size: Dimensions.
        baseline: Values of the baseline.
    """

    def __init__(self, size: int, baseline: int) -> None:
        super().__init__()
        self._size = size
        self._baseline = baseline
        self._detector: Point = Point(size, baseline)
        self.bins = self._detector.size

    def learn(self, value: Value, time_ms: int, tally: Tally) -> Seen | None:
        """Takes a value of the baseline."""
        del time_ms
        point = self._point(value)
        if point is None:
            return None
        centred = self._detector.centred
        self._detector.learn(point)
        distance = self._add(tally, point) if centred else math.inf
        self.learnt += 1
        if self.learnt >= self._baseline:
            self._detector.arm()
        return Seen(distance, distance, None)

    def test(self, value: Value, time_ms: int, tally: Tally) -> Seen | None:
        """Takes a value to be tested."""
        del time_ms
        point = self._point(value)
        if point is None:
            return None
        self._detector.update(point)
        distance = self._add(tally, point)
        return Seen(distance, distance, distance)

    def _point(self, value: Value) -> Sequence[float] | None:
        if not isinstance(value, tuple) or len(value) < self._detector.size:
            return None
        try:
            # Quicker than to look at each: what is not finite stays so in a sum.
            finite = math.isfinite(math.fsum(value))  # type: ignore[arg-type]  # or it raises
        except (TypeError, ValueError, OverflowError):
            return None
        return value if finite else None  # type: ignore[return-value]

    def _add(self, tally: Tally, point: Sequence[float]) -> float:
        scaled = self._detector.scaled(point)
        tally.count += 1
        # In whole parts too.
        tally.bins = [total + round(z * PARTS) for total, z in zip(tally.bins, scaled, strict=True)]
        distance = math.sqrt(sum(map(mul, scaled, scaled)) / len(scaled))
        tally.total += distance
        tally.square += distance * distance
        return distance

    def told(self, before: Tally, after: Tally) -> Told:
        """Before and after are the mean distances from the centre; the effect is the shift.

        It is that of the dimension that leads, in deviations of the baseline.
        """
        leader = self._detector.leader if self.armed else 0
        shift = (_share(after, leader) - _share(before, leader)) / PARTS
        half = TWO_SIDED * math.sqrt(sum(1 / each.count for each in (before, after) if each.count))
        return Told(
            mean_interval(before.count, before.mean, before.deviation**2),
            mean_interval(after.count, after.mean, after.deviation**2),
            Interval(shift, shift - half, shift + half) if after.count else Interval(0, 0, 0),
            Histogram((), (), (), ()),
        )

    def state(self) -> dict[str, Any]:
        """JSON."""
        return dict(self._detector.state())

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a state."""
        self._detector = Point.from_state(state)
        self.learnt = self._detector.count


def _add_shares(tally: Tally, shares: Sequence[tuple[int, float]]) -> None:
    tally.count += 1
    bins = tally.bins
    for index, share in shares:
        bins[index] += round(share * PARTS)


def _add_folded(tally: Tally, shares: Sequence[tuple[int, float]]) -> None:
    tally.count += 1
    bins = tally.bins
    for index, share in shares:
        bins[index % FOLDED] += int(share * PARTS + 0.5)


def _shares(value: Value) -> list[tuple[int, float]] | None:
    """Shares of the bins; None for what is no counts, or has none."""
    if not isinstance(value, tuple):
        return None
    sums: dict[int, int] = {}
    total = 0
    for pair in value:
        if not isinstance(pair, tuple):
            return None
        index, count = pair[0] % HASHED, pair[1]
        sums[index] = sums[index] + count if index in sums else count
        total += count
    return [(index, count / total) for index, count in sums.items()] if total > 0 else None


def _share(tally: Tally, index: int) -> float:
    return tally.bins[index] / tally.count if tally.count else 0.0


def _told_shares(before: Tally, after: Tally, leader: int, histogram: Histogram) -> Told:
    """Before and after are the shares of the category that leads; the effect is their difference.

    The total variation distance would be the whole change, but its estimate is never 0 and grows
    with the number of categories.
    """
    sides = _share_interval(before, leader), _share_interval(after, leader)
    if not before.count or not after.count:
        return Told(*sides, Interval(0, 0, 0), histogram)
    effect = sides[1].estimate - sides[0].estimate
    half = math.hypot(*(each.high - each.estimate for each in sides))
    return Told(*sides, Interval(effect, effect - half, effect + half), histogram)


def _share_interval(tally: Tally, index: int) -> Interval:
    share = min(1.0, _share(tally, index) / PARTS)
    # Of a share of a text's words the variance is less: this bounds it.
    return mean_interval(tally.count, share, share * (1 - share))
