"""Which of several guardrails are broken, judged together. Pure.

The e-Benjamini-Hochberg procedure: with e_(1) >= e_(2) >= ... of K e-values the k* largest are
rejected, k* = max{k : k e_(k) >= K / level}. The expected share of false rejections is at most the
level whatever the dependence between the e-values; where every null is true that is the
probability of any rejection. Source: Wang and Ramdas, "False discovery rate control with e-values",
JRSS-B 84 (2022): the e-BH procedure, and its guarantee under any dependence.

It needs e-values at one stopping time of one filtration. Metrics whose values settle together have
that; a stopping time that looks at one metric while another still waits for values of the same
requests is none of the other's (Choe and Ramdas, "Combining evidence across filtrations",
arXiv 2402.09698). So ranks are counted within a source of values, against the K of all: each
source then spends level * K_s / K, which adds up to the level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = ["rejected"]


def rejected(log_values: Mapping[str, float], among: int, level: float) -> frozenset[str]:
    """Names of the e-values of one source that are rejected.

    Args:
        log_values: Natural logarithms of the source's e-values, by name.
        among: K, e-values of all sources.
        level: Of all sources together, in (0, 1).
    """
    ordered = sorted(log_values.values(), reverse=True)
    threshold = math.log(among) - math.log(level)
    cut = min(
        (value for rank, value in enumerate(ordered, 1) if math.log(rank) + value >= threshold),
        default=math.inf,
    )
    return frozenset(name for name, value in log_values.items() if value >= cut)
