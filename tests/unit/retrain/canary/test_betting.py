"""Bets: what they gain by hand, and that nothing of the null gains by them."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_retrain.canary.betting import (
    LARGEST_LOSS,
    OF_HARM,
    OF_PROMOTION,
    Bets,
    Spread,
    stake,
)

PARTS = (0.15, 0.6, 0.15, 0.1)
NULLS = st.floats(-0.9, 0.9)
DIFFERENCES = st.floats(-1.0, 1.0)
VARIANCES = st.floats(1e-4, 1.0)
HISTORIES = st.lists(st.tuples(DIFFERENCES, VARIANCES), max_size=20)


def e_value(bets: Bets) -> float:
    return math.exp(bets.log_e)


def after(
    history: list[tuple[float, float]], null: float, shift: float, spread: Spread = OF_PROMOTION
) -> Bets:
    bets = Bets(null, shift, spread)
    for difference, variance in history:
        bets.settle(difference, variance)
    return bets


@pytest.mark.parametrize("spread", [OF_HARM, OF_PROMOTION])
def test_begins_at_one(spread: Spread) -> None:
    assert e_value(Bets(0.0, 0.02, spread)) == pytest.approx(1.0)


def test_one_difference_by_hand() -> None:
    # Stakes shift / (0.5 + shift^2) for shifts 0.05, 0.1, 0.2, and 0.5 at most for 0.4.
    bets = after([(1.0, 0.5)], 0.0, 0.1)
    stakes = [0.05 / 0.5025, 0.1 / 0.51, 0.2 / 0.54, 0.5]
    hand = sum(part * (1 + each) for part, each in zip(PARTS, stakes, strict=True))
    assert e_value(bets) == pytest.approx(hand, rel=1e-12)
    assert hand == pytest.approx(1.238128, abs=1e-6)


def test_each_bet_compounds_alone() -> None:
    # Up by s, down by s: each bet keeps 1 - s^2, so the average loses, and the peak stays.
    bets = after([(1.0, 0.5), (-1.0, 0.5)], 0.0, 0.1)
    stakes = [0.05 / 0.5025, 0.1 / 0.51, 0.2 / 0.54, 0.5]
    hand = sum(part * (1 - each**2) for part, each in zip(PARTS, stakes, strict=True))
    assert e_value(bets) == pytest.approx(hand, rel=1e-12)
    assert math.exp(bets.peak) == pytest.approx(1.238128, abs=1e-6)


def test_a_stake_leaves_half_after_the_worst() -> None:
    assert stake(0.5, 1e-9, 0.25) == pytest.approx(LARGEST_LOSS / 1.25)
    bets = after([(-1.0, 1e-9)], 0.25, 0.5)
    assert e_value(bets) >= 0.5 - 1e-12


@pytest.mark.parametrize(
    ("null", "difference", "grows"),
    [(0.0, 0.01, True), (0.0, -0.01, False), (-0.02, -0.01, True), (0.05, 0.04, False)],
)
def test_only_differences_above_the_null_speak_against_it(
    null: float, difference: float, grows: bool
) -> None:
    assert (after([(difference, 0.2)] * 50, null, 0.02).log_e > 0) is grows


@settings(deadline=None)
@given(
    HISTORIES,
    NULLS,
    st.floats(0.001, 0.5),
    st.sampled_from([OF_HARM, OF_PROMOTION]),
    VARIANCES,
    DIFFERENCES,
    DIFFERENCES,
    st.data(),
)
def test_no_distribution_of_the_null_gains(
    history: list[tuple[float, float]],
    null: float,
    shift: float,
    spread: Spread,
    variance: float,
    one: float,
    two: float,
    data: st.DataObject,
) -> None:
    """After any history: the expected e-value is at most the one before.

    Any two points with a mean of at most the null; a distribution on [-1, 1] is a mixture of such.
    """
    low, high = min(one, two), max(one, two)
    if low > null:
        return
    most = 1.0 if high <= null else (null - low) / (high - low)
    chance = data.draw(st.floats(0.0, most))
    before = e_value(after(history, null, shift, spread))
    found = chance * e_value(after([*history, (high, variance)], null, shift, spread))
    found += (1 - chance) * e_value(after([*history, (low, variance)], null, shift, spread))
    assert found <= before * (1 + 1e-9)


@settings(deadline=None)
@given(HISTORIES, HISTORIES, NULLS)
def test_a_state_goes_on_as_if_nothing_had_happened(
    history: list[tuple[float, float]], more: list[tuple[float, float]], null: float
) -> None:
    straight = after(history + more, null, 0.02)
    state = json.loads(json.dumps(after(history, null, 0.02).state()))
    taken_up = Bets(null, 0.02, OF_PROMOTION).restored(state)
    for difference, variance in more:
        taken_up.settle(difference, variance)
    assert taken_up.state() == straight.state()
