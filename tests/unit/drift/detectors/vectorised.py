"""Copies of the e-detectors for many runs at once; `test_mixture` shows that they agree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from penstock_drift.detectors.bernoulli import Bernoulli
from penstock_drift.detectors.mixture import CAP

Floats = npt.NDArray[np.float64]
NEVER = np.iinfo(np.int64).max


def shiryaev_roberts(bets: Floats, factors: Floats) -> Floats:
    """One step of every run: bets and factors are (runs, bets)."""
    return np.minimum((bets + 1.0) * factors, CAP)


def armed_bernoullis(
    runs: int, rate: float, baseline: int, rng: np.random.Generator, worse: bool | None
) -> tuple[Floats, Floats, Floats]:
    """Weights and factors of 0 and of 1, of detectors each with a baseline of its own."""
    weights, zeros, ones = [], [], []
    for events in rng.binomial(baseline, rate, runs):
        detector = Bernoulli(worse)
        detector.count, detector.events = baseline, float(events)
        detector.arm()
        assert detector.mixture is not None
        weights.append(detector.mixture._weights)
        zeros.append(detector._of_zero)
        ones.append(detector._of_one)
    return np.array(weights), np.array(zeros), np.array(ones)


def first_passages(
    weights: Floats,
    factors_at: Callable[[int], Floats],
    steps: int,
    threshold: float,
    start: int = 0,
) -> npt.NDArray[np.int64]:
    """By run the step, from `start` on, at which the mixture first reaches the threshold."""
    runs, bets = weights.shape
    values = np.zeros((runs, bets))
    when = np.full(runs, NEVER)
    for step in range(steps):
        values = shiryaev_roberts(values, factors_at(step))
        if step >= start:
            reached = (np.einsum("rb,rb->r", weights, values) >= threshold) & (when == NEVER)
            when[reached] = step - start + 1
            if (when < NEVER).all():
                break
    return when


def mean_time(when: npt.NDArray[np.int64], steps: int) -> float:
    """Mean time to the first passage, of runs that were stopped after some steps (exponential)."""
    return float(np.minimum(when, steps).sum() / max(1, (when < NEVER).sum()))
