"""How a metric's values become scores in [0, 1], of which more is better. Pure.

The tests of `betting` need bounded values, so a metric without a bound is judged through one of
these, fixed before the canary begins; what the test then speaks of is the mean of the score:

- `Bounds`: the value's place between two bounds; a value outside counts as the bound next to it.
- `Limit`: whether the value keeps a limit, say the champion's 95th percentile of latency; the mean
  is the share that keeps it.
- `Rank`: the share of a reference sample that the value beats, ties by half; the mean is the
  probability to beat a value of the reference (Mann and Whitney's).
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Iterable
from typing import Any, Self, assert_never

__all__ = ["UNIT", "Bounds", "Limit", "Rank", "Scale", "scale_from_json", "scale_to_json"]


def _finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; give a finite number")


@dataclasses.dataclass(frozen=True)
class Bounds:
    """A value's place between bounds, for metrics that have some: accuracy, a business value.

    Attributes:
        low: The smallest value, in the metric's unit.
        high: The largest.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        _finite("low", self.low)
        _finite("high", self.high)
        if self.low >= self.high:
            raise ValueError(f"low is {self.low}, high {self.high}; low must be below high")

    def place(self, value: float) -> float:
        """In [0, 1], rising with the value."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


@dataclasses.dataclass(frozen=True)
class Limit:
    """Whether a value is above a limit.

    Attributes:
        limit: In the metric's unit; a value at the limit is not above it.
    """

    limit: float

    def __post_init__(self) -> None:
        _finite("limit", self.limit)

    @classmethod
    def of(cls, reference: Iterable[float], quantile: float = 0.95) -> Self:
        """The smallest value of a reference that at least a share `quantile` does not exceed."""
        values = sorted(reference)
        if not values or not 0.0 < quantile <= 1.0:
            raise ValueError("a limit needs values of the champion, and a quantile in (0, 1]")
        return cls(values[math.ceil(quantile * len(values)) - 1])

    def place(self, value: float) -> float:
        """1 above the limit, else 0."""
        return float(value > self.limit)


@dataclasses.dataclass(frozen=True)
class Rank:
    """A value's mid-rank in a reference sample.

    Attributes:
        reference: Values of the champion from before the canary, rising.
    """

    reference: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.reference or list(self.reference) != sorted(self.reference):
            raise ValueError("reference must hold values of the champion in rising order")

    def place(self, value: float) -> float:
        """In [0, 1], rising with the value."""
        below = bisect.bisect_left(self.reference, value)
        upto = bisect.bisect_right(self.reference, value)
        return (below + upto) / (2 * len(self.reference))


Scale = Bounds | Limit | Rank
UNIT = Bounds()


def scale_to_json(scale: Scale) -> dict[str, Any]:
    """JSON; `scale_from_json` takes it back."""
    match scale:
        case Bounds():
            return {"kind": "bounds", "low": scale.low, "high": scale.high}
        case Limit():
            return {"kind": "limit", "limit": scale.limit}
        case Rank():
            return {"kind": "rank", "reference": list(scale.reference)}
    assert_never(scale)


def scale_from_json(data: dict[str, Any]) -> Scale:
    """From JSON. Raises ValueError where the kind is none of these."""
    match data["kind"]:
        case "bounds":
            return Bounds(data["low"], data["high"])
        case "limit":
            return Limit(data["limit"])
        case "rank":
            return Rank(tuple(data["reference"]))
    raise ValueError(f"scale.kind is {data['kind']!r}; use bounds, limit or rank")
