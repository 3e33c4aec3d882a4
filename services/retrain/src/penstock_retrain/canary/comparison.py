"""One metric's evidence: its tests, fed by blocks of the split and by pairs on one prompt. Pure.

Blocks and pairs bet with the same capital, one after another in the order they are completed, and
over all traffic steps: e-values are carried, never restarted ("optional continuation": Gruenwald,
de Heide, Koolen, "Safe testing", JRSS-B 86 (2024), section 1). A pair is an answer of each arm to
the same prompt: its values may depend on each other in any way, and what both arms find hard or
easy cancels.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any, Self, assert_never

from penstock_retrain.canary.betting import OF_HARM, OF_PROMOTION, Bets, Spread
from penstock_retrain.canary.config import Arm, Goal, MetricSpec

__all__ = ["PRIOR", "Comparison", "Moments", "Question", "design"]

# Values that the variance's first guess counts for. A stretch of right answers would else pass for
# a metric without variance, and be bet on too boldly.
PRIOR = 20.0


class Question(StrEnum):
    """A one-sided question about candidate minus champion, in mean scores."""

    HARM = "harm"  # null: at least -harm_margin
    NON_INFERIORITY = "non_inferiority"  # null: at most -margin
    GAIN = "gain"  # null: at most 0


def design(metric: MetricSpec, question: Question) -> tuple[float, float, Spread]:
    """The null, the shift above it that is looked for, and how the capital is divided.

    Of HARM the difference is turned round: champion minus candidate.
    """
    match question:
        case Question.HARM:
            return metric.harm_margin, metric.effect, OF_HARM
        case Question.GAIN:
            return 0.0, metric.effect, OF_PROMOTION
        case Question.NON_INFERIORITY:
            # If the candidate is equal, it is above the null by the margin.
            return -metric.margin, metric.margin, OF_PROMOTION
    assert_never(question)


class Moments:
    """Count, mean and variance of settled values; the variance drawn to a first guess."""

    def __init__(self, guess: float) -> None:
        self._guess = guess
        self.count = 0
        self._sum = 0.0
        self._square = 0.0

    def add(self, value: float) -> None:
        """Takes a value."""
        self.count += 1
        self._sum += value
        self._square += value * value

    @property
    def mean(self) -> float | None:
        """None before the first."""
        return self._sum / self.count if self.count else None

    @property
    def variance(self) -> float:
        """Of one value; above 0."""
        spread = self._square - self._sum * self._sum / self.count if self.count else 0.0
        return (PRIOR * self._guess + max(0.0, spread)) / (PRIOR + self.count)

    def state(self) -> list[float]:
        """JSON; `restored` takes it back."""
        return [self.count, self._sum, self._square]

    def restored(self, state: list[float]) -> Self:
        """Goes on from a state; returns itself."""
        self.count, self._sum, self._square = int(state[0]), state[1], state[2]
        return self


class Comparison:
    """Evidence about one metric.

    Args:
        metric: Which.
        goal: Of the primary metric what is to be shown; of a guardrail its non-inferiority.
    """

    def __init__(self, metric: MetricSpec, goal: Goal = Goal.NON_INFERIORITY) -> None:
        # A mean that nobody knows: the largest variance. One that is known: of an answer that is
        # right or wrong, the largest with that mean; not 0, or one surprise would ruin the bets.
        mean = 0.5 if metric.expected is None else metric.expected
        guess = max(mean * (1.0 - mean), 0.005)
        self.arms = {arm: Moments(guess) for arm in Arm}
        self.pairs = Moments(2.0 * guess)
        shown = Question.GAIN if goal is Goal.GAIN else Question.NON_INFERIORITY
        self.tests = {
            question: Bets(*design(metric, question)) for question in (Question.HARM, shown)
        }

    def settle_block(self, champion: list[float], candidate: list[float]) -> None:
        """Takes the scores of a full block."""
        variance = self.arms[Arm.CHAMPION].variance / len(champion)
        variance += self.arms[Arm.CANDIDATE].variance / len(candidate)
        difference = math.fsum(candidate) / len(candidate) - math.fsum(champion) / len(champion)
        self._bet(difference, variance)
        for arm, scores in ((Arm.CHAMPION, champion), (Arm.CANDIDATE, candidate)):
            for score in scores:
                self.arms[arm].add(score)

    def settle_pair(self, champion: float, candidate: float) -> None:
        """Takes the scores of two answers to one prompt."""
        self._bet(candidate - champion, self.pairs.variance)
        self.pairs.add(candidate - champion)

    def _bet(self, difference: float, variance: float) -> None:
        for question, test in self.tests.items():
            test.settle(-difference if question is Question.HARM else difference, variance)

    def count(self, arm: Arm) -> int:
        """Settled values of the arm, those of pairs included."""
        return self.arms[arm].count + self.pairs.count

    @property
    def difference(self) -> float | None:
        """The mean difference, blocks and pairs by their precision; None before any."""
        found = []
        champion, candidate = self.arms[Arm.CHAMPION], self.arms[Arm.CANDIDATE]
        if champion.mean is not None and candidate.mean is not None:
            variance = champion.variance / champion.count + candidate.variance / candidate.count
            found.append((candidate.mean - champion.mean, 1.0 / variance))
        if self.pairs.mean is not None:
            found.append((self.pairs.mean, self.pairs.count / self.pairs.variance))
        if not found:
            return None
        return sum(mean * weight for mean, weight in found) / sum(weight for _, weight in found)

    def state(self) -> dict[str, Any]:
        """JSON; `restored` takes it back."""
        return {
            "arms": {arm.value: moments.state() for arm, moments in self.arms.items()},
            "pairs": self.pairs.state(),
            "tests": {question.value: test.state() for question, test in self.tests.items()},
        }

    def restored(self, state: dict[str, Any]) -> Self:
        """Goes on from a state; returns itself."""
        for arm, moments in self.arms.items():
            moments.restored(state["arms"][arm.value])
        self.pairs.restored(state["pairs"])
        for question, test in self.tests.items():
            test.restored(state["tests"][question.value])
        return self
