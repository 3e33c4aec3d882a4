"""Which of many signals have enough evidence among all of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

__all__ = ["rejected"]

W = TypeVar("W", bound=Hashable)


def rejected(log_values: Mapping[W, float], among: int, alpha: float) -> frozenset[W]:
    """The e-Benjamini-Hochberg procedure over e-detectors (e-d-BH).

    With M_(1) >= M_(2) >= ... the k* largest are rejected, k* = max{k : k * M_(k) >= K / alpha}.
    Where each M is an e-detector (its expectation at any stopping time is at most that time, under
    no change) the expected share of false findings at any stopping time is at most alpha times
    that time, whatever the dependence between the signals: error over patience (Dandapanthula and
    Ramdas, arXiv 2501.04130, section 4). It is no false discovery rate: with a finite time to a
    false alarm none can be had (the same, section 2).

    Args:
        log_values: Natural logarithms of the e-detectors' values; signals that are left out
            count with a value below 1 / alpha, which is never rejected.
        among: K, how many signals there are in all; those left out too.
        alpha: The level.

    Returns:
        The rejected ones.
    """
    ordered = sorted(log_values.values(), reverse=True)
    threshold = math.log(max(among, len(ordered), 1)) - math.log(alpha)
    cut = next(
        (
            value
            for rank, value in reversed(list(enumerate(ordered, 1)))
            if math.log(rank) + value >= threshold
        ),
        math.inf,
    )
    return frozenset(watched for watched, value in log_values.items() if value >= cut)
