"""The split's check: Lindon and Malek's formula, and what it does not cry about."""

from __future__ import annotations

import itertools
import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_retrain.canary.config import Arm
from penstock_retrain.canary.shares import CONCENTRATION, ShareCheck

A, B = Arm.CHAMPION, Arm.CANDIDATE


def counted(arms: list[Arm], share: float) -> ShareCheck:
    check = ShareCheck(share)
    for arm in arms:
        check.add(arm)
    return check


def closed_form(counts: dict[Arm, int], share: float) -> float:
    """The Bayes factor with gamma functions, as the paper has it."""
    total = sum(counts.values())
    found = math.lgamma(CONCENTRATION) - math.lgamma(CONCENTRATION + total)
    for arm, declared in ((A, 1 - share), (B, share)):
        prior = CONCENTRATION * declared
        found += math.lgamma(prior + counts[arm]) - math.lgamma(prior)
        found -= counts[arm] * math.log(declared)
    return found


@given(st.lists(st.sampled_from([A, B]), max_size=200), st.floats(0.01, 0.99))
def test_is_the_bayes_factor(arms: list[Arm], share: float) -> None:
    check = counted(arms, share)
    assert check.log_e == pytest.approx(closed_form(check.counts, share), abs=1e-8)


def test_three_by_hand() -> None:
    # c = 100, p = 1/2: 1, then 51/101 / 0.5, then 52/102 / 0.5.
    expected = (51 / 101 / 0.5) * (52 / 102 / 0.5)
    assert math.exp(counted([B, B, B], 0.5).log_e) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_the_declared_split_gains_nothing(share: float) -> None:
    mean = 0.0
    for arms in itertools.product((A, B), repeat=10):
        chance = math.prod(share if arm is B else 1 - share for arm in arms)
        mean += chance * math.exp(counted(list(arms), share).log_e)
    assert mean == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize(("real", "index"), [(0.05, None), (0.06, 11674), (0.10, 444)])
def test_cries_at_this_very_request(real: float, index: int | None) -> None:
    draw, check = random.Random(5), ShareCheck(0.05)
    found = None
    for number in range(1, 20_001):
        check.add(B if draw.random() < real else A)
        if found is None and check.peak >= math.log(1000):
            found = number
    assert found == index


def test_steps_multiply() -> None:
    check = counted([B] * 30, 0.5)
    before = check.log_e
    check.begin(0.1)
    for arm in [A] * 20 + [B] * 10:
        check.add(arm)
    assert check.log_e == pytest.approx(before + closed_form({A: 20, B: 10}, 0.1))
    assert check.counts == {A: 20, B: 10}


def test_shadowing_and_full_traffic_count_nothing() -> None:
    for share in (0.0, 1.0):
        assert counted([A, B, B], share).state() == ShareCheck(share).state()


@given(st.lists(st.sampled_from([A, B]), max_size=50), st.lists(st.sampled_from([A, B])))
def test_a_state_goes_on_as_if_nothing_had_happened(before: list[Arm], later: list[Arm]) -> None:
    straight = counted(before, 0.3)
    taken_up = ShareCheck.from_state(json.loads(json.dumps(straight.state())))
    for arm in later:
        straight.add(arm)
        taken_up.add(arm)
    assert taken_up.state() == straight.state()
