"""The whole test on every outcome there is: the promises hold to the last digit, without luck."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock_retrain.canary import Arm, CanaryConfig, CanaryTest, Goal, MetricSpec
from penstock_retrain.canary.comparison import Question
from penstock_retrain.canary.verdict import Reading

A, B = Arm.CHAMPION, Arm.CANDIDATE
ORDERS = st.lists(st.sampled_from([A, B]), min_size=2, max_size=9)
RATES = st.floats(0.0, 1.0)


def run(
    order: list[Arm], outcomes: tuple[int, ...], config: CanaryConfig, share: float
) -> dict[Question, Reading]:
    trial = CanaryTest(config)
    trial.begin(share)
    for arm, outcome in zip(order, outcomes, strict=True):
        trial.update(arm, "accuracy", float(outcome))
    return trial.evidence().metrics["accuracy"].tests


def over_all_outcomes(
    order: list[Arm], rates: dict[Arm, float], config: CanaryConfig, share: float
) -> dict[Question, tuple[float, float]]:
    """By question: the expected e-value, and the probability that it ever was at least 1.5."""
    mean = dict.fromkeys(Question, 0.0)
    reached = dict.fromkeys(Question, 0.0)
    for outcomes in itertools.product((0, 1), repeat=len(order)):
        chance = math.prod(
            rates[arm] if outcome else 1 - rates[arm]
            for arm, outcome in zip(order, outcomes, strict=True)
        )
        for question, reading in run(order, outcomes, config, share).items():
            mean[question] += chance * math.exp(reading.log_e)
            reached[question] += chance * (math.exp(reading.peak) >= 1.5)
    return {question: (mean[question], reached[question]) for question in Question}


# Bold bets, so that a few values matter: an effect of half the range.
BOLD = MetricSpec("accuracy", effect=0.5, margin=0.3)


@settings(deadline=None, max_examples=25)
@given(ORDERS, RATES, st.sampled_from([0.2, 0.5, 0.8]))
@example([A, B, B, A, A, B, B, A], 0.5, 0.5)
@example([A, A, A, A, B, B, A, A, A], 0.9, 0.2)
def test_equal_arms_gain_nothing_in_any_order(order: list[Arm], rate: float, share: float) -> None:
    config = CanaryConfig(BOLD, Goal.GAIN, minimum=1)
    found = over_all_outcomes(order, {A: rate, B: rate}, config, share)
    for question in (Question.HARM, Question.GAIN):
        mean, reached = found[question]
        assert mean == pytest.approx(1.0, abs=1e-9)  # a martingale: the null's boundary
        assert reached <= 1 / 1.5 + 1e-9  # Ville


@settings(deadline=None, max_examples=25)
@given(ORDERS, RATES, RATES, st.sampled_from([0.2, 0.5, 0.8]))
def test_no_null_gains_in_any_order(
    order: list[Arm], champion: float, candidate: float, share: float
) -> None:
    found = {
        goal: over_all_outcomes(
            order, {A: champion, B: candidate}, CanaryConfig(BOLD, goal, minimum=1), share
        )
        for goal in Goal
    }
    difference = candidate - champion
    nulls = {
        Question.HARM: (Goal.GAIN, difference >= 0.0),
        Question.GAIN: (Goal.GAIN, difference <= 0.0),
        Question.NON_INFERIORITY: (Goal.NON_INFERIORITY, difference <= -0.3),
    }
    for question, (goal, holds) in nulls.items():
        mean, reached = found[goal][question]
        if holds:
            assert mean <= 1.0 + 1e-9
            assert reached <= 1 / 1.5 + 1e-9


def test_the_margins_boundary_is_a_martingale() -> None:
    config = CanaryConfig(BOLD, minimum=1)
    found = over_all_outcomes([A, B, B, A, B, A], {A: 0.8, B: 0.5}, config, 0.5)
    assert found[Question.NON_INFERIORITY][0] == pytest.approx(1.0, abs=1e-9)
    # and past it the evidence grows
    found = over_all_outcomes([A, B, B, A, B, A], {A: 0.8, B: 0.8}, config, 0.5)
    assert found[Question.NON_INFERIORITY][0] > 1.3


PLANS = st.tuples(st.sampled_from([0.1, 0.5, 0.8]), ORDERS.map(lambda order: order[:4]))


@settings(deadline=None, max_examples=25)
@given(ORDERS.map(lambda order: order[:5]), RATES, st.data())
def test_traffic_may_follow_what_was_seen(
    before: list[Arm], rate: float, data: st.DataObject
) -> None:
    """Steps, and who is asked next, chosen by every outcome so far: also by values that wait.

    The e-value of full blocks alone may then be above 1 on average, as one can leave a block that
    looks bad unfilled; that it ever reaches 1.5 has probability at most 2 / 3 all the same.
    """
    config = CanaryConfig(BOLD, Goal.GAIN, minimum=1)
    reached = dict.fromkeys((Question.HARM, Question.GAIN), 0.0)
    for seen in itertools.product((0, 1), repeat=len(before)):
        share, later = data.draw(PLANS)
        for unseen in itertools.product((0, 1), repeat=len(later)):
            trial = CanaryTest(config)
            trial.begin(0.5)
            for arm, outcome in zip(before, seen, strict=True):
                trial.update(arm, "accuracy", float(outcome))
            trial.begin(share)
            for arm, outcome in zip(later, unseen, strict=True):
                trial.update(arm, "accuracy", float(outcome))
            right = sum(seen) + sum(unseen)
            chance = rate**right * (1 - rate) ** (len(before) + len(later) - right)
            for question, reading in trial.evidence().metrics["accuracy"].tests.items():
                reached[question] += chance * (math.exp(reading.peak) >= 1.5)
    assert max(reached.values()) <= 1 / 1.5 + 1e-9


def test_pairs_may_depend_on_each_other() -> None:
    # Both right, only one of them, neither: with a mean difference of 0, whatever the dependence.
    chances = {(0, 0): 0.15, (1, 1): 0.65, (0, 1): 0.1, (1, 0): 0.1}
    config = CanaryConfig(BOLD, Goal.GAIN, minimum=1)
    mean = 0.0
    for pairs in itertools.product(chances, repeat=4):
        trial = CanaryTest(config)
        for champion, candidate in pairs:
            trial.update_pair("accuracy", champion, candidate)
        e_value = math.exp(trial.evidence().metrics["accuracy"].tests[Question.GAIN].log_e)
        mean += math.prod(chances[pair] for pair in pairs) * e_value
    assert mean == pytest.approx(1.0, abs=1e-9)
