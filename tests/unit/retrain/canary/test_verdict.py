"""From evidence to a verdict: a table of cases."""

from __future__ import annotations

import dataclasses
import json

import pytest

from penstock_retrain.canary import CanaryConfig, Decision, Evidence, Goal, MetricSpec
from penstock_retrain.canary.comparison import Question
from penstock_retrain.canary.verdict import MetricEvidence, Reading, decide

LATENCY = MetricSpec("latency", source="request")
COST = MetricSpec("cost", source="request", prove=True)
PLAIN = CanaryConfig(MetricSpec("accuracy"), minimum=50, horizon=1000)
GUARDED = dataclasses.replace(PLAIN, guardrails=(LATENCY, COST))
GAIN = dataclasses.replace(PLAIN, goal=Goal.GAIN)


def known(
    harm: bool = False, shown: bool = False, count: int = 500, gain: bool = False
) -> MetricEvidence:
    def reading(crossed: bool) -> Reading:
        return Reading(log_e=0.0, peak=3.1 if crossed else 1.0, threshold=3.0)

    question = Question.GAIN if gain else Question.NON_INFERIORITY
    return MetricEvidence(
        champion=count + 7,
        candidate=count,
        pairs=0,
        difference=-0.01 if count else None,
        tests={Question.HARM: reading(harm), question: reading(shown)},
    )


def evidence(
    primary: MetricEvidence,
    latency: MetricEvidence | None = None,
    cost: MetricEvidence | None = None,
    **more: tuple[str, ...],
) -> Evidence:
    given = {"accuracy": primary, "latency": latency, "cost": cost}
    metrics = {name: each for name, each in given.items() if each is not None}
    return Evidence(metrics, **more)  # type: ignore[arg-type]


NOTHING = known(count=0)


@pytest.mark.parametrize(
    ("config", "found", "decision", "first_reason"),
    [
        (PLAIN, evidence(NOTHING), Decision.HOLD, "accuracy: worse by less than 0.02, not shown"),
        (PLAIN, evidence(known()), Decision.HOLD, "accuracy: worse by less than 0.02, not shown"),
        (PLAIN, evidence(known(shown=True)), Decision.PROMOTE, "at level 0.05"),
        (PLAIN, evidence(known(shown=True, count=49)), Decision.HOLD, "49 values an arm of 50"),
        (PLAIN, evidence(known(harm=True)), Decision.ROLL_BACK, "accuracy: worse by more than 0"),
        # Both crossed: worse, but not by the margin. Caution wins.
        (PLAIN, evidence(known(harm=True, shown=True)), Decision.ROLL_BACK, "worse by more than"),
        # Harm needs no minimum.
        (PLAIN, evidence(known(harm=True, count=9)), Decision.ROLL_BACK, "9 values"),
        (PLAIN, evidence(known(count=1000)), Decision.INCONCLUSIVE, "horizon of 1000 values"),
        (PLAIN, evidence(known(shown=True, count=1000)), Decision.PROMOTE, "at level"),
        (
            PLAIN,
            evidence(known(shown=True), mismatched=("feedback",)),
            Decision.INCONCLUSIVE,
            "the split of feedback is not as declared",
        ),
        (
            PLAIN,
            evidence(known(harm=True), mismatched=("feedback",)),
            Decision.ROLL_BACK,
            "worse by more than",
        ),
        (GAIN, evidence(known(gain=True)), Decision.HOLD, "accuracy: better, not shown"),
        (GAIN, evidence(known(gain=True, shown=True)), Decision.PROMOTE, "accuracy: better"),
        # A guardrail without values holds; so does one that has to be proven and is not.
        (
            GUARDED,
            evidence(known(shown=True), NOTHING, known(shown=True)),
            Decision.HOLD,
            "latency: 0 values an arm of 50",
        ),
        (
            GUARDED,
            evidence(known(shown=True), known(), known()),
            Decision.HOLD,
            "cost: worse by less than 0.02, not shown",
        ),
        (
            GUARDED,
            evidence(known(shown=True, count=1000), NOTHING, known(shown=True)),
            Decision.INCONCLUSIVE,
            "horizon of 1000 values of accuracy is reached; latency: 0 values",
        ),
        (
            GUARDED,
            evidence(known(shown=True), known(), known(shown=True)),
            Decision.PROMOTE,
            "accuracy",
        ),
        (
            GUARDED,
            evidence(known(shown=True), known(), known(shown=True), harmed=("latency",)),
            Decision.ROLL_BACK,
            "latency: worse by more than 0, among 2 guardrails at level 0.05 (e-BH)",
        ),
        # A guardrail's own test alone says nothing: e-BH over all of them does.
        (
            GUARDED,
            evidence(known(shown=True), known(harm=True), known(shown=True)),
            Decision.PROMOTE,
            "accuracy",
        ),
    ],
)
def test_verdict(
    config: CanaryConfig, found: Evidence, decision: Decision, first_reason: str
) -> None:
    verdict = decide(config, found)
    assert verdict.decision is decision
    assert first_reason in verdict.reasons[0]


@pytest.mark.parametrize(
    ("found", "decision"),
    [
        (evidence(NOTHING), Decision.INCONCLUSIVE),
        (evidence(known()), Decision.INCONCLUSIVE),
        (evidence(known(shown=True, count=49)), Decision.INCONCLUSIVE),
        (evidence(known(shown=True)), Decision.PROMOTE),
        (evidence(known(harm=True)), Decision.ROLL_BACK),
    ],
)
def test_when_the_time_is_up_nothing_is_promoted_that_would_not_have_been(
    found: Evidence, decision: Decision
) -> None:
    assert decide(PLAIN, found, time_is_up=True).decision is decision


def test_a_verdict_is_json() -> None:
    verdict = decide(PLAIN, evidence(known(shown=True)))
    data = json.loads(json.dumps(verdict.to_json()))
    assert data["decision"] == "promote"
    assert data["evidence"]["metrics"]["accuracy"]["tests"]["harm"]["peak"] == 1.0
