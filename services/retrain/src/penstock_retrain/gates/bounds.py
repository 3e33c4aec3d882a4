"""Confidence bounds of a mean, one-sided, for a number of examples that is known. Pure.

Both hold at every sample size and for every distribution: nothing is taken to be normal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

__all__ = ["mean_lower", "mean_upper", "share_lower", "share_upper"]

# The largest part of its capital that a bet may lose to one value ("truncation", in [0, 1); any
# fixed one is valid). Metrics are mostly at their end of the scale: bold bets see that soonest.
LARGEST_LOSS = 0.9
STEPS = 60  # of a bisection: the last bit of a double in [0, 1]


def share_lower(hits: int, n: int, level: float) -> float:
    """The lower bound of a probability: hits of n independent trials, exact.

    The largest p for which n trials have so many hits with probability at most `level`: whatever
    the probability, it is below the bound with probability at most `level`. 0 where n is 0.

    Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case
    of the binomial", Biometrika 26 (1934), one side of their interval.

    Args:
        hits: From 0 to n.
        n: Trials.
        level: The probability of an error, in (0, 1/2].
    """
    if not 0 <= hits <= n or not 0 < level <= 0.5:
        raise ValueError(f"{hits} hits of {n} at level {level}: hits are at most n, level <= 1/2")
    if hits == 0:
        return 0.0
    if hits == n:
        return float(level ** (1 / n))
    return _last(lambda p: _log_tail(hits, n, p) <= math.log(level), 0.0, hits / n)


def share_upper(hits: int, n: int, level: float) -> float:
    """The upper bound of a probability; see `share_lower`. 1 where n is 0."""
    return 1.0 - share_lower(n - hits, n, level)


def mean_lower(values: Sequence[float], level: float, *, low: float, high: float) -> float:
    """The lower bound of the mean of independent values in [low, high].

    The capital of a gambler who bets that the mean is above m,

        K_t(m) = prod_{i <= t} (1 + min(l_i, c / m) (x_i - m)),
        l_i = sqrt(2 ln(1 / level) / (n s^2_{i-1})),

    x scaled to [0, 1], with s^2 the variance of the values before and c = LARGEST_LOSS, is a
    nonnegative supermartingale wherever the mean is at most m: it ever reaches 1 / level with
    probability at most `level` (Ville). The bound is the largest m at which it does, and `low`
    where there is none. K_t(m) falls with m, so a bisection finds it.

    Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
    JRSS-B 86 (2024): section 4.1 (the capital process, one side of theorem 3), section 4.3 and
    equation 26 (stakes for a fixed n). It is narrower than the empirical Bernstein bound of Maurer
    and Pontil (COLT 2009, theorem 4), most of all for a few hundred values that hardly vary, which
    is what pairs with a champion are.

    Args:
        values: In an order that does not depend on them: the bound does depend on it, its error
            does not.
        level: The probability of an error, in (0, 1/2].
        low: No value is below.
        high: No value is above.

    Raises:
        ValueError: A value is outside.
    """
    if not low < high or not 0 < level <= 0.5:
        raise ValueError(f"[{low}, {high}] at level {level}: low < high, level <= 1/2")
    if any(not low <= value <= high for value in values):
        raise ValueError(f"a value lies outside of [{low}, {high}]")
    scaled = [(value - low) / (high - low) for value in values]
    stakes = _stakes(scaled, level)
    reach = -math.log(level)

    def excluded(m: float) -> bool:
        most = LARGEST_LOSS / m if m > 0 else math.inf
        capital = 0.0
        for value, stake in zip(scaled, stakes, strict=True):
            capital += math.log1p(min(stake, most) * (value - m))
            if capital >= reach:
                return True
        return False

    bound = low + (high - low) * _last(excluded, 0.0, 1.0)
    # A run of good values at the beginning may have shown more than is true of all of them.
    return min(bound, math.fsum(values) / len(values)) if values else low


def mean_upper(values: Sequence[float], level: float, *, low: float, high: float) -> float:
    """The upper bound of the mean of independent values in [low, high]; see `mean_lower`."""
    return -mean_lower([-value for value in values], level, low=-high, high=-low)


def _stakes(values: Sequence[float], level: float) -> list[float]:
    """What is bet on each value, from those before it."""
    total, squares = 0.5, 0.25
    found = []
    for number, value in enumerate(values, start=1):
        variance = squares / number
        found.append(math.sqrt(2 * -math.log(level) / (len(values) * variance)))
        total += value
        squares += (value - total / (number + 1)) ** 2
    return found


def _last(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The last number in [low, high] at which something holds that ends to hold once; else low."""
    for _ in range(STEPS):
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def _log_tail(hits: int, n: int, p: float) -> float:
    """The log of the probability of `hits` or more of n, for 0 < hits / n and p < hits / n."""
    if p <= 0:
        return -math.inf
    odds = p / (1 - p)
    # Terms fall from the first one on: hits lie above the mean.
    term = total = 1.0
    for k in range(hits, n):
        term *= (n - k) / (k + 1) * odds
        total += term
        if term < total * 1e-17:
            break
    ways = math.lgamma(n + 1) - math.lgamma(hits + 1) - math.lgamma(n - hits + 1)
    return ways + hits * math.log(p) + (n - hits) * math.log1p(-p) + math.log(total)
