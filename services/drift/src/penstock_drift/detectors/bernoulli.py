"""E-detector of a rate: refusals, errors, truncations. Pure."""

from __future__ import annotations

import math
from typing import Self

from penstock_drift.detectors.bounds import rate_bounds
from penstock_drift.detectors.mixture import Mixture
from penstock_drift.detectors.protocols import Part, State
from penstock_drift.detectors.weighing import directions

__all__ = ["SHIFTS", "Bernoulli"]

# Shifts that the bets are best for, in deviations of a single value. The same odds would be large
# steps at 20 % and small ones at 2 %.
SHIFTS = (0.15, 0.3, 0.6)
# Their parts of the weight: the smallest gains slowest, so less weight costs it most. Against odds
# times 1.3, 2 and 4 in equal parts: 0.2 to 1 % in 405 values instead of 476, 12 to 20 % in 144
# instead of 163, 20 to 30 % in 166 instead of 179, 2 to 10 % in 71 as before (medians of 200, with
# 10,000 values to a false alarm).
PARTS = (0.5, 0.3, 0.2)


class Bernoulli:
    """Likelihood-ratio bets on a rate's rise and fall, against the baseline's bounds.

    The baseline of n values with k events gives bounds `low` and `high` of its rate, at 95 %
    together (`bounds.rate_bounds`). A bet on a rise to q has the factor

        L(1) = q / high,  L(0) = (1 - q) / (1 - high),    odds(q) = ratio * odds(high)

    whose mean under any rate p <= high is at most 1: it is linear in p, rises since q > high, and
    is 1 at p = high. Bets on a fall mirror it at `low`. The ratio is by how much a shift of
    `SHIFTS` multiplies the odds of what is rarer, events or their absence. So on the event that the
    bounds hold, the promise of `mixture` holds for every sequence whose rate, given the past, stays
    between them; values need not be independent.

    Args:
        higher_is_worse: Which direction weighs more.
    """

    def __init__(self, higher_is_worse: bool | None = True) -> None:
        self.mixture: Mixture | None = None
        self.count = 0
        self.events = 0.0
        self._up, self._down = directions(higher_is_worse)
        self._null = (0.0, 1.0)
        self._of_zero: tuple[float, ...] = ()
        self._of_one: tuple[float, ...] = ()

    def learn(self, value: float) -> None:
        """Takes a value of the baseline: 0 or 1."""
        self.count += 1
        self.events += value

    def arm(self) -> None:
        """Fixes the null."""
        self._arm(*rate_bounds(self.events, self.count))

    def _arm(self, low: float, high: float) -> None:
        self._null = (low, high)
        ups = [_factors(high, _ratio(high, shift)) for shift in SHIFTS]
        downs = [_factors(low, 1 / _ratio(low, shift)) for shift in SHIFTS]
        self._of_zero, self._of_one = zip(*ups, *downs, strict=True)
        # A rate of 0 cannot fall, nor one of 1 rise: then all is bet on the other direction.
        up, down = (1.0 if low <= 0 else self._up), (1.0 if high >= 1 else self._down)
        up, down = (up if high < 1 else 0.0), (down if low > 0 else 0.0)
        self.mixture = Mixture([up * part for part in PARTS] + [down * part for part in PARTS])

    def update(self, value: float) -> None:
        """Takes a value to be tested: 0 or 1."""
        assert self.mixture is not None
        self.mixture.update(self._of_one if value else self._of_zero)

    def parts(self) -> tuple[Part, ...]:
        """Of the rise and of the fall."""
        assert self.mixture is not None
        low, high = self._null
        each = len(SHIFTS)
        return (
            Part(f"bernoulli_sr(rate>{high:.4g})", self.mixture.log_part(slice(None, each))),
            Part(f"bernoulli_sr(rate<{low:.4g})", self.mixture.log_part(slice(each, None))),
        )

    def state(self) -> State:
        """JSON; `from_state` takes it back."""
        baseline = [self.count, self.events]
        if self.mixture is None:
            return {"baseline": baseline}
        return {"baseline": baseline, "null": list(self._null), "mixture": self.mixture.state()}

    @classmethod
    def from_state(cls, state: State, higher_is_worse: bool | None = True) -> Self:
        """Goes on from a state."""
        found = cls(higher_is_worse)
        found.count, found.events = state["baseline"]
        if "null" in state:
            found._arm(*state["null"])
            assert found.mixture is not None
            found.mixture.restore(state["mixture"])
        return found


def _ratio(rate: float, shift: float) -> float:
    """By how much the odds of the rarer outcome rise with a shift of its rate, in deviations."""
    rarer = min(rate, 1 - rate)
    if rarer <= 0:
        return 1.0
    risen = rarer + shift * math.sqrt(rarer * (1 - rarer))
    return risen / (1 - risen) * (1 - rarer) / rarer


def _factors(null: float, ratio: float) -> tuple[float, float]:
    """Likelihood ratios of 0 and of 1: odds times `ratio` against the null."""
    if not 0 < null < 1:
        # No bet. A factor of 1 would be valid too, but its value would grow with time.
        return 0.0, 0.0
    odds = null / (1 - null) * ratio
    rate = odds / (1 + odds)
    return (1 - rate) / (1 - null), rate / null
