"""From a record of `responses` to a drift event and an alert."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from penstock.codec import encode
from penstock.errors import InvalidRequest
from penstock.kafka.ports import LogError
from penstock.records import Outgoing, Partition, Record
from penstock.v1 import common_pb2, drift_pb2, response_pb2
from penstock_drift.agents import ResponseAgent
from penstock_drift.legacy import Detectors
from penstock_drift.publisher import ChangePublisher


class Written:
    def __init__(self) -> None:
        self.records: list[Outgoing] = []
        self.broken = False

    async def publish(self, records: Sequence[Outgoing]) -> None:
        if self.broken:
            raise LogError("broken")
        self.records.extend(records)

    def on(self, topic: str) -> list[Outgoing]:
        return [record for record in self.records if record.topic == topic]


def response(offset: int, tokens: int, outcome: int = response_pb2.OUTCOME_ANSWERED) -> Record:
    message = response_pb2.GenerateResponse(
        request_id=f"r{offset}",
        outcome=outcome,  # type: ignore[arg-type]
        text="secret",
        model="triage",
        variant="triage-base",
        usage=common_pb2.Usage(completion_tokens=tokens),
        log_probabilities=response_pb2.LogProbabilitySummary(mean=-0.1, tokens=tokens),
    )
    out = encode(message, topic="p.responses", key="k", source="test")
    return Record(Partition("p.responses", 0), offset, out.key, out.value, out.headers, 1_000)


def agent() -> tuple[ResponseAgent, Written]:
    written = Written()
    return ResponseAgent(Detectors(0.002, 100), ChangePublisher(written, "p")), written


SHIFTED = [response(n, 20 if n < 300 else 60) for n in range(500)]


async def test_a_shift_gives_an_event_and_an_alert_of_one_id() -> None:
    handler, written = agent()
    await handler.handle(SHIFTED)
    (event_record,), (alert_record,) = written.on("p.drift"), written.on("p.alerts")
    event = drift_pb2.DriftEvent.FromString(event_record.value or b"")
    assert (event.signal, event.kind) == ("completion_tokens", drift_pb2.DRIFT_KIND_OUTPUT)
    assert event.mean_before == 20
    # The kept window begins a little before the change.
    assert 40 < event.mean_after <= 60
    assert event.source.topic == "p.responses"
    assert 300 < event.source.offset < 340
    assert event_record.key == b"triage/triage-base"
    alert = json.loads(alert_record.value or b"")
    assert alert["state"] == "ALERT_STATE_OPENED"
    assert alert["incident_id"] == f"drift/{event.event_id}"
    assert alert["runbook"] == "docs/runbooks/drift.md"
    assert b"secret" not in (alert_record.value or b"") + (event_record.value or b"")


async def test_batches_of_any_size_give_the_same_records() -> None:
    whole, written_whole = agent()
    single, written_single = agent()
    await whole.handle(SHIFTED)
    for record in SHIFTED:
        await single.handle([record])
    assert [r.value for r in written_whole.records] == [r.value for r in written_single.records]


async def test_only_answers_are_looked_at() -> None:
    handler, written = agent()
    rejected = [
        response(n, 20 if n < 300 else 60, response_pb2.OUTCOME_REJECTED) for n in range(500)
    ]
    await handler.handle(rejected)
    assert written.records == []


async def test_a_change_that_could_not_be_published_is_published_with_the_next_batch() -> None:
    handler, written = agent()
    written.broken = True
    with pytest.raises(LogError):
        await handler.handle(SHIFTED)
    written.broken = False
    await handler.handle(SHIFTED)
    assert len(written.on("p.drift")) == len(written.on("p.alerts")) == 1


async def test_a_bad_record_leaves_the_detectors_as_they_were() -> None:
    handler, written = agent()
    bad = Record(Partition("p.responses", 0), 500, None, b"\xff\xff", (), 0)
    with pytest.raises(InvalidRequest):
        await handler.handle([*SHIFTED, bad])
    await handler.handle(SHIFTED)
    assert len(written.on("p.drift")) == 1
