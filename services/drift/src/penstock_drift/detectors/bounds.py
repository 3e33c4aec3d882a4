"""One-sided confidence bounds: what a baseline of finite size leaves open. Pure.

A null that takes an estimate for the truth fires 2.6 times as often as it promises, with a baseline
of 2,000 values. So the nulls of our e-detectors reach up to these bounds.
"""

from __future__ import annotations

import functools
import math
from statistics import NormalDist

from scipy.special import betaincinv  # type: ignore[import-untyped]  # it has no types

__all__ = ["CONFIDENCE", "rate_bounds", "upper_mean"]

# Of each bound, one-sided: a lower and an upper one hold together at 95 %. At 95 % each, twice as
# many of 2,000 quiet rates came near the threshold that e-BH asks of them; the delay at the same
# measured mean time to a false alarm does not differ.
CONFIDENCE = 0.975
# What asymptotic bounds aim at, so that those of skewed values still have as much.
AIM = 0.9875


def rate_bounds(events: float, trials: float, among: int = 1) -> tuple[float, float]:
    """Lower and upper bound of a rate, each at `CONFIDENCE`, exact.

    Args:
        events: How often it happened; fractions are taken as they are.
        trials: How often it could have.
        among: Rates whose upper bounds are to hold together, and whose lower ones (Bonferroni).

    Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case
    of the binomial", Biometrika 26, 1934; as quantiles of the beta distribution.
    """
    miss = (1 - CONFIDENCE) / among
    low = 0.0 if events <= 0 else float(betaincinv(events, trials - events + 1, miss))
    high = 1.0 if events >= trials else float(betaincinv(events + 1, trials - events, 1 - miss))
    return low, high


def upper_mean(mean: float, deviation: float, largest: float, count: int, among: int = 1) -> float:
    """Upper bound of the mean of values that do not exceed `largest`, at about `CONFIDENCE`.

    By the central limit theorem, aimed at `AIM`; but never below what a part of the values too
    rare to have been seen could add: their share is at most -ln(1 - CONFIDENCE) / n, the rule of
    three (Hanley and Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 249,
    1983), and each at most `largest`.

    Args:
        mean: Of the values.
        deviation: Of the values.
        largest: What no value exceeds.
        count: How many there are.
        among: Means whose bounds are to hold together (Bonferroni).
    """
    by_spread = mean + _quantile(1 - (1 - AIM) / among) * deviation / math.sqrt(count)
    unseen = min(1.0, -math.log((1 - CONFIDENCE) / among) / count)
    return min(largest, max(by_spread, mean + unseen * (largest - mean)))


@functools.cache
def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(confidence)
