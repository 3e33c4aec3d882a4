"""A canary from its first value to its verdict."""

from __future__ import annotations

import dataclasses
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_retrain.canary import (
    Arm,
    Bounds,
    CanaryConfig,
    CanaryTest,
    Decision,
    Goal,
    Levels,
    Limit,
    MetricSpec,
    Rank,
)
from penstock_retrain.canary.comparison import Question

A, B = Arm.CHAMPION, Arm.CANDIDATE
ACCURACY = MetricSpec("accuracy")
ERRORS = MetricSpec("errors", higher_is_better=False, source="request")
LATENCY = MetricSpec("latency_s", Limit(2.0), higher_is_better=False, source="request")
CONFIG = CanaryConfig(ACCURACY, guardrails=(ERRORS, LATENCY), horizon=20_000)
ALONE = CanaryConfig(ACCURACY, horizon=20_000)


def feed(trial: CanaryTest, rates: dict[Arm, float], share: float, seed: int, most: int) -> int:
    """Feeds answers until the verdict is not to hold; returns how many."""
    draw = random.Random(seed)
    for number in range(1, most + 1):
        arm = B if draw.random() < share else A
        trial.count(arm)
        trial.update(arm, "accuracy", float(draw.random() < rates[arm]))
        if trial.decide().decision is not Decision.HOLD:
            return number
    return most


@pytest.mark.parametrize(
    ("candidate", "share", "decision", "index"),
    [
        (0.90, 0.50, Decision.PROMOTE, 6509),
        (0.85, 0.50, Decision.ROLL_BACK, 1475),
        (0.60, 0.50, Decision.ROLL_BACK, 187),
        (0.60, 0.05, Decision.ROLL_BACK, 874),
        (0.94, 0.50, Decision.PROMOTE, 469),
    ],
)
def test_ends_at_this_very_answer(
    candidate: float, share: float, decision: Decision, index: int
) -> None:
    trial = CanaryTest(ALONE)
    trial.begin(share)
    found = feed(trial, {A: 0.90, B: candidate}, share, 7, 20_000)
    assert (trial.decide().decision, found) == (decision, index)


def test_evidence_is_carried_over_the_steps() -> None:
    trial = CanaryTest(ALONE)
    rates, at = {A: 0.9, B: 0.8}, []
    for step, share in enumerate((0.05, 0.25, 0.5)):
        before = trial.evidence().metrics["accuracy"].tests[Question.HARM].log_e
        trial.begin(share)
        assert trial.evidence().metrics["accuracy"].tests[Question.HARM].log_e == before
        at.append(feed(trial, rates, share, step, 600))
    assert at == [600, 600, 316]
    assert trial.decide().decision is Decision.ROLL_BACK


def test_pairs_tell_sooner_than_split_traffic() -> None:
    # The candidate mends a third of the champion's errors, and breaks one answer in fifty.
    def pairs(seed: int) -> tuple[float, float]:
        draw = random.Random(seed)
        right = draw.random() < 0.9
        return float(right), float(draw.random() < (0.98 if right else 0.33))

    config = dataclasses.replace(ALONE, goal=Goal.GAIN)
    trial, number = CanaryTest(config), 0
    while trial.decide().decision is Decision.HOLD:
        number += 1
        trial.update_pair("accuracy", *pairs(number))
    assert (trial.decide().decision, number) == (Decision.PROMOTE, 967)


def test_shadow_pairs_and_traffic_are_one_evidence() -> None:
    trial = CanaryTest(ALONE)
    trial.begin(0.0)
    for _ in range(40):
        trial.update_pair("accuracy", 1.0, 0.0)
    shadowed = trial.evidence().metrics["accuracy"]
    assert (shadowed.champion, shadowed.candidate, shadowed.pairs) == (40, 40, 40)
    assert shadowed.difference == pytest.approx(-1.0)
    trial.begin(0.5)
    trial.update(A, "accuracy", 1.0)
    trial.update(B, "accuracy", 0.0)
    known = trial.evidence().metrics["accuracy"]
    assert (known.champion, known.pairs) == (41, 40)
    assert known.tests[Question.HARM].log_e > shadowed.tests[Question.HARM].log_e


def test_guardrails_of_one_source_roll_back_together() -> None:
    trial = CanaryTest(CONFIG)
    trial.begin(0.5)
    draw = random.Random(3)
    number = 0
    while trial.decide().decision is not Decision.ROLL_BACK:
        number += 1
        arm = B if draw.random() < 0.5 else A
        slow = draw.random() < (0.12 if arm is B else 0.05)
        trial.observe(arm, {"errors": 0.0, "latency_s": 2.5 if slow else 1.0})
        trial.update(arm, "accuracy", float(draw.random() < 0.9))
    verdict = trial.decide()
    assert (number, verdict.evidence.harmed) == (217, ("latency_s",))
    assert verdict.reasons[0].startswith("latency_s: worse by more than 0, among 2 guardrails")


