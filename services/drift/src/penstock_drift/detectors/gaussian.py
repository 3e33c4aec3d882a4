"""E-detector of a number: of its mean and of its spread. Pure."""

from __future__ import annotations

import math
from typing import Self

from penstock_drift.detectors.bounds import upper_mean
from penstock_drift.detectors.mixture import Mixture
from penstock_drift.detectors.protocols import Part, State
from penstock_drift.detectors.weighing import directions

__all__ = ["LIMIT", "SHIFTS", "SPREADS", "Gaussian"]

# Values are clipped to so many deviations, so that every factor is bounded.
LIMIT = 4.0
# Bets on the mean: tilts, in deviations. Each is the best bet on a shift of its size.
SHIFTS = (0.25, 0.5, 1.0)
# Their parts of the weight. Less weight costs a bet ln of it over what it gains per value (half the
# shift squared, less what the null leaves open): sixteen times as many values for the smallest as
# for the largest. Measured with 10,000 values to a false alarm, against equal parts and a fifth
# for the spread: +0.25 deviations 167 values instead of 196, +0.5 52 instead of 53, +1 17 instead
# of 16, a doubled spread 17 instead of 14 (medians of 200).
PARTS = (0.7, 0.2, 0.1)
# Bets on the spread: tilts of |z|, for a wider and for a narrower one. The best for a doubled and
# a halved deviation of a Gaussian, nearly; unlike its tilts of z squared they have finite means
# and variances under heavier tails too.
SPREADS = (0.7, -1.2)
# Weight of the bets on the mean; the rest is on the spread.
MEAN = 0.9


class Gaussian:
    """Exponential tilts of a standardised value, each against its mean in the baseline.

    A bet has the factor f(z) / N with f(z) = exp(shift z) or exp(spread |z|), z clipped to
    `LIMIT`. For a standard Gaussian and N = E[f(z)] the former is the likelihood ratio of a shift,
    exp(shift z - shift^2 / 2). Here N is the upper bound, at 97.5 %, of E[f(z)] from the baseline's
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
        # A mean that is off by d makes E[exp(shift z)] larger by exp(shift d).
        off = [math.exp(shift * allowance) for shift in SHIFTS]
        off += [*off, *(1.0 for _ in SPREADS)]
        self._arm([1.0 / (bound * more) for bound, more in zip(bounds, off, strict=True)])

    def _arm(self, divisors: list[float]) -> None:
        self._divisors = divisors
        spreads = len(SPREADS)
        self.mixture = Mixture(
            [MEAN * self._up * part for part in PARTS]
            + [MEAN * self._down * part for part in PARTS]
            + [(1 - MEAN) / spreads] * spreads
        )

    def update(self, value: float) -> None:
        """Takes a value to be tested."""
        assert self.mixture is not None
        self.mixture.update([t * d for t, d in zip(_tilts(value), self._divisors, strict=True)])

    def parts(self) -> tuple[Part, ...]:
        """Of the mean and of the spread."""
        assert self.mixture is not None
        means = 2 * len(SHIFTS)
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


_BETS = 2 * len(SHIFTS) + len(SPREADS)
_LARGEST = (
    *(math.exp(shift * LIMIT) for shift in SHIFTS),
    *(math.exp(shift * LIMIT) for shift in SHIFTS),
    *(math.exp(max(spread * LIMIT, 0.0)) for spread in SPREADS),
)
_UNIT, _WIDE, _NARROW = SHIFTS[0], *SPREADS


def _tilts(value: float) -> tuple[float, ...]:
    """f(z) of every bet: ups, downs, spreads."""
    z = min(LIMIT, max(-LIMIT, value))
    size = abs(z)
    # Shifts are the first one's double and its double: powers are cheaper than exponentials.
    up = math.exp(_UNIT * z)
    up2 = up * up
    down = 1.0 / up
    down2 = down * down
    return (
        up,
        up2,
        up2 * up2,
        down,
        down2,
        down2 * down2,
        math.exp(_WIDE * size),
        math.exp(_NARROW * size),
    )
