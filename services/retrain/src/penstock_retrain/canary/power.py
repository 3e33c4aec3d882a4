"""What a canary of some size will be able to tell: shown before it starts. Pure.

An approximation: the logarithm of one bet's wealth is taken for a Brownian motion with the mean
and the variance of its increments, computed for answers that are right or wrong (of all scores with
a mean, those vary most). The probability that such a motion with drift m and variance s^2 a block
reaches b within n blocks is

    Phi((m n - b) / (s sqrt n)) + exp(2 m b / s^2) Phi((-b - m n) / (s sqrt n))

(Siegmund, "Sequential Analysis", 1985, chapter III). The evidence is at least each bet's part of
it, so the largest of the bets' probabilities is taken: a little too low rather than too high.
bench/CANARY.md compares it with simulation.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from penstock_retrain.canary.betting import stake
from penstock_retrain.canary.comparison import PRIOR, Question, design
from penstock_retrain.canary.config import CanaryConfig, Goal, MetricSpec

__all__ = ["Prospect", "Step", "equal_blocks", "power", "prospects", "smallest_effect"]

POWER = 0.8


@dataclasses.dataclass(frozen=True)
class Step:
    """A traffic step as planned.

    Attributes:
        share: The candidate's, in (0, 1).
        values: Answers with a value of the metric, of both arms.
    """

    share: float
    values: int


@dataclasses.dataclass(frozen=True)
class Prospect:
    """What will be known at the end of a step.

    Attributes:
        share: The step's share of the candidate.
        champion: Values of the champion since the canary began, pairs included; likewise
            `candidate`.
        candidate: See `champion`.
        harm: The smallest harm, in mean scores, that is rolled back with probability 0.8 by then;
            None: none is.
        gain: Goal.GAIN: the smallest gain that is promoted with probability 0.8 by then.
        promotes_equal: Goal.NON_INFERIORITY: the probability that an equal candidate is promoted.
    """

    share: float
    champion: int
    candidate: int
    harm: float | None
    gain: float | None
    promotes_equal: float | None


def equal_blocks(steps: Sequence[Step]) -> float:
    """Blocks of one value an arm that tell as much as the steps do.

    A difference of means has the variance v (1 / n + 1 / m); precisions of steps add up.
    """
    return sum(2.0 * step.values * step.share * (1.0 - step.share) for step in steps)


def power(
    metric: MetricSpec,
    question: Question,
    *,
    level: float,
    mean: float,
    difference: float,
    blocks: float,
) -> float:
    """Probability that the test has rejected its null by then, looked at after every block.

    Args:
        metric: Its effect, margins and scale.
        question: Which test.
        level: Its level.
        mean: The champion's mean score, in [0, 1].
        difference: The candidate's mean score minus the champion's.
        blocks: Of one value an arm (`equal_blocks`).
    """
    candidate = min(1.0, max(0.0, mean + difference))
    rise, fall = candidate * (1.0 - mean), (1.0 - candidate) * mean
    null, shift, spread = design(metric, question)
    if question is Question.HARM:
        rise, fall = fall, rise
    if blocks <= 0.0:
        return 0.0
    # The estimate of the variance, half way.
    known = metric.expected if metric.expected is not None else 0.5
    guess, weight = 2.0 * max(known * (1.0 - known), 0.005), blocks / 2.0
    truth = mean * (1.0 - mean) + candidate * (1.0 - candidate)
    variance = (PRIOR * guess + weight * truth) / (PRIOR + weight)
    best = 0.0
    for multiple, part in spread:
        bet = stake(min(1.0, multiple * shift), variance, null)
        outcomes = (
            (rise, math.log1p(bet * (1.0 - null))),
            (1.0 - rise - fall, math.log1p(-bet * null)),
            (fall, math.log1p(bet * (-1.0 - null))),
        )
        drift = sum(chance * gain for chance, gain in outcomes)
        noise = sum(chance * (gain - drift) ** 2 for chance, gain in outcomes)
        best = max(best, _reaches(-math.log(level * part), drift, noise, blocks))
    return best


def _reaches(height: float, drift: float, variance: float, time: float) -> float:
    """P(a Brownian motion reaches the height by the time)."""
    deviation = math.sqrt(variance * time)
    if deviation == 0.0:
        return float(drift * time >= height)
    straight = _normal((drift * time - height) / deviation)
    below = (-height - drift * time) / deviation
    # Where the exponent is large the other factor is smaller still: together at most 1.
    log_reflected = 2.0 * drift * height / variance + _log_normal(below)
    return min(1.0, straight + math.exp(min(0.0, log_reflected)))


def _normal(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def _log_normal(z: float) -> float:
    if z > -30.0:
        return math.log(_normal(z))
    return -z * z / 2.0 - math.log(-z * math.sqrt(2.0 * math.pi))


def smallest_effect(power_at: Callable[[float], float], limit: float) -> float | None:
    """The smallest size in (0, limit] at which the power is 0.8; None where it never is.

    Args:
        power_at: Power by size, rising.
        limit: The largest size there can be.
    """
    if limit <= 0.0 or power_at(limit) < POWER:
        return None
    low, high = 0.0, limit
    while high - low > 1e-5:
        middle = (low + high) / 2.0
        low, high = (low, middle) if power_at(middle) >= POWER else (middle, high)
    return high


def prospects(
    config: CanaryConfig,
    mean: float,
    steps: Sequence[Step],
    *,
    pairs: int = 0,
    discordant: float | None = None,
) -> tuple[Prospect, ...]:
    """What the primary metric will tell by the end of each step.

    Args:
        config: What is asked.
        mean: The champion's mean score before the canary.
        steps: Traffic steps, in order.
        pairs: Prompts that both arms will have answered before the first step.
        discordant: Share of those that only one of them answers right; None: as if their answers
            were independent, which is cautious.
    """
    independent = 2.0 * mean * (1.0 - mean)
    paired = pairs * (independent / discordant if discordant else 1.0)
    found = []
    metric, levels = config.primary, config.levels
    for end in range(1, len(steps) + 1):
        done = steps[:end]
        blocks = paired + equal_blocks(done)

        def chance(question: Question, level: float, difference: float, n: float = blocks) -> float:
            return power(metric, question, level=level, mean=mean, difference=difference, blocks=n)

        harm = smallest_effect(lambda size: chance(Question.HARM, levels.harm, -size), mean)
        gain = equal = None
        if config.goal is Goal.GAIN:
            gain = smallest_effect(
                lambda size: chance(Question.GAIN, levels.promote, size), 1.0 - mean
            )
        else:
            equal = chance(Question.NON_INFERIORITY, levels.promote, 0.0)
        candidates = sum(step.values * step.share for step in done)
        found.append(
            Prospect(
                share=steps[end - 1].share,
                champion=round(pairs + sum(step.values for step in done) - candidates),
                candidate=round(pairs + candidates),
                harm=harm,
                gain=gain,
                promotes_equal=equal,
            )
        )
    return tuple(found)
