"""E-detector of a number: of its mean and of its spread. Pure."""

from __future__ import annotations

import math
from typing import Self

from penstock_drift.detectors.bounds import upper_mean
from penstock_drift.detectors.mixture import Mixture
from penstock_drift.detectors.protocols import Part, State
from penstock_drift.detectors.weighing import directions

__all__ = ["LIMIT", "MEANS", "SPREADS", "Gaussian"]

# Values are clipped to so many deviations, so that every factor is bounded.
LIMIT = 4.0
# Under heavy tails what lies far out says little of where the middle is: one bet stops here.
NEAR = 1.0
# Bets on the mean: tilt, at how many deviations it clips, its part of their weight. The first two
# are the best on shifts of their size. Less weight costs a bet ln of it over what it gains per
# value, which is sixteen times as many values for the smallest as for the largest: so the smallest
# has most. The third is worth its weight under heavy tails: with 10,000 values to a false alarm,
# half a deviation of Student's t of 3 takes 38 values with it and 46 without, 30 % more latency
# with a slow tail 40 and 64, and what is Gaussian two more in a hundred (medians of 200).
MEANS = ((0.2, LIMIT, 0.595), (0.8, LIMIT, 0.105), (0.6, NEAR, 0.3))
# Bets on the spread: tilts of |z|, for a wider and for a narrower one. The best for a doubled and
# a halved deviation of a Gaussian, nearly; unlike its tilts of z squared they have finite means
# and variances under heavier tails too.
SPREADS = (0.7, -1.2)
# Weight of the bets on the mean; the rest is on the spread.
MEAN = 0.92


class Gaussian:
    """Exponential tilts of a standardised value, each against its mean in the baseline.

    A bet has the factor f(z) / N with f(z) = exp(tilt z) or exp(spread |z|), z clipped. For a
    standard Gaussian and N = E[f(z)] the former is the likelihood ratio of a shift by the tilt,
    exp(tilt z - tilt^2 / 2). Here N is the upper bound, at 97.5 %, of E[f(z)] from the baseline's
    values (`bounds.upper_mean`), whatever their distribution: it holds the baseline's uncertainty
    of mean, of spread and of tails at once, and E[f / N] <= 1 on the event that the bound holds,
    for every sequence whose E[f(z)], given the past, does not exceed N. So nothing is assumed
    Gaussian but the shape of the bets; neighbours have to be independent, which the normaliser
    sees to. The bound is asymptotic: by the central limit theorem, in n of the baseline.

    Source of the tilts: Shin, Ramdas, Rinaldo, "E-detectors", NEJSDS 2024, section 4 (mixtures of
    exponential baseline increments); of estimating N: ours.

    Args:
        higher_is_worse: Which direction of the mean weighs more.
    """

    def __init__(self, higher_is_worse: bool | None = None) -> None:
        self.mixture: Mixture | None = None
        self.count = 0
        self._sums = [0.0] * _BETS
        self._squares = [0.0] * _BETS
        self._divisors: list[float] = []
        self._up, self._down = directions(higher_is_worse)

    def learn(self, value: float) -> None:
        """Takes a value of the baseline, in deviations from its centre."""
        self.count += 1
        tilts = _tilts(value)
        self._sums = [total + tilt for total, tilt in zip(self._sums, tilts, strict=True)]
        self._squares = [
            total + tilt * tilt for total, tilt in zip(self._squares, tilts, strict=True)
        ]

    def arm(self, allowance: float = 0.0) -> None:
        """Fixes the null.

        Args:
            allowance: By how many deviations the mean may be off without a change, either way:
                what a season's estimate leaves open.
        """
        count = self.count
        bounds = []
        for total, square, largest in zip(self._sums, self._squares, _LARGEST, strict=True):
            mean = total / count
            variance = max(0.0, square / count - mean * mean) * count / max(1, count - 1)
            bounds.append(upper_mean(mean, math.sqrt(variance), largest, count))
        # A mean that is off by d makes E[exp(tilt z)] larger by exp(tilt d), clipped or not. At the
        # values' own limit the bet wins nothing any more.
        off = [math.exp(tilt * min(allowance, LIMIT)) for tilt, _, _ in MEANS]
        off += [*off, *(1.0 for _ in SPREADS)]
        self._arm([1.0 / (bound * more) for bound, more in zip(bounds, off, strict=True)])

    def _arm(self, divisors: list[float]) -> None:
        self._divisors = divisors
        spreads = len(SPREADS)
        self.mixture = Mixture(
            [MEAN * self._up * part for _, _, part in MEANS]
            + [MEAN * self._down * part for _, _, part in MEANS]
            + [(1 - MEAN) / spreads] * spreads
        )

    def update(self, value: float) -> None:
        """Takes a value to be tested."""
        assert self.mixture is not None
        self.mixture.update([t * d for t, d in zip(_tilts(value), self._divisors, strict=True)])

    def parts(self) -> tuple[Part, ...]:
        """Of the mean and of the spread."""
        assert self.mixture is not None
        means = 2 * len(MEANS)
        return (
            Part("gaussian_sr(mean)", self.mixture.log_part(slice(None, means))),
            Part("gaussian_sr(spread)", self.mixture.log_part(slice(means, None))),
        )

    def state(self) -> State:
        """JSON; `from_state` takes it back."""
        if self.mixture is None:
            return {"count": self.count, "sums": self._sums, "squares": self._squares}
        return {"count": self.count, "null": self._divisors, "mixture": self.mixture.state()}

    @classmethod
    def from_state(cls, state: State, higher_is_worse: bool | None = None) -> Self:
        """Goes on from a state."""
        found = cls(higher_is_worse)
        found.count = state["count"]
        if "null" in state:
            found._arm(list(state["null"]))
            assert found.mixture is not None
            found.mixture.restore(state["mixture"])
        else:
            found._sums, found._squares = list(state["sums"]), list(state["squares"])
        return found


_BETS = 2 * len(MEANS) + len(SPREADS)
_LARGEST = (
    *(math.exp(tilt * limit) for tilt, limit, _ in MEANS),
    *(math.exp(tilt * limit) for tilt, limit, _ in MEANS),
    *(math.exp(max(spread * LIMIT, 0.0)) for spread in SPREADS),
)
_SMALL, _, _CLOSE = (tilt for tilt, _, _ in MEANS)
_WIDE, _NARROW = SPREADS


def _tilts(value: float) -> tuple[float, ...]:
    """f(z) of every bet: ups, downs, spreads."""
    z = LIMIT if value > LIMIT else -LIMIT if value < -LIMIT else value
    near = NEAR if z > NEAR else -NEAR if z < -NEAR else z
    size = abs(z)
    small, close = math.exp(_SMALL * z), math.exp(_CLOSE * near)
    # The second tilt is four times the first: powers are cheaper than exponentials.
    square = small * small
    large = square * square
    return (
        small,
        large,
        close,
        1.0 / small,
        1.0 / large,
        1.0 / close,
        math.exp(_WIDE * size),
        math.exp(_NARROW * size),
    )