def test_found_harm_stays_found() -> None:
    trial = CanaryTest(CONFIG)
    for _ in range(100):
        trial.observe(A, {"errors": 0.0, "latency_s": 1.0})
        trial.observe(B, {"errors": 1.0, "latency_s": 1.0})
    assert trial.evidence().harmed == ("errors",)
    for _ in range(400):
        trial.observe(A, {"errors": 1.0, "latency_s": 1.0})
        trial.observe(B, {"errors": 0.0, "latency_s": 1.0})
    assert trial.evidence().metrics["errors"].tests[Question.HARM].log_e < 0
    assert trial.decide().decision is Decision.ROLL_BACK


def test_absent_guardrails_hold() -> None:
    trial = CanaryTest(CONFIG)
    trial.begin(0.5)
    for _ in range(3000):
        trial.update(A, "accuracy", 0.0)
        trial.update(B, "accuracy", 1.0)
    verdict = trial.decide()
    assert verdict.decision is Decision.HOLD
    assert verdict.reasons == ("errors: 0 values an arm of 50", "latency_s: 0 values an arm of 50")
    assert trial.decide(time_is_up=True).decision is Decision.INCONCLUSIVE


def test_a_split_that_is_not_as_declared_asks() -> None:
    trial = CanaryTest(ALONE)
    trial.begin(0.5)
    for _ in range(2000):
        trial.count(A, "feedback")
    verdict = trial.decide()
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.reasons[0].startswith("the split of feedback is not as declared")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda trial: trial.update(A, "errors", 1.0), "give all metrics of one source"),
        (lambda trial: trial.update(A, "speed", 1.0), r"one of \[\['accuracy'\], \['errors', "),
        (lambda trial: trial.update(A, "accuracy", float("nan")), "accuracy: the value is not"),
        (lambda trial: trial.begin(5.0), "share is 5.0"),
        (
            lambda trial: trial.observe_pair({"accuracy": 1.0}, {"errors": 1.0}),
            "values of the same metrics",
        ),
    ],
)
def test_what_is_wrong_is_named_and_changes_nothing(act: Any, message: str) -> None:
    trial = CanaryTest(CONFIG)
    before = trial.state()
    with pytest.raises(ValueError, match=message):
        act(trial)
    assert trial.state() == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MetricSpec("a", effect=0.0), "a: effect is 0.0"),
        (lambda: MetricSpec("a", margin=1.0), "a: margin is 1.0"),
        (lambda: MetricSpec("a", harm_margin=-0.1), "a: harm_margin is -0.1"),
        (lambda: MetricSpec("a", expected=1.2), "a: expected is 1.2"),
        (lambda: Levels(harm=0.0), "levels.harm is 0.0"),
        (lambda: CanaryConfig(ACCURACY, guardrails=(ACCURACY,)), "share a name"),
        (lambda: CanaryConfig(ACCURACY, minimum=0), "minimum is 0"),
    ],
)
def test_a_bad_question_is_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_question_is_json() -> None:
    value = MetricSpec("value", Bounds(-10.0, 90.0), effect=0.05, harm_margin=0.01, expected=0.4)
    rank = MetricSpec("cost", Rank((0.1, 0.2)), higher_is_better=False, source="r", prove=True)
    config = CanaryConfig(value, Goal.GAIN, (rank, LATENCY), Levels(harm=0.01), 10, 99)
    assert CanaryConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_a_state_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 0, not 1"):
        CanaryTest.from_state(CanaryTest(ALONE).state() | {"version": 0})


ARMS = st.sampled_from([A, B])
BIT = st.sampled_from([0.0, 1.0])
CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.sampled_from([0.0, 0.05, 0.5, 1.0])),
        st.tuples(st.just("count"), ARMS, st.sampled_from(["requests", "feedback"])),
        st.tuples(st.just("update"), ARMS, st.just("accuracy"), st.floats(0, 1)),
        st.tuples(
            st.just("observe"),
            ARMS,
            st.fixed_dictionaries({"errors": BIT, "latency_s": st.floats(0, 9)}),
        ),
        st.tuples(st.just("update_pair"), st.just("accuracy"), BIT, BIT),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(CALLS, st.integers(0, 60))
def test_saved_at_any_point_it_goes_on_as_if_nothing_had_happened(
    calls: list[tuple[Any, ...]], cut: int
) -> None:
    straight, stopped = CanaryTest(CONFIG), CanaryTest(CONFIG)
    for number, (name, *arguments) in enumerate(calls):
        if number == cut:
            stopped = CanaryTest.from_state(json.loads(json.dumps(stopped.state())))
        getattr(straight, name)(*arguments)
        getattr(stopped, name)(*arguments)
    assert json.dumps(stopped.state()) == json.dumps(straight.state())
    assert stopped.decide() == straight.decide()


def test_a_split_that_a_person_lets_pass_is_checked_anew() -> None:
    draw = random.Random(1)
    trial = CanaryTest(CanaryConfig(MetricSpec("accuracy")))
    trial.begin(0.5)
    for _ in range(60):
        trial.count(Arm.CHAMPION)
    assert trial.decide().decision is Decision.INCONCLUSIVE
    trial = CanaryTest.from_state(trial.state())
    trial.recount()
    for _ in range(5000):
        trial.count(draw.choice(list(Arm)))
    assert trial.decide().decision is Decision.HOLD
    for _ in range(500):
        trial.count(Arm.CHAMPION)
    assert trial.decide().decision is Decision.INCONCLUSIVE
