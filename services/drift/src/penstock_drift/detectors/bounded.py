"""E-detector of the mean of values in [0, 1]: scores, shares. Pure."""

from __future__ import annotations

import math
from typing import Self

from penstock_drift.detectors.bounds import upper_mean
from penstock_drift.detectors.mixture import Mixture
from penstock_drift.detectors.protocols import Part, State
from penstock_drift.detectors.weighing import directions

__all__ = ["SHIFTS", "Bounded", "mean_bounds", "stakes"]

# Shifts that the stakes are best for, in deviations of the baseline.
SHIFTS = (0.25, 0.5, 1.0)
# A stake's largest loss by one value: the rest of a bet survives any value.
LARGEST_LOSS = 0.9


class Bounded:
    """Bets on the mean's rise and fall, against the baseline's bounds.

    With `low` and `high` the baseline's bounds of the mean, at 95 % together (`bounds.upper_mean`),
    the factors are

        1 + stake (x - high),   0 <= stake < 1 / high,      for a rise, and
        1 + stake (low - x),    0 <= stake < 1 / (1 - low), for a fall:

    not negative, and of mean at most 1 as long as the mean, given the past, stays between the
    bounds; nothing else is assumed of the values' distribution, nor independence. Source:
    Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS-B
    2024, section 4 (the capital process); as an e-detector, Shin, Ramdas, Rinaldo, "E-detectors",
    NEJSDS 2024, section 5. The stake that grows fastest after a shift by d is about
    d / (variance + d^2) (Waudby-Smith and Ramdas, section 4.3, from Kelly).

    Args:
        higher_is_worse: Which direction weighs more.
    """

    def __init__(self, higher_is_worse: bool | None = None) -> None:
        self.mixture: Mixture | None = None
        self.count = 0
        self._sum = 0.0
        self._square = 0.0
        self._up, self._down = directions(higher_is_worse)
        self._null: tuple[float, float, float] = (0.0, 1.0, 0.0)
        self._stakes: list[tuple[float, float]] = []

    def learn(self, value: float) -> None:
        """Takes a value of the baseline, in [0, 1]."""
        self.count += 1
        self._sum += value
        self._square += value * value

    def arm(self) -> None:
        """Fixes the null."""
        mean = self._sum / self.count
        deviation = math.sqrt(max(0.0, self._square / self.count - mean * mean))
        self._arm(*mean_bounds(mean, deviation, self.count), deviation)

    def _arm(self, low: float, high: float, deviation: float) -> None:
        self._null = (low, high, deviation)
        ups, downs = stakes(low, high, deviation, SHIFTS)
        # Each bet's factor as a + b x.
        self._stakes = [(1 - stake * high, stake) for stake in ups]
        self._stakes += [(1 + stake * low, -stake) for stake in downs]
        each = len(SHIFTS)
        self.mixture = Mixture([self._up / each] * each + [self._down / each] * each)

    def update(self, value: float) -> None:
        """Takes a value to be tested."""
        assert self.mixture is not None
        self.mixture.update([a + b * value for a, b in self._stakes])

    def parts(self) -> tuple[Part, ...]:
        """Of the rise and of the fall."""
        assert self.mixture is not None
        low, high = self._null[:2]
        each = len(SHIFTS)
        return (
            Part(f"bounded_sr(mean>{high:.4g})", self.mixture.log_part(slice(None, each))),
            Part(f"bounded_sr(mean<{low:.4g})", self.mixture.log_part(slice(each, None))),
        )

    def state(self) -> State:
        """JSON; `from_state` takes it back."""
        if self.mixture is None:
            return {"count": self.count, "sums": [self._sum, self._square]}
        return {"count": self.count, "null": list(self._null), "mixture": self.mixture.state()}

    @classmethod
    def from_state(cls, state: State, higher_is_worse: bool | None = None) -> Self:
        """Goes on from a state."""
        found = cls(higher_is_worse)
        found.count = state["count"]
        if "null" in state:
            found._arm(*state["null"])
            assert found.mixture is not None
            found.mixture.restore(state["mixture"])
        else:
            found._sum, found._square = state["sums"]
        return found


def mean_bounds(mean: float, deviation: float, count: int, among: int = 1) -> tuple[float, float]:
    """Lower and upper bound of a mean of values in [0, 1]; see `upper_mean`."""
    high = upper_mean(mean, deviation, 1.0, count, among)
    low = 1 - upper_mean(1 - mean, deviation, 1.0, count, among)
    return low, high


def stakes(
    low: float, high: float, deviation: float, shifts: tuple[float, ...]
) -> tuple[list[float], list[float]]:
    """Stakes on a rise and on a fall, best for shifts in deviations."""
    # A constant baseline has no deviation to go by: that of the rarest event left open.
    unit = max(deviation, math.sqrt((high - low) / 2), 1e-9)
    best = [shift / (1 + shift * shift) / unit for shift in shifts]
    return (
        [min(stake, LARGEST_LOSS / max(high, 1e-9)) for stake in best],
        [min(stake, LARGEST_LOSS / max(1 - low, 1e-9)) for stake in best],
    )
