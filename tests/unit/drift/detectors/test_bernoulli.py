"""Rates: the null holds whatever the rate between its bounds, and changes are found in time."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_drift.detectors.bernoulli import Bernoulli
from penstock_drift.detectors.bounds import rate_bounds
from tests.unit.drift.detectors.vectorised import NEVER, armed_bernoullis, first_passages, mean_time


def armed(events: int, count: int, worse: bool | None = True) -> Bernoulli:
    detector = Bernoulli(worse)
    for number in range(count):
        detector.learn(1.0 if number < events else 0.0)
    detector.arm()
    return detector


def fires_at(detector: Bernoulli, rate: float, seed: int, threshold: float = 1e4) -> int | None:
    draw = random.Random(seed)
    assert detector.mixture is not None
    for number in range(1, 5001):
        detector.update(1.0 if draw.random() < rate else 0.0)
        if detector.mixture.log_evidence >= math.log(threshold):
            return number
    return None


def test_bounds_are_those_of_clopper_and_pearson() -> None:
    # From the binomial itself: at `high`, 40 or fewer of 2,000 have probability 2.5 %.
    low, high = rate_bounds(40, 2000)
    assert binomial_at_most(40, 2000, high) == pytest.approx(0.025, rel=1e-9)
    assert 1 - binomial_at_most(39, 2000, low) == pytest.approx(0.025, rel=1e-9)
    assert rate_bounds(0, 2000) == (0.0, pytest.approx(1 - 0.025 ** (1 / 2000)))
    assert rate_bounds(2000, 2000) == (pytest.approx(0.025 ** (1 / 2000)), 1.0)


def binomial_at_most(events: int, count: int, rate: float) -> float:
    return sum(
        math.exp(
            math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
            + k * math.log(rate) + (count - k) * math.log1p(-rate)
        )
        for k in range(events + 1)
    )  # fmt: skip


@settings(deadline=None)
@given(st.integers(0, 300), st.floats(0, 1))
def test_no_bet_gains_on_average_between_the_bounds(events: int, where: float) -> None:
    detector = armed(events, 300)
    low, high = rate_bounds(events, 300)
    rate = low + where * (high - low)
    for of_zero, of_one in zip(detector._of_zero, detector._of_one, strict=True):
        assert (1 - rate) * of_zero + rate * of_one <= 1 + 1e-9


@pytest.mark.parametrize(
    ("baseline", "rate", "worse", "index"),
    [
        ((40, 2000), 0.10, True, 88),
        ((40, 2000), 0.10, None, 88),
        ((40, 2000), 0.05, True, 320),
        ((400, 2000), 0.30, True, 419),
        ((200, 2000), 0.02, True, 170),
        ((200, 2000), 0.02, False, 146),
        ((0, 2000), 0.02, True, 234),
        ((2000, 2000), 0.95, False, 58),
        ((40, 2000), 0.02, True, None),
    ],
)
def test_fires_at_this_very_value(
    baseline: tuple[int, int], rate: float, worse: bool | None, index: int | None
) -> None:
    assert fires_at(armed(*baseline, worse), rate, seed=3) == index


def test_what_never_happened_is_no_evidence_of_getting_rarer() -> None:
    detector = armed(0, 2000)
    for _ in range(50_000):
        detector.update(0.0)
    assert detector.mixture is not None
    # Its value comes to rest at 1 / (1 - factor) of the smallest bet.
    assert detector.mixture.log_evidence < 7


def test_a_state_through_json_goes_on_bit_by_bit() -> None:
    draw = random.Random(1)
    whole, parted = Bernoulli(None), Bernoulli(None)
    for number in range(3000):
        value = 1.0 if draw.random() < (0.02 if number < 2500 else 0.1) else 0.0
        if number % 97 == 0:
            parted = Bernoulli.from_state(json.loads(json.dumps(parted.state())), None)
        for detector in (whole, parted):
            if number < 2000:
                detector.learn(value)
            else:
                detector.update(value)
        if number == 1999:
            whole.arm()
            parted.arm()
    assert whole.mixture is not None
    assert parted.mixture is not None
    assert parted.mixture.log_evidence == whole.mixture.log_evidence
    assert parted.parts() == whole.parts()


@pytest.mark.parametrize("worse", [True, None])
def test_refusals_from_2_to_10_percent_in_75_at_a_measured_arl_of_10_000(
    worse: bool | None,
) -> None:
    """The aim, with the baseline's uncertainty in the null: 2,000 values, each run its own."""
    threshold, rng = 1900.0, np.random.default_rng(11)
    weights, zeros, ones = armed_bernoullis(200, 0.02, 2000, rng, worse)

    def at(rate: float, change: int) -> object:
        def factors(step: int) -> object:
            now = rate if step >= change else 0.02
            return np.where((rng.random(200) < now)[:, None], ones, zeros)

        return factors

    quiet = first_passages(weights, at(0.02, 0), 40_000, threshold)  # type: ignore[arg-type]
    assert mean_time(quiet, 40_000) >= 10_000
    delays = first_passages(weights, at(0.10, 300), 1300, threshold, start=300)  # type: ignore[arg-type]
    assert (delays < NEVER).all()
    assert np.median(delays) <= 75
