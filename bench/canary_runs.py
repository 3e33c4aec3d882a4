"""The canary's tests for many runs at once, and the rules it is compared with.

A copy of `penstock_retrain.canary` in arrays; tests/unit/retrain/canary/test_many_runs.py shows
that both say the same. Runs are columns; blocks come one after another, each looked at.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from penstock_retrain.canary.betting import LARGEST_LOSS, Spread
from penstock_retrain.canary.comparison import PRIOR, Question, design
from penstock_retrain.canary.config import MetricSpec

__all__ = ["NEVER", "Alive", "Batch", "Bets", "Comparisons", "Rivals", "first"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Kept = npt.NDArray[np.bool_]
NEVER = np.iinfo(np.int64).max
# Wealth beyond which nothing is decided any more; keeps products finite.
RICHEST = 1e200


@dataclasses.dataclass(frozen=True)
class Batch:
    """One block of every run: sums of its scores, and of their squares.

    Attributes:
        sizes: Values of the champion and of the candidate.
        sums: Of each; arrays over runs.
        squares: Of each.
    """

    sizes: tuple[int, int]
    sums: tuple[Floats, Floats]
    squares: tuple[Floats, Floats]


@dataclasses.dataclass
class Alive:
    """How many runs go on; read by whoever draws their values."""

    runs: int


def first(reached: npt.NDArray[np.bool_], when: Ints, now: int) -> None:
    """Writes `now` where it is reached and was not before."""
    when[reached & (when == NEVER)] = now


class Bets:
    """`betting.Bets` of every run."""

    def __init__(self, runs: int, null: float, shift: float, spread: Spread) -> None:
        self.null = null
        self.shifts = [min(1.0, multiple * shift) for multiple, _ in spread]
        self.wealth = [np.full(runs, part) for _, part in spread]
        self.e = np.ones(runs)
        self.peak = np.ones(runs)

    def settle(self, difference: Floats, variance: Floats) -> None:
        """Takes a difference of every run."""
        payoff = difference - self.null
        # A payoff of 0 leaves wealth as it is; answers that are right or wrong mostly tie.
        moved = np.flatnonzero(payoff)
        payoff, variance = payoff[moved], variance[moved]
        cap = LARGEST_LOSS / (1.0 + self.null)
        total = np.zeros(len(moved))
        for wealth, shift in zip(self.wealth, self.shifts, strict=True):
            stake = np.minimum(shift / (variance + shift * shift), cap)
            rest = np.minimum(wealth[moved] * (1.0 + stake * payoff), RICHEST)
            wealth[moved] = rest
            total += rest
        self.e[moved] = total
        np.maximum(self.peak, self.e, out=self.peak)

    def keep(self, runs: Kept) -> None:
        """Goes on with some of the runs."""
        self.wealth = [wealth[runs] for wealth in self.wealth]
        self.e, self.peak = self.e[runs], self.peak[runs]


class Moments:
    """`comparison.Moments` of every run; the counts are the same in all."""

    def __init__(self, runs: int, guess: float) -> None:
        self.guess, self.count = guess, 0
        self.sum, self.square = np.zeros(runs), np.zeros(runs)

    def add(self, count: int, total: Floats, squares: Floats) -> None:
        """Takes some values' sums."""
        self.count += count
        self.sum += total
        self.square += squares

    @property
    def variance(self) -> Floats:
        """Of one value."""
        if not self.count:
            return np.full_like(self.sum, self.guess)
        spread = self.square - self.sum * self.sum / self.count
        return (PRIOR * self.guess + np.maximum(0.0, spread)) / (PRIOR + self.count)

    def keep(self, runs: Kept) -> None:
        """Goes on with some of the runs."""
        self.sum, self.square = self.sum[runs], self.square[runs]


class Comparisons:
    """`comparison.Comparison` of every run, with the tests that are asked for."""

    def __init__(self, runs: int, metric: MetricSpec, questions: Iterable[Question]) -> None:
        mean = 0.5 if metric.expected is None else metric.expected
        guess = max(mean * (1.0 - mean), 0.005)
        self.arms = (Moments(runs, guess), Moments(runs, guess))
        self.pairs = Moments(runs, 2.0 * guess)
        self.tests = {question: Bets(runs, *design(metric, question)) for question in questions}

    def settle_block(self, block: Batch) -> None:
        """Takes a block of every run."""
        (before, after), (of_champion, of_candidate) = block.sizes, block.sums
        variance = self.arms[0].variance / before + self.arms[1].variance / after
        self._bet(of_candidate / after - of_champion / before, variance)
        for arm, size, total, squares in zip(
            self.arms, block.sizes, block.sums, block.squares, strict=True
        ):
            arm.add(size, total, squares)

    def settle_pair(self, difference: Floats) -> None:
        """Takes a pair of every run."""
        self._bet(difference, self.pairs.variance)
        self.pairs.add(1, difference, difference * difference)

    def keep(self, runs: Kept) -> None:
        """Goes on with some of the runs."""
        for moments in (*self.arms, self.pairs):
            moments.keep(runs)
        for test in self.tests.values():
            test.keep(runs)

    def _bet(self, difference: Floats, variance: Floats) -> None:
        for question, test in self.tests.items():
            test.settle(-difference if question is Question.HARM else difference, variance)


class Rivals:
    """The rules it is compared with, for one value an arm at a time that is right or wrong.

    The stopping rule is TensorZero's (track_and_stop/check_stopping.rs at 21455f77, archived):
    with means m, sample variances s^2 (at least 1e-12) and n values an arm, t = 2 n in all, it
    declares the leader where

        (m_1 - m_2)^2 / (2 (s_1^2 / n + s_2^2 / n)) > ln((1 + ln t) / delta),   n >= 10.

    Its own sampling is adaptive, and it looks every five minutes; here arms are sampled equally,
    and each pair is looked at. The z-test pools the variance.
    """

    LEAST = 10

    def __init__(self, runs: int) -> None:
        self.count = 0
        self.sums = (np.zeros(runs), np.zeros(runs))
        # Largest excess of the rule's statistic over ln(1 + ln t), by who led: compared with
        # ln(1 / delta) for any delta.
        self.excess = {"candidate": np.full(runs, -np.inf), "champion": np.full(runs, -np.inf)}
        self.z = np.zeros(runs)

    def settle(self, champion: Floats, candidate: Floats) -> tuple[Floats, Floats]:
        """Takes a value of each arm; returns the rule's excess and z, both signed by who leads."""
        self.count += 1
        n = self.count
        for total, values in zip(self.sums, (champion, candidate), strict=True):
            total += values
        means = [total / n for total in self.sums]
        gap = means[1] - means[0]
        if n < 2:
            return np.full_like(gap, -np.inf), self.z
        variances = [np.maximum(mean * (1.0 - mean) * n / (n - 1), 1e-12) for mean in means]
        pooled = (means[0] + means[1]) / 2.0
        self.z = gap / np.sqrt(np.maximum(2.0 * pooled * (1.0 - pooled) / n, 1e-12))
        if n < self.LEAST:
            return np.full_like(gap, -np.inf), self.z
        statistic = gap * gap * n / (2.0 * (variances[0] + variances[1]))
        excess = statistic - math.log(1.0 + math.log(2.0 * n))
        for leader, leads in (("candidate", gap > 0), ("champion", gap < 0)):
            best = self.excess[leader]
            np.maximum(best, np.where(leads, excess, -np.inf), out=best)
        return excess, self.z
