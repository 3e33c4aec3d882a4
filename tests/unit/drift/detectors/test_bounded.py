"""Scores in [0, 1]: bets that no distribution between the bounds can gain by."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_drift.detectors.bounded import Bounded, mean_bounds

VALUES = st.lists(st.floats(0, 1), min_size=2, max_size=40)


def armed(draw: random.Random, alpha: float, beta: float, count: int = 2000) -> Bounded:
    detector = Bounded()
    for _ in range(count):
        detector.learn(draw.betavariate(alpha, beta))
    detector.arm()
    return detector


def fires_at(detector: Bounded, draw: random.Random, alpha: float, beta: float) -> int | None:
    assert detector.mixture is not None
    for number in range(1, 8001):
        detector.update(draw.betavariate(alpha, beta))
        if detector.mixture.log_evidence >= math.log(1e4):
            return number
    return None


@pytest.mark.parametrize(
    ("alpha", "beta", "index"),
    [(8, 2, None), (7.5, 2.5, 49), (7, 3, 26), (5, 5, 14), (9.5, 0.5, 55)],
)
def test_fires_at_this_very_value(alpha: float, beta: float, index: int | None) -> None:
    draw = random.Random(4)
    assert fires_at(armed(draw, 8, 2), draw, alpha, beta) == index


@settings(deadline=None)
@given(VALUES, st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_factors_are_never_negative_and_gain_nothing_at_the_bounds(
    baseline: list[float], values: list[float]
) -> None:
    detector = Bounded()
    for value in baseline:
        detector.learn(value)
    detector.arm()
    low, high, _ = detector._null
    assert 0 <= low <= high <= 1
    for value in (*values, 0.0, 1.0):
        assert all(a + b * value >= 0 for a, b in detector._stakes)
    rises, falls = detector._stakes[:3], detector._stakes[3:]
    # Factors are linear: at a mean on the bound their mean is 1, and inside less.
    assert all(a + b * high <= 1 + 1e-9 and b >= 0 for a, b in rises)
    assert all(a + b * low <= 1 + 1e-9 and b <= 0 for a, b in falls)


def test_the_bounds_hold_as_often_as_they_say() -> None:
    """Scores that are mostly 1: skewed, so the central limit theorem is slow to hold."""
    draw = random.Random(1)
    above = below = 0
    for _ in range(400):
        values = [1.0 if draw.random() < 0.9 else draw.random() for _ in range(500)]
        mean = sum(values) / 500
        deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / 500)
        low, high = mean_bounds(mean, deviation, 500)
        above += low > 0.95
        below += high < 0.95
    # 5 % of 400 are 20, and 31 is what chance leaves at 99 %.
    assert above <= 31
    assert below <= 31


def test_a_state_through_json_goes_on_bit_by_bit() -> None:
    draw = random.Random(2)
    whole, parted = Bounded(False), Bounded(False)
    for number in range(1500):
        value = draw.betavariate(8, 2) * (1 if number < 1200 else 0.8)
        if number % 71 == 0:
            parted = Bounded.from_state(json.loads(json.dumps(parted.state())), False)
        for detector in (whole, parted):
            (detector.learn if number < 800 else detector.update)(value)
        if number == 799:
            whole.arm()
            parted.arm()
    assert whole.mixture is not None
    assert parted.mixture is not None
    assert parted.mixture.state() == whole.mixture.state()
