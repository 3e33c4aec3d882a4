"""What a killed run finds, and what is taken of records at the edge."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from penstock.codec import encode
from penstock.pricing import PriceTable
from penstock.records import Outgoing, Partition, Record
from penstock.v1 import common_pb2, feedback_pb2, response_pb2
from penstock_retrain.canary.config import CanaryConfig, MetricSpec
from penstock_retrain.canary.journal import Journal
from penstock_retrain.canary.quantities import Opinion
from penstock_retrain.canary.trial import CanaryTest
from penstock_retrain.canary.wire import answer_of, copy_of, opinion_of

PRICES = PriceTable.parse(
    '{"triage": {"input_cost_per_token": 0.001, "output_cost_per_token": 0.002}}'
)


def test_a_journal_survives_json() -> None:
    trial = CanaryTest(CanaryConfig(MetricSpec("accuracy")))
    places = {"responses": {0: 17, 1: 3}, "feedback": {0: 0, 1: 9}}
    journal = Journal("c.x", "old", places, places, trial.state(), 5, version=3, percent=5.0)
    journal = dataclasses.replace(journal, trims=(places, places))
    kept = json.loads(json.dumps(journal.to_json()))
    assert Journal.from_json(kept) == journal
    # One that was kept before there were any.
    del kept["trims"]
    assert Journal.from_json(kept) == dataclasses.replace(journal, trims=())


def record(outgoing: Outgoing, timestamp_ms: int = 10_000) -> Record:
    return Record(
        Partition(outgoing.topic, 0),
        7,
        outgoing.key,
        outgoing.value,
        outgoing.headers,
        timestamp_ms,
    )


def response(key: str = "r1", **fields: Any) -> Record:
    given: dict[str, Any] = {
        "request_id": "r1",
        "outcome": response_pb2.OUTCOME_ANSWERED,
        "model": "triage",
        "variant": "new",
        "tenant": "acme",
        "usage": common_pb2.Usage(prompt_tokens=10, completion_tokens=5),
        "timings": response_pb2.Timings(total_s=2.5),
    }
    message = response_pb2.GenerateResponse(**(given | fields))
    return record(encode(message, topic="p.responses", key=key, source="test"))


def test_an_answer_as_it_is_compared() -> None:
    found = answer_of(response(), "triage", PRICES)
    assert found is not None
    assert (found.published_ms, found.unit, found.answered, found.failed) == (7500, "", True, False)
    assert found.cost_usd == pytest.approx(0.02)


def test_a_conversation_is_told_by_its_key_and_tenant() -> None:
    found = answer_of(response(key="talk"), "triage")
    assert found is not None
    assert (found.unit, found.cost_usd) == ("acme/talk", None)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "other"},
        {"purpose": common_pb2.PURPOSE_SHADOW},
        {"purpose": common_pb2.PURPOSE_REPLAY},
        {"purpose": common_pb2.PURPOSE_PROBE},
        {"labels": {"golden": "set-1"}},
    ],
)
def test_what_no_client_of_the_model_asked_is_not_compared(fields: dict[str, Any]) -> None:
    assert answer_of(response(key="r1", **fields), "triage") is None


@pytest.mark.parametrize(
    ("outcome", "answered", "failed"),
    [
        (response_pb2.OUTCOME_FAILED, False, True),
        (response_pb2.OUTCOME_EXPIRED, False, True),
        (response_pb2.OUTCOME_REJECTED, False, False),
        (response_pb2.OUTCOME_CANCELLED, False, False),
    ],
)
def test_who_is_at_fault(outcome: int, answered: bool, failed: bool) -> None:
    found = answer_of(response(outcome=outcome), "triage")
    assert found is not None
    assert (found.answered, found.failed) == (answered, failed)


def test_a_copy_answers_the_request_that_it_repeats() -> None:
    copy = response(request_id="r1~new", origin_request_id="r1", purpose=common_pb2.PURPOSE_SHADOW)
    found = copy_of(copy, "triage")
    assert found is not None
    assert (found.request_id, found.variant) == ("r1", "new")
    assert copy_of(response(), "triage") is None


def test_opinions() -> None:
    said = feedback_pb2.Feedback(request_id="r1", score=0.5, business_value=0.0, value_unit="EUR")
    outgoing = encode(said, topic="p.feedback", key="r1", source="test")
    assert opinion_of(record(outgoing)) == Opinion("r1", score=0.5, value=0.0, value_unit="EUR")
