"""E-detector of where counts over many bins are going: one bet along the way they took. Pure.

A new vocabulary moves fifty bins a little and none by much. Bets on each bin alone have to see one
of them move; this one sums up what all of them do.
"""

from __future__ import annotations

import base64
import math
import sys
from array import array
from collections.abc import Sequence
from operator import mul
from statistics import NormalDist
from typing import Any, Self

from penstock_drift.detectors.bounds import AIM, CONFIDENCE
from penstock_drift.detectors.mixture import Mixture
from penstock_drift.detectors.protocols import Part, State

__all__ = ["Heading", "Shares"]

# Index and share of each bin that a value has; the shares of a value sum to 1.
Shares = Sequence[tuple[int, float]]

# Values that the direction is taken from, about; of 100 to 800 it sees changes soonest, small ones
# and large ones.
WINDOW = 200
# It changes once in so many values.
BLOCK = 25
# Part of the baseline that fixes centre and scale; the rest bounds the mean.
CENTRING = 0.2
# A share's deviation, at least: what is hardly ever there has hardly any. And at least this part of
# its mean, or the centre of what is always there would lie outside what an offset can say.
LEAST_DEVIATION, LEAST_PART = 0.005, 1 / 6
# Points are drawn in to this length at least: a few bins that hardly vary say little about how far
# something new lies.
LEAST_RADIUS = 4.0
# A bet's largest loss by one value, and what smaller stakes are beside it.
LARGEST_LOSS = 0.9
SMALL = 1 / 3
# What scales, offsets and means are whole multiples of. Any units serve, these keep states small.
SCALE_STEP, OFFSET_STEP, MEAN_STEP, HEADING_STEP = 0.125, 0.05, 0.01, 0.2
# Shares are summed in whole parts of it.
PARTS = 1000


