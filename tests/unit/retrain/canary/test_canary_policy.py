"""What a policy says of shadow and canary, and the question that is made of it."""

from __future__ import annotations

import math

import pytest

from penstock_retrain.canary.config import Goal
from penstock_retrain.canary.policy import CanaryPolicy, MetricPolicy
from penstock_retrain.canary.quantities import QUANTITIES, Answer, Opinion, Reading
from penstock_retrain.canary.reference import MIN_VALUES, Reference, prospects_of
from penstock_retrain.canary.scales import UNIT, Bounds, Limit
from penstock_retrain.cli.views import prospect_lines
from penstock_retrain.jobs.policy import PolicyError, merged_document, parse_policy


def test_the_default_policy_asks_what_its_comments_say() -> None:
    policy = parse_policy("").canary
    assert policy.goal is Goal.NON_INFERIORITY
    assert [each.metric for each in policy.metrics] == ["accuracy", "error", "latency_s"]
    assert [step.percent for step in policy.steps] == [5, 25, 50]
    assert parse_policy(merged_document("")) == parse_policy("")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("canary: {primary: {metric: accurracy}}", "canary.primary.metric: not known; use one of"),
        ("canary: {primary: {metric: value}}", "a business value needs bounds"),
        ("canary: {steps: [{percent: 50}, {percent: 5}]}", "each with more per cent than the last"),
        ("canary: {steps: [{percent: 100}]}", "canary.steps.0.percent"),
        ("canary: {minimun: 5}", "did you mean minimum?"),
        ("canary: {guardrails: [{metric: accuracy}]}", "named twice"),
        ("canary: {guardrails: [{metric: latency_s, limit: 1, bounds: [0, 1]}]}", "not both"),
        ("shadow: {percent: 101}", "shadow.percent"),
    ],
)
def test_what_a_policy_must_not_say_is_refused_before_a_job_begins(
    document: str, says: str
) -> None:
    with pytest.raises(PolicyError) as raised:
        parse_policy(document)
    assert says in str(raised.value)


def test_a_scale_without_bounds_is_made_of_the_champions_values() -> None:
    policy = parse_policy("").canary
    reference = Reference(policy)
    assert reference.missing() == ["latency_s"]
    for n in range(100):
        reference.add({"accuracy": float(n % 10 > 0), "error": 0.0})
        reference.add({"latency_s": math.inf if n == 99 else n / 100})
    assert reference.missing() == []
    config = reference.config()
    assert config.primary.scale == UNIT
    assert config.primary.expected == pytest.approx(0.9)
    latency = config.guardrails[1]
    # The 95th percentile of those that came; 5 of the 100 took longer, one of them for ever.
    assert latency.scale == Limit(0.94)
    assert latency.expected == pytest.approx(0.95)
    assert latency.source == config.guardrails[0].source


def test_too_few_values_make_no_expectation() -> None:
    reference = Reference(CanaryPolicy())
    for _ in range(MIN_VALUES - 1):
        reference.add({"accuracy": 1.0})
    assert reference.config().primary.expected is None


def test_bounds_and_limits_of_the_policy_stand() -> None:
    value = MetricPolicy(metric="value", bounds=(-5, 20), unit="EUR")
    policy = CanaryPolicy(primary=value, guardrails=(MetricPolicy(metric="cost_usd", limit=0.01),))
    config = Reference(policy).config()
    assert config.primary.scale == Bounds(-5, 20)
    assert config.guardrails[0].scale == Limit(0.01)
    assert policy.reading() == Reading("", "EUR")


def test_what_a_canary_will_tell_is_shown_step_by_step() -> None:
    policy = parse_policy("canary: {horizon: 2000}").canary
    reference = Reference(policy)
    for n in range(200):
        reference.add({"accuracy": float(n % 10 > 0), "latency_s": 0.1, "error": 0.0})
    found = prospects_of(policy, reference.config(), pairs=200)
    assert found["champion_mean"] == 0.9
    assert [step["values"] for step in found["steps"]] == [250, 350, 450, 2200]
    harms = [step["smallest_harm_found"] for step in found["steps"]]
    assert harms == sorted(harms, reverse=True)
    assert found["steps"][-1]["promotes_an_equal_one"] > 0.5
    assert found["steps"][-1]["smallest_gain_found"] is None
    lines = list(prospect_lines(found))
    assert lines[0] == "prospects of accuracy, whose mean score of the champion is 0.9:"
    assert lines[1].startswith("  by 250 values at 5 %, finds a harm of ")
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("text", "label", "field", "expected"),
    [
        ("Billing ", "billing", "", 1.0),
        ('{"category": "billing", "urgency": 3}', "billing", "", 1.0),
        ('{"category": "bug", "team": "billing"}', "billing", "category", 0.0),
        ('{"category": "billing", "urgency": 3}', '{"urgency": 3}', "", 1.0),
        ('{"category": "billing", "urgency": 3}', '{"urgency": 4}', "", 0.0),
        ("no JSON", "no JSON", "category", 0.0),
        ("no JSON", '{"urgency": 4}', "", 0.0),
    ],
)
def test_an_answer_is_right_where_it_is_what_the_label_says(
    text: str, label: str, field: str, expected: float
) -> None:
    answer = Answer("r", "v", 1, 0, text=text)
    drawn = QUANTITIES["accuracy"].draw(answer, Opinion("r", label=label), Reading(field))
    assert drawn == expected


def test_a_correction_is_the_right_answer_to_the_word() -> None:
    accuracy = QUANTITIES["accuracy"].draw
    answer = Answer("r", "v", 1, 0, text="Yes,  of course")
    assert accuracy(answer, Opinion("r", correction="yes, of course"), Reading()) == 1.0
    assert accuracy(answer, Opinion("r", correction="no"), Reading()) == 0.0
    assert accuracy(answer, Opinion("r", score=1.0), Reading()) is None
