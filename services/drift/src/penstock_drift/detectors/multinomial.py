"""E-detector of shares: of categories, and of the bins of hashed counts. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

from penstock_drift.detectors.bounded import mean_bounds, stakes
from penstock_drift.detectors.bounds import rate_bounds
from penstock_drift.detectors.mixture import Mixture
from penstock_drift.detectors.protocols import Part, State

__all__ = ["Multinomial", "Shares"]

# Index and share of each category that a value has; what is not named has none. One category
# alone is ((index, 1.0),); a text's bins have their shares of its words.
Shares = Sequence[tuple[int, float]]

# Shifts that the stakes are best for, in deviations of a category's share: two for a few
# categories, one for many, so that a value's cost stays.
FEW = 8
SHIFTS_OF_FEW = (0.15, 0.5)
SHIFTS_OF_MANY = (0.3,)


class Multinomial:
    """For each category bets on its share's rise and fall, as `bounded` does, in equal parts.

    A value is a vector of shares in [0, 1]; the bets on category j look at its share alone, and
    have mean at most 1 as long as the mean share, given the past, stays between the baseline's
    bounds: all together at 95 %; exact where every value names one
    category. So the words of one text may depend on each other: a text is one value. An average
    of e-detectors is one (Vovk and Wang, "E-values: calibration, combination and applications",
    Annals of Statistics 2021, on arithmetic means).

    Args:
        size: Categories.
    """

    def __init__(self, size: int) -> None:
        self.mixture: Mixture | None = None
        self.count = 0
        self.size = size
        self._sums = [0.0] * size
        self._squares = [0.0] * size
        self._null: list[list[float]] = []
        self._base: list[float] = []
        self._slopes: list[float] = []
        self._each = 0

    def learn(self, value: Shares) -> None:
        """Takes a value of the baseline."""
        self.count += 1
        for index, share in value:
            self._sums[index] += share
            self._squares[index] += share * share

    def arm(self) -> None:
        """Fixes the null."""
        nulls = []
        for total, square in zip(self._sums, self._squares, strict=True):
            mean = total / self.count
            deviation = math.sqrt(max(0.0, square / self.count - mean * mean))
            if total == square:
                # All shares were 0 or 1.
                low, high = rate_bounds(total, self.count, len(self._sums))
            else:
                low, high = mean_bounds(mean, deviation, self.count, len(self._sums))
            # Four digits, on the side that leaves the null no smaller: states are small.
            low, high = math.floor(low * 1e4) / 1e4, min(1.0, math.ceil(high * 1e4) / 1e4)
            nulls.append([low, high, round(deviation, 4)])
        self._arm(nulls)

    def _arm(self, nulls: list[list[float]]) -> None:
        self._null = nulls
        shifts = SHIFTS_OF_FEW if len(nulls) <= FEW else SHIFTS_OF_MANY
        self._each = 2 * len(shifts)
        self._base, self._slopes = [], []
        for low, high, deviation in nulls:
            ups, downs = stakes(low, high, deviation, shifts)
            self._base += [1 - stake * high for stake in ups]
            self._slopes += ups
            # What is never there cannot become rarer: no bet.
            self._base += [1 + stake * low if low > 0 else 0.0 for stake in downs]
            self._slopes += [-stake if low > 0 else 0.0 for stake in downs]
        self.mixture = Mixture([1 / len(self._base)] * len(self._base))

    def update(self, value: Shares) -> None:
        """Takes a value to be tested."""
        assert self.mixture is not None
        factors = self._base.copy()
        slopes, each = self._slopes, self._each
        for index, share in value:
            for bet in range(index * each, index * each + each):
                factors[bet] += slopes[bet] * share
        self.mixture.update(factors)

    @property
    def leader(self) -> int:
        """The category with the strongest evidence."""
        assert self.mixture is not None
        return max(range(len(self._null)), key=self._log_part)

    def _log_part(self, index: int) -> float:
        assert self.mixture is not None
        return self.mixture.log_part(slice(index * self._each, (index + 1) * self._each))

    def parts(self) -> tuple[Part, ...]:
        """Of the category with the strongest evidence."""
        leader = self.leader
        return (Part(f"multinomial_sr(category {leader})", self._log_part(leader)),)

    def state(self) -> State:
        """JSON; `from_state` takes it back."""
        found: dict[str, Any] = {"count": self.count}
        if self.mixture is None:
            return found | {"sums": self._sums, "squares": self._squares}
        return found | {"null": self._null, "mixture": self.mixture.state()}

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Goes on from a state."""
        found = cls(len(state["null"] if "null" in state else state["sums"]))
        found.count = state["count"]
        if "null" in state:
            found._arm([list(null) for null in state["null"]])
            assert found.mixture is not None
            found.mixture.restore(state["mixture"])
        else:
            found._sums, found._squares = list(state["sums"]), list(state["squares"])
        return found