class Heading:
    """Bets that the next value lies in the direction in which the latest ones did.

    With centre c and scale s by bin from the first part of the baseline, a value x is the point
    z = (x - c) s, drawn in to the length R where it is longer: the root mean square of such
    lengths. The rest of the baseline gives the points' mean m and the bound e of |E z - m|. Then,
    for a direction u of length 1 that was known before,

        y = <u, z - m>,     factor = 1 + stake (y - e),     0 <= stake < 1 / (R + |m| + e)

    is not negative, and of mean at most 1 as long as the points' mean, given the past, stays
    within e of m, whatever u is: so u may follow the data. It is that of the exponentially weighted
    mean of the points before. There are two stakes. Betting on a mean is that of
    Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS-B 2024,
    section 4; a bet by what was learnt from earlier values is the predictable plug-in of its
    section 3, and for a direction that of Shekhar and Ramdas, "Nonparametric two-sample testing by
    betting", IEEE Transactions on Information Theory 2023, section 3.

    The bound: n |m - E z|^2 is about a sum of chi-squares, weighted by the eigenvalues of the
    points' covariance S. Its quantile is that of tr(S) / v times a chi-square of
    v = tr(S)^2 / tr(S^2) degrees (Box, "Some theorems on quadratic forms", Annals of Mathematical
    Statistics 25, 1954, theorem 3.1; the quantile by Wilson and Hilferty, PNAS 17, 1931). tr(S^2)
    is the mean of <z, z'>^2 over pairs of values. And e is no less than what points too rare to
    have been seen could add, by the rule of three as in `bounds.upper_mean`.

    Args:
        size: Bins.
        baseline: How many values there will be.
    """

    def __init__(self, size: int, baseline: int) -> None:
        self.mixture: Mixture | None = None
        self.count = 0
        self.size = size
        # The last tested value's place along the direction, in deviations.
        self.along = 0.0
        self._baseline = baseline
        self._centring = max(20, int(CENTRING * baseline))
        # By bin: of the first part sums of shares and of their squares, of the rest of drawn-in
        # shares; in whole parts.
        self._sums = [0] * size
        self._squares = [0] * size
        self._drawn = 0
        self._length = 0.0
        self._pairs = [0.0, 0.0]
        # A point that waits for another to make a pair: its factor, and its scaled shares.
        self._previous: tuple[float, Shares] | None = None
        self._steps: tuple[array[int], array[int]] | None = None
        self._scale: list[float] = []
        self._offset: list[float] = []
        self._still = 0.0
        self._radius = 0.0
        self._mean_steps: array[int] = array("b")
        self._mean: list[float] = []
        self._slack = 0.0
        self._heading: array[int] = array("h")
        # The direction, all zeros for none, and its products with the offset and the mean.
        self._way: list[float] = []
        self._way_still = self._way_mean = 0.0
        self._stakes: tuple[float, ...] = ()
        self._block = [0] * size
        self._block_drawn = 0
        self._filled = 0

    def learn(self, value: Shares) -> None:
        """Takes a value of the baseline."""
        self.count += 1
        if self._steps is None:
            for index, share in value:
                part = round(PARTS * share)
                self._sums[index] += part
                self._squares[index] += part * part
            if self.count >= self._centring:
                self._centre()
            return
        length, scaled = self._placed(value)
        factor = self._factor(length)
        self._length += factor * factor * length
        for index, share in value:
            self._sums[index] += int(PARTS * factor * share + 0.5)
        self._drawn += int(PARTS * factor + 0.5)
        point = factor, [(index, round(factor * place, 3)) for index, place in scaled]
        if self._previous is None:
            self._previous = point
            return
        self._pairs[0] += 1
        self._pairs[1] += self._product(self._previous, point) ** 2
        self._previous = None

    def _centre(self) -> None:
        scales, offsets = array("b"), array("b")
        trace = 0.0
        for total, square in zip(self._sums, self._squares, strict=True):
            mean = total / self.count / PARTS
            variance = max(0.0, square / self.count / PARTS**2 - mean * mean)
            deviation = max(math.sqrt(variance), LEAST_DEVIATION, mean * LEAST_PART)
            step = round(-math.log2(deviation) / SCALE_STEP)
            scales.append(min(127, max(0, step)))
            scale = 2.0 ** (scales[-1] * SCALE_STEP)
            offsets.append(max(-127, min(127, round(-mean * scale / OFFSET_STEP))))
            trace += variance * scale * scale
        self._sums, self._squares = [0] * self.size, []
        self._fix(scales, offsets, max(LEAST_RADIUS, float(f"{math.sqrt(trace):.6g}")))

    def _fix(self, scales: array[int], offsets: array[int], radius: float) -> None:
        self._steps = scales, offsets
        self._scale = [2.0 ** (step * SCALE_STEP) for step in scales]
        self._offset = [step * OFFSET_STEP for step in offsets]
        self._still = sum(each * each for each in self._offset)
        self._radius = radius

    def _placed(self, value: Shares) -> tuple[float, list[tuple[int, float]]]:
        """The squared length of a value's point, and its scaled shares by bin."""
        length, scaled = self._still, []
        for index, share in value:
            place = self._scale[index] * share
            length += place * (place + 2 * self._offset[index])
            scaled.append((index, place))
        return max(length, 0.0), scaled

    def _factor(self, length: float) -> float:
        return 1.0 if length <= self._radius**2 else self._radius / math.sqrt(length)

    def _product(self, one: tuple[float, Shares], other: tuple[float, Shares]) -> float:
        """Of two points, each by its factor and its scaled shares."""
        places = dict(one[1])
        found = one[0] * other[0] * self._still
        found += other[0] * sum(place * self._offset[index] for index, place in one[1])
        for index, place in other[1]:
            found += place * (one[0] * self._offset[index] + places.get(index, 0.0))
        return found

    def arm(self) -> None:
        """Fixes the null."""
        if self._steps is None:
            self._centre()
        count = max(1, self.count - self._centring)
        points = [
            (scale * total + offset * self._drawn) / PARTS / count
            for scale, offset, total in zip(self._scale, self._offset, self._sums, strict=True)
        ]
        limit = 127 * MEAN_STEP
        steps = array("b", (round(min(limit, max(-limit, x)) / MEAN_STEP) for x in points))
        trace = max(self._length / count - sum(x * x for x in points), 1e-6)
        pairs, products = self._pairs
        # From 1 to as many as there are bins, whatever so few pairs say.
        degrees = trace * trace * pairs / products if products > 0 else 1.0
        degrees = min(self.size, max(1.0, degrees))
        slack = math.sqrt(trace / count * _spread(degrees))
        rare = self._radius * min(1.0, -math.log(1 - CONFIDENCE) / count)
        # What the mean loses as whole steps is left open too.
        lost = sum((x - step * MEAN_STEP) ** 2 for x, step in zip(points, steps, strict=True))
        slack = max(slack, rare) + math.sqrt(lost)
        self._sums, self._previous = [], None
        self._arm(steps, math.ceil(slack * 1e4) / 1e4, array("h", [0] * self.size))

    def _arm(self, mean: array[int], slack: float, heading: array[int]) -> None:
        self._mean_steps, self._slack, self._heading = mean, slack, heading
        self._mean = [step * MEAN_STEP for step in mean]
        length = math.sqrt(sum(each * each for each in self._mean))
        largest = LARGEST_LOSS / (self._radius + length + slack)
        self._stakes = (largest, largest * SMALL)
        self.mixture = Mixture([1 / len(self._stakes)] * len(self._stakes))
        self._turn()

    def _turn(self) -> None:
        """Takes the direction from the heading."""
        length = math.sqrt(sum(step * step for step in self._heading))
        self._way = [step / (length or 1.0) for step in self._heading]
        self._way_still = sum(map(mul, self._way, self._offset))
        self._way_mean = sum(map(mul, self._way, self._mean))

    def update(self, value: Shares) -> None:
        """Takes a value to be tested."""
        assert self.mixture is not None
        scale, offset, way, block = self._scale, self._offset, self._way, self._block
        # As `_placed`, and the place along the way, in one go: there are many bins.
        length, along = self._still, self._way_still
        for index, share in value:
            place = scale[index] * share
            length += place * (place + 2 * offset[index])
            along += way[index] * place
        factor = self._factor(length)
        self.along = factor * along - self._way_mean
        # Without a direction yet it loses a little: a bet of 1 would grow by the mere time.
        gain = self.along - self._slack
        self.mixture.update([1 + stake * gain for stake in self._stakes])
        parts = PARTS * factor
        for index, share in value:
            block[index] += int(parts * share + 0.5)
        self._block_drawn += int(parts + 0.5)
        self._filled += 1
        if self._filled == BLOCK:
            self._follow()

    def _follow(self) -> None:
        """Turns the heading by the block that is full."""
        parts = zip(self._scale, self._offset, self._block, self._mean, strict=True)
        moved = [
            (scale * total + offset * self._block_drawn) / PARTS - self._filled * mean
            for scale, offset, total, mean in parts
        ]
        self._heading = array(
            "h",
            (
                _within(step - round(step * BLOCK / WINDOW) + round(by / HEADING_STEP))
                for step, by in zip(self._heading, moved, strict=True)
            ),
        )
        self._block, self._block_drawn, self._filled = [0] * self.size, 0, 0
        self._turn()

    def parts(self) -> tuple[Part, ...]:
        """The one bet's."""
        assert self.mixture is not None
        return (Part(f"heading_sr({self.size} bins)", self.mixture.log_evidence),)

    def state(self) -> State:
        """JSON; `from_state` takes it back."""
        found: dict[str, Any] = {"count": self.count, "size": self.size, "of": self._baseline}
        if self._steps is None:
            return found | {"sums": self._sums, "squares": self._squares}
        scales, offsets = self._steps
        found["units"] = [_packed(scales), _packed(offsets), self._radius]
        if self.mixture is None:
            return found | {
                "sums": self._sums,
                "rest": [self._drawn, self._length, self._pairs, self._previous],
            }
        return found | {
            "null": [_packed(self._mean_steps), self._slack],
            "heading": _packed(self._heading),
            "block": [_packed(array("h", self._block)), self._block_drawn, self._filled],
            "mixture": self.mixture.state(),
        }

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Goes on from a state."""
        found = cls(state["size"], state["of"])
        found.count = state["count"]
        if "units" not in state:
            found._sums, found._squares = list(state["sums"]), list(state["squares"])
            return found
        scales, offsets, radius = state["units"]
        found._squares = []
        found._fix(_unpacked("b", scales), _unpacked("b", offsets), radius)
        if "null" not in state:
            found._sums = list(state["sums"])
            found._drawn, found._length, pairs, previous = state["rest"]
            found._pairs = list(pairs)
            if previous is not None:
                found._previous = previous[0], [(index, place) for index, place in previous[1]]
            return found
        mean, slack = state["null"]
        found._arm(_unpacked("b", mean), slack, _unpacked("h", state["heading"]))
        block, found._block_drawn, found._filled = state["block"]
        found._block = list(_unpacked("h", block))
        assert found.mixture is not None
        found.mixture.restore(state["mixture"])
        return found


def _spread(degrees: float) -> float:
    """The upper quantile of a chi-square over its degrees, at `AIM`."""
    part = 2 / (9 * degrees)
    quantile: float = (1 - part + NormalDist().inv_cdf(AIM) * math.sqrt(part)) ** 3
    return quantile


def _within(step: int) -> int:
    return max(-32767, min(32767, step))


def _packed(numbers: array[int]) -> str:
    # Machines differ in the order of a number's bytes.
    little = array(numbers.typecode, numbers)
    if sys.byteorder == "big":
        little.byteswap()
    return base64.b64encode(little.tobytes()).decode("ascii")


def _unpacked(typecode: str, text: str) -> array[int]:
    found: array[int] = array(typecode)
    found.frombytes(base64.b64decode(text))
    if sys.byteorder == "big":
        found.byteswap()
    return found
