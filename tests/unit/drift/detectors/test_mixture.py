"""Mixtures of Shiryaev-Roberts bets: their recursion, their promise, their onset."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_drift.detectors.mixture import CAP, Mixture
from tests.unit.drift.detectors.vectorised import shiryaev_roberts

FACTORS = st.lists(st.tuples(st.floats(0, 8), st.floats(0, 8)), min_size=1, max_size=60)


def test_the_recursion_by_hand() -> None:
    mixture = Mixture([0.25, 0.75])
    assert mixture.log_evidence == -math.inf
    mixture.update([2.0, 0.5])
    mixture.update([3.0, 0.5])
    # (0 + 1) 2 = 2, (2 + 1) 3 = 9; (0 + 1) / 2 = 1/2, (1/2 + 1) / 2 = 3/4.
    assert mixture.log_evidence == pytest.approx(math.log(0.25 * 9 + 0.75 * 0.75))
    assert mixture.log_part(slice(0, 1)) == pytest.approx(math.log(9))


def test_the_cusum_starts_anew_where_its_ratio_falls_below_one() -> None:
    mixture = Mixture([1.0])
    seen = []
    for factor in (1.5, 0.5, 3.0, 0.1, 2.0):
        mixture.update([factor])
        seen.append((round(mixture.ratio, 6), mixture.fresh))
    assert seen == [(1.5, False), (0.75, True), (3.0, False), (0.3, True), (2.0, False)]


def test_the_cusum_follows_the_bet_that_wins() -> None:
    mixture = Mixture([0.5, 0.5])
    for _ in range(50):
        mixture.update([1.2, 0.9])
    before = mixture.ratio
    mixture.update([1.2, 0.9])
    assert mixture.ratio / before == pytest.approx(1.2, rel=0.01)


@settings(deadline=None)
@given(FACTORS)
def test_the_vectorised_copy_agrees(steps: list[tuple[float, float]]) -> None:
    mixture, copy = Mixture([0.4, 0.6]), np.zeros((1, 2))
    for factors in steps:
        mixture.update(factors)
        copy = shiryaev_roberts(copy, np.array([factors]))
        if mixture.log_evidence == -math.inf:
            # All bets were dropped; the copy's would only fall.
            copy[:] = 0
        value = float(copy[0] @ [0.4, 0.6])
        assert mixture.log_evidence == pytest.approx(math.log(value) if value else -math.inf)


@settings(deadline=None)
@given(FACTORS, st.integers(0, 60))
def test_a_state_through_json_goes_on_bit_by_bit(
    steps: list[tuple[float, float]], cut: int
) -> None:
    whole, parted = Mixture([0.4, 0.6]), Mixture([0.4, 0.6])
    for number, factors in enumerate(steps):
        if number == cut:
            state = json.loads(json.dumps(parted.state()))
            parted = Mixture([0.4, 0.6])
            parted.restore(state)
        whole.update(factors)
        parted.update(factors)
        assert (parted.log_evidence, parted.ratio, parted.fresh, parted.saturated) == (
            whole.log_evidence, whole.ratio, whole.fresh, whole.saturated,
        )  # fmt: skip


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="state of 2 bets for a mixture of 1"):
        Mixture([1.0]).restore(Mixture([0.5, 0.5]).state())


def test_evidence_is_capped_counted_and_falls_when_the_change_is_gone() -> None:
    mixture = Mixture([0.5, 0.5])
    for _ in range(100):
        mixture.update([4.0, 1.0])
    assert mixture.log_evidence == pytest.approx(math.log(CAP / 2), rel=1e-6)
    # 4 ** 14 is within four orders of the cap: the 14th and all since.
    assert mixture.saturated == 87
    for _ in range(100):
        mixture.update([0.9, 0.999])
    # 0.9 ** 95 is e ** -10: all bets were dropped.
    assert mixture.saturated == 0
    assert mixture.log_evidence < math.log(10)


def test_its_mean_is_no_more_than_time_under_the_null() -> None:
    """E[M_t] = t where factors have mean 1: the promise, here with a margin for chance."""
    draw = np.random.default_rng(1)
    values = np.zeros((20_000, 1))
    for _ in range(200):
        events = draw.random((20_000, 1)) < 0.2
        values = shiryaev_roberts(values, np.where(events, 0.3 / 0.2, 0.7 / 0.8))
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean() - 200) < 4 * error


def test_the_onset_is_found_near_where_it_was() -> None:
    draw = random.Random(5)
    mixture, start = Mixture([1.0]), 0
    for number in range(600):
        if mixture.fresh:
            start = number
        event = draw.random() < (0.3 if number >= 500 else 0.05)
        mixture.update([0.2 / 0.05 if event else 0.8 / 0.95])
    assert 480 <= start <= 510
