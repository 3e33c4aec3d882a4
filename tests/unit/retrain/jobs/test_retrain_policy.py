"""What may start a job: quality evidence that asks for it, within cool-down and budget."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.v1 import drift_pb2
from penstock_retrain.jobs.policy import (
    DAY_US,
    Ask,
    PastJob,
    PolicyError,
    ask_of,
    backoff_s,
    default_document,
    merged_document,
    parse_policy,
    refusal,
)
from penstock_retrain.jobs.states import CauseKind, JobState

NOW = 10 * DAY_US
S = 1_000_000


def event(**fields: Any) -> drift_pb2.DriftEvent:
    said = {
        "event_id": "e1",
        "model": "triage",
        "variant": "triage-base",
        "signal": "accuracy",
        "kind": drift_pb2.DRIFT_KIND_QUALITY,
        "state": drift_pb2.DRIFT_STATE_DRIFT,
        "action": "retrain",
        "incident_id": "i1",
        "mean_before": 0.9,
        "mean_after": 0.7,
    }
    made = drift_pb2.DriftEvent(**(said | fields))
    made.detected_at.FromMicroseconds(NOW - 5 * S)
    return made


def test_a_finding_of_quality_asks() -> None:
    ask = ask_of(event())
    assert ask is not None
    assert (ask.model, ask.cause.id, ask.cause.event_id) == ("triage", "i1", "e1")
    assert ask.found_us == NOW - 5 * S
    assert ask.cause.reason == "accuracy of triage-base went from 0.9 to 0.7"


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": kind}
        for kind in drift_pb2.DriftKind.values()
        if kind != drift_pb2.DRIFT_KIND_QUALITY
    ]
    + [
        {"action": ""},
        {"action": "rollback_route"},
        {"state": drift_pb2.DRIFT_STATE_SUSPECT},
        {"state": drift_pb2.DRIFT_STATE_COOLDOWN},
        {"model": ""},
        {"event_id": ""},
    ],
)
def test_nothing_else_asks(fields: dict[str, Any]) -> None:
    assert ask_of(event(**fields)) is None


def past(
    ended_s: float | None, *, opened_s: float, kind: str = "incident", used: float = 60
) -> PastJob:
    ended = None if ended_s is None else NOW - round(ended_s * S)
    return PastJob(CauseKind(kind), NOW - round(opened_s * S), ended, used)


@pytest.mark.parametrize(
    ("document", "jobs", "said"),
    [
        ("", [], None),
        ("start: {enabled: false}", [], "by itself"),
        ("start: {models: ['other*']}", [], "no jobs for triage"),
        ("start: {max_age_s: 4}", [], "5 s old"),
        ("", [past(None, opened_s=10)], "active job"),
        ("", [past(3599, opened_s=4000)], "3599 s ago"),
        ("", [past(3601, opened_s=4000)], None),
        # A job that a person started cools down too, but uses no budget.
        ("", [past(60, opened_s=4000, kind="manual")], "60 s ago"),
        (
            "budget: {jobs_per_day: 1}",
            [past(3601, opened_s=4000, kind="manual")],
            None,
        ),
        ("budget: {jobs_per_day: 1}", [past(3601, opened_s=4000)], "1 job within a day"),
        ("budget: {jobs_per_day: 1}", [past(90_000, opened_s=90_100)], None),
        ("budget: {jobs_per_day: 0}", [], "0 jobs within a day"),
        ("budget: {compute_s_per_day: 60}", [past(3601, opened_s=4000)], "used 60 s"),
    ],
)
def test_the_policy_bounds_what_starts_by_itself(
    document: str, jobs: list[PastJob], said: str | None
) -> None:
    ask = ask_of(event())
    assert isinstance(ask, Ask)
    why_not = refusal(parse_policy(document), ask, jobs, NOW)
    assert (why_not is None) == (said is None)
    assert said is None or said in str(why_not)


def test_sections_are_laid_over_the_default() -> None:
    policy = parse_policy(
        "start: {cooldown_s: 5}\napprove_before: [canary, promotion]\ntraining: {a: 1}"
    )
    assert (policy.start.cooldown_s, policy.start.max_age_s) == (5, 3600)
    assert policy.approvals == {JobState.CANARY, JobState.PROMOTED}
    assert policy.training == {"a": 1}
    assert parse_policy(merged_document("training: {a: 1}")).training == {"a": 1}
    assert parse_policy(default_document()) == parse_policy("")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("start: {cool_down_s: 5}", "start.cool_down_s: not known; did you mean cooldown_s?"),
        ("approve_before: [lunch]", "approve_before.0"),
        ("attempts: {max: 0}", "attempts.max"),
        ("- 1", "no policy"),
        ("a: [", "no YAML: line 1"),
        ("training: 5", "training"),
    ],
)
def test_what_is_no_policy_names_the_field(document: str, said: str) -> None:
    with pytest.raises(PolicyError) as refused:
        parse_policy(document)
    assert said in str(refused.value)


def test_waits_double_up_to_a_bound() -> None:
    policy = parse_policy("attempts: {backoff_s: 5, max_backoff_s: 30}")
    assert [backoff_s(policy, n) for n in (1, 2, 3, 4, 50)] == [5, 10, 20, 30, 30]
