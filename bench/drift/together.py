"""Our e-detectors on many streams at once: numpy copies of what is slow one by one.

Each stream's baseline is learnt, and its null fixed, by the real channel or detector; only what
comes after is computed together, step by step as `Mixture.update` does. A test shows that both give
the same evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.drift.matching import Values
from bench.drift.streams import DAY, SPACING_MS
from penstock_drift.channels.channel import SignalChannel
from penstock_drift.channels.lanes import NumberLane
from penstock_drift.channels.normalise import CLIP
from penstock_drift.detectors.bernoulli import Bernoulli
from penstock_drift.detectors.bounded import Bounded
from penstock_drift.detectors.gaussian import LIMIT, MEANS, SPREADS, Gaussian
from penstock_drift.detectors.mixture import CAP, RECOVERED

__all__ = ["COPIED", "evidence_of", "normalised"]

Floats = npt.NDArray[np.float64]
# Of which there are copies.
COPIED = (Bernoulli, Bounded, Gaussian)
# Steps whose factors are computed at once.
CHUNK = 500


def evidence_of(detectors: Sequence[Any], values: Values) -> Floats:
    """Log evidence after each value, of armed detectors of one type: (streams, values)."""
    factors = _factors_of(detectors)
    weights = np.array([each.mixture._weights for each in detectors])
    runs, steps = values.shape
    found = np.empty((runs, steps))
    bets = np.array([each.mixture._bets for each in detectors])
    value = np.array([each.mixture._value for each in detectors])
    ratio = np.array([each.mixture.ratio for each in detectors])
    peak = np.array([each.mixture._peak for each in detectors])
    fresh = np.array([each.mixture.fresh for each in detectors])
    for start in range(0, steps, CHUNK):
        # By step, so that a step's lie together.
        chunk = factors(values[:, start : start + CHUNK]).transpose(1, 0, 2).copy()
        for step, each in enumerate(chunk, start):
            bets = np.minimum((bets + 1.0) * each, CAP)
            before, value = value, (weights * bets).sum(axis=1)
            factor = value / (before + 1.0)
            ratio = np.minimum(CAP, np.where(fresh, factor, ratio * factor))
            dropped = (ratio <= peak) & (ratio * RECOVERED < peak)
            peak = np.maximum(peak, ratio)
            fresh = ratio < 1.0
            if dropped.any():
                bets[dropped] = 0.0
                value = np.where(dropped, 0.0, value)
                fresh |= dropped
            peak = np.where(fresh, 1.0, peak)
            found[:, step] = value
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(found), -math.inf)


def normalised(channels: Sequence[SignalChannel], values: Values, first: int) -> Floats:
    """What armed channels of numbers show their detectors.

    Args:
        channels: One per stream.
        values: By stream; `values[:, 0]` is the stream's value number `first`.
        first: See there; it gives the time of the day.
    """
    lanes = [channel._lane for channel in channels]
    parts: list[Any] = []
    for lane in lanes:
        assert isinstance(lane, NumberLane)
        parts.append(lane._normaliser)

    def column(name: str) -> Floats:
        return np.array([getattr(part, name) for part in parts])[:, None]

    numbers = values.astype(float)
    if parts[0]._logarithm:
        numbers = np.log1p(np.maximum(numbers, 0.0))
    scaled = np.clip((numbers - column("_centre")) * column("_scale"), -CLIP, CLIP)
    if parts[0]._hours:
        day = np.array([[part._at(n * SPACING_MS) for n in range(DAY)] for part in parts])
        scaled = scaled - day[:, (first + np.arange(values.shape[1])) % DAY]
    deviations = scaled - column("_mean")
    previous = np.hstack([column("_previous"), deviations[:, :-1]])
    return (deviations - column("_rho") * previous) * column("_divisor")


def _factors_of(detectors: Sequence[Any]) -> Callable[[Values], Floats]:
    """Factors of the bets for some values of each stream: (streams, values, bets)."""
    first = detectors[0]
    if isinstance(first, Bernoulli):
        zeros = np.array([each._of_zero for each in detectors])[:, None]
        ones = np.array([each._of_one for each in detectors])[:, None]
        return lambda values: np.where(values[:, :, None] > 0, ones, zeros)
    if isinstance(first, Bounded):
        stakes = np.array([each._stakes for each in detectors])[:, None]
        return lambda values: stakes[..., 0] + stakes[..., 1] * values[:, :, None]
    assert isinstance(first, Gaussian)
    divisors = np.array([each._divisors for each in detectors])[:, None]
    spreads = np.array(SPREADS)

    def tilts(values: Values) -> Floats:
        means = [tilt * np.clip(values, -limit, limit) for tilt, limit, _ in MEANS]
        size = np.abs(np.clip(values.astype(float), -LIMIT, LIMIT))
        exponents = [*means, *(-mean for mean in means), *(spread * size for spread in spreads)]
        return np.exp(np.stack(exponents, axis=2, dtype=float)) * divisors

    return tilts
