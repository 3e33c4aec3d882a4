"""E-detector of a point: of where a topic's projection lies. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

from penstock_drift.detectors.bounds import upper_mean
from penstock_drift.detectors.mixture import Mixture
from penstock_drift.detectors.protocols import Part, State

__all__ = ["DIMENSIONS", "Point"]

# Further ones are not looked at: of a random projection the first tell as much as any.
DIMENSIONS = 8
# The tilt of each dimension, either way, in deviations.
SHIFT = 0.5
# Values are clipped to so many deviations.
LIMIT = 4.0
# Part of the baseline that fixes centre and scale; the rest bounds the tilts' means.
CENTRING = 0.25


class Point:
    """For each dimension the bets of `gaussian` on a shift either way, in equal parts.

    The first quarter of the baseline gives each dimension's centre and scale, which are no more
    than units; the rest bounds the mean of each tilt, at 95 % for all
    of them together.

    Args:
        size: Dimensions of the values; the first `DIMENSIONS` are used.
        baseline: How many values there will be.
    """

    def __init__(self, size: int, baseline: int) -> None:
        self.mixture: Mixture | None = None
        self.count = 0
        self.size = min(size, DIMENSIONS)
        self._baseline = baseline
        self._sums = [0.0] * self.size
        self._squares = [0.0] * self.size
        # Centre and one over the scale, by dimension.
        self._units: list[tuple[float, float]] = []
        self._tilts = [[0.0, 0.0] for _ in range(2 * self.size)]
        self._divisors: list[float] = []

    @property
    def centred(self) -> bool:
        """Whether centre and scale are known."""
        return bool(self._units)

    def scaled(self, value: Sequence[float]) -> list[float]:
        """The dimensions in deviations from their centres, clipped; when centred."""
        return [
            min(LIMIT, max(-LIMIT, (x - centre) * scale))
            for x, (centre, scale) in zip(value, self._units, strict=False)
        ]

    def learn(self, value: Sequence[float]) -> None:
        """Takes a value of the baseline."""
        self.count += 1
        if not self._units:
            for index in range(self.size):
                self._sums[index] += value[index]
                self._squares[index] += value[index] * value[index]
            if self.count >= max(2, int(CENTRING * self._baseline)):
                self._centre()
            return
        for sums, factor in zip(self._tilts, _tilts(self.scaled(value)), strict=True):
            sums[0] += factor
            sums[1] += factor * factor

    def _centre(self) -> None:
        for total, square in zip(self._sums, self._squares, strict=True):
            mean = total / self.count
            deviation = math.sqrt(max(0.0, square / self.count - mean * mean))
            # Units need no more digits than these, and states are small.
            scale = 1.0 / max(deviation, 1e-6)
            self._units.append((float(f"{mean:.6g}"), float(f"{scale:.6g}")))
        self._sums = self._squares = []

    def arm(self) -> None:
        """Fixes the null."""
        count = max(1, self.count - max(2, int(CENTRING * self._baseline)))
        bounds = []
        for total, square in self._tilts:
            mean = total / count
            deviation = math.sqrt(max(0.0, square / count - mean * mean))
            bounds.append(upper_mean(mean, deviation, math.exp(SHIFT * LIMIT), count, self.size))
        # Five digits, on the side that leaves the null no smaller: states are small.
        self._arm([math.floor(1e5 / bound) / 1e5 for bound in bounds])

    def _arm(self, divisors: list[float]) -> None:
        self._divisors = divisors
        self.mixture = Mixture([1 / len(divisors)] * len(divisors))

    def update(self, value: Sequence[float]) -> None:
        """Takes a value to be tested."""
        assert self.mixture is not None
        tilts = _tilts(self.scaled(value))
        self.mixture.update([t * d for t, d in zip(tilts, self._divisors, strict=True)])

    @property
    def leader(self) -> int:
        """The dimension with the strongest evidence."""
        return max(range(self.size), key=self._log_part)

    def _log_part(self, index: int) -> float:
        assert self.mixture is not None
        return self.mixture.log_part(slice(2 * index, 2 * index + 2))

    def parts(self) -> tuple[Part, ...]:
        """Of the dimension with the strongest evidence."""
        leader = self.leader
        return (Part(f"vector_sr(dimension {leader})", self._log_part(leader)),)

    def state(self) -> State:
        """JSON; `from_state` takes it back."""
        found: dict[str, Any] = {"count": self.count, "size": self.size, "of": self._baseline}
        if self._units:
            found["units"] = [list(unit) for unit in self._units]
        else:
            found |= {"sums": self._sums, "squares": self._squares}
        if self.mixture is not None:
            return found | {"null": self._divisors, "mixture": self.mixture.state()}
        return found | {"tilts": self._tilts if self._units else []}

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Goes on from a state."""
        found = cls(state["size"], state["of"])
        found.count = state["count"]
        found._units = [(centre, scale) for centre, scale in state.get("units", ())]
        found._sums, found._squares = list(state.get("sums", ())), list(state.get("squares", ()))
        if "null" in state:
            found._arm(list(state["null"]))
            assert found.mixture is not None
            found.mixture.restore(state["mixture"])
        elif state["tilts"]:
            found._tilts = [list(sums) for sums in state["tilts"]]
        return found


def _tilts(scaled: Sequence[float]) -> list[float]:
    """f(z) of every bet: up and down of each dimension in turn."""
    found: list[float] = []
    for z in scaled:
        up = math.exp(SHIFT * z)
        found += (up, 1.0 / up)
    return found
