"""Every record of `requests` ends in an admitted record or in its one terminal response."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf import json_format

from penstock.codec import decode
from penstock.errors import Code
from penstock.kafka.consumer import TransactionalConsumer
from penstock.kafka.memory import MemoryBroker
from penstock.kafka.ports import LogError
from penstock.records import Outgoing, Partition, Record
from penstock.routing import RouteTable
from penstock.v1 import admitted_pb2, request_pb2, response_pb2, route_pb2
from penstock_ingest.admission.pipeline import Admission
from penstock_ingest.admission.quota import TenantQuota
from penstock_ingest.doors.kafka_door import KafkaDoor
from penstock_ingest.waiting.index import KnownIds

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
JSON_TYPE = (("content-type", b"application/json"),)


def routes() -> RouteTable:
    table = RouteTable()
    route = route_pb2.Route(model="triage", version=1)
    route.variants.add(name="base", base_model="m", weight=1, stage=route_pb2.STAGE_CHAMPION)
    table.apply(route)
    return table


@pytest.fixture
def door() -> KafkaDoor:
    return KafkaDoor(
        admission=Admission(routes(), max_request_bytes=10_000),
        known=KnownIds(3600),
        quota=TenantQuota(100),
        topic_prefix="penstock",
        clock=lambda: NOW,
    )


def record(value: bytes | None, *, offset: int = 0, **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "partition": Partition("penstock.requests", 1),
        "offset": offset,
        "key": None,
        "value": value,
        "headers": (),
        "timestamp_ms": int(NOW.timestamp() * 1000),
    }
    return Record(**{**fields, **changes})


def delivered(outgoing: Outgoing) -> Record:
    return Record(
        Partition(outgoing.topic, 0), 0, outgoing.key, outgoing.value, outgoing.headers, 0
    )


@dataclasses.dataclass
class Taken:
    """A delivery whose outputs the test looks at."""

    record: Record
    outputs: Sequence[Outgoing] | None = None
    dropped: bool = False

    def complete(self, outputs: Sequence[Outgoing], *, dead: bool = False) -> None:
        assert self.outputs is None
        self.outputs = outputs


def handle(door: KafkaDoor, sent: Record) -> Sequence[Outgoing]:
    taken = Taken(sent)
    door.accept(taken)  # type: ignore[arg-type]
    assert taken.outputs is not None
    return taken.outputs


async def only(door: KafkaDoor, sent: Record) -> Outgoing:
    (outgoing,) = handle(door, sent)
    return outgoing


async def test_json_without_headers_is_admitted(door: KafkaDoor) -> None:
    out = await only(door, record(b' {"prompt": "hello", "timeout": "5s"}'))
    admitted = decode(delivered(out), admitted_pb2.AdmittedRequest)
    assert out.topic == "penstock.admitted"
    assert out.key == admitted.request_id.encode()
    assert admitted.encoding == admitted_pb2.ENCODING_JSON
    assert (admitted.source.partition, admitted.source.offset) == (1, 0)
    assert admitted.deadline.ToDatetime(dt.UTC) == NOW + dt.timedelta(seconds=5)
    assert not admitted.HasField("reply_partition")
    assert dict(out.headers)["ce_id"].decode() == admitted.request_id


async def test_the_same_record_is_the_same_request(door: KafkaDoor) -> None:
    first, again, other = [
        decode(
            delivered(await only(door, record(b'{"prompt":"x"}', offset=o))),
            admitted_pb2.AdmittedRequest,
        )
        for o in (7, 7, 8)
    ]
    assert first == again
    assert first.request_id != other.request_id


async def test_the_records_key_orders_and_only_if_there_is_one(door: KafkaDoor) -> None:
    keyed = await only(door, record(b'{"prompt":"x","ordering_key":"own"}', key=b"conversation"))
    own = await only(door, record(b'{"prompt":"x","ordering_key":"own"}'))
    assert (keyed.key, own.key) == (b"conversation", b"own")
    for out, ordering_key in ((keyed, "conversation"), (own, "own")):
        admitted = decode(delivered(out), admitted_pb2.AdmittedRequest)
        assert admitted.request.ordering_key == ordering_key
    free = decode(
        delivered(await only(door, record(b'{"prompt":"x"}'))), admitted_pb2.AdmittedRequest
    )
    assert not free.request.ordering_key


@pytest.mark.parametrize(
    ("value", "headers", "code", "field", "as_json", "dead"),
    [
        (b'{"prompt": ', (), "MALFORMED", "value", True, True),
        (b'{"prompt": 5}', JSON_TYPE, "MALFORMED", "value", True, True),
        (b'{"promt": "x"}', JSON_TYPE, "MALFORMED", "value", True, True),
        (b"\xff\xfe\x00", (), "MALFORMED", "value", False, True),
        (b"not json", JSON_TYPE, "MALFORMED", "value", True, True),
        (None, (), "MALFORMED", "value", False, True),
        (
            b'{"prompt":"x"}',
            (("content-type", b"text/plain"),),
            "MALFORMED",
            "content-type",
            True,
            True,
        ),
        (b'{"prompt":"x","model":"nope"}', (), "UNKNOWN_MODEL", "model", True, False),
        (b'{"prompt":" "}', (), "INVALID_ARGUMENT", "prompt", True, False),
        (b'{"prompt":"' + b"x" * 11_000 + b'"}', (), "TOO_LARGE", "value", True, False),
        (b"\x12" + b"x" * 11_000, (), "TOO_LARGE", "value", False, False),
    ],
)
async def test_a_fault_gets_its_response(
    door: KafkaDoor,
    value: bytes | None,
    headers: tuple[tuple[str, bytes], ...],
    code: str,
    field: str,
    as_json: bool,
    dead: bool,
) -> None:
    sent = record(value, headers=headers, key=b"k")
    response_record, *letters = handle(door, sent)
    assert response_record.topic == "penstock.responses"
    assert response_record.key == b"k"
    assert dict(response_record.headers)["content-type"].endswith(b"json") == as_json
    response = decode(delivered(response_record), response_pb2.GenerateResponse)
    assert response.outcome == response_pb2.OUTCOME_REJECTED
    assert response.error.code == Code.Value(f"ERROR_CODE_{code}")
    assert response.error.field == field
    assert response.request_id
    assert [letter.topic for letter in letters] == ["penstock.dlq"] * dead
    for letter in letters:
        assert letter.value == value
        assert b"kafka_dlt-original-offset" in [n.encode() for n, _ in letter.headers]


async def test_a_refused_request_keeps_its_names_and_its_key_stays_free(door: KafkaDoor) -> None:
    body = {"prompt": " ", "idempotency_key": "k", "tenant": "t", "labels": {"a": "b"}}
    refused = decode(
        delivered(await only(door, record(json.dumps(body).encode()))),
        response_pb2.GenerateResponse,
    )
    assert (refused.idempotency_key, refused.tenant, dict(refused.labels)) == ("k", "t", {"a": "b"})
    body["prompt"] = "better"
    out = await only(door, record(json.dumps(body).encode(), offset=1))
    assert out.topic == "penstock.admitted"
    assert decode(delivered(out), admitted_pb2.AdmittedRequest).request_id != refused.request_id


async def test_what_waited_too_long_expires(door: KafkaDoor) -> None:
    early = int(NOW.timestamp() * 1000) - 10_000
    out = await only(door, record(b'{"prompt":"x","timeout":"5s"}', timestamp_ms=early))
    response = decode(delivered(out), response_pb2.GenerateResponse)
    assert response.outcome == response_pb2.OUTCOME_EXPIRED
    assert response.error.code == Code.ERROR_CODE_DEADLINE_EXCEEDED


async def test_a_repeat_of_a_named_request_writes_nothing(door: KafkaDoor) -> None:
    named = b'{"prompt":"x","idempotency_key":"k"}'
    assert len(handle(door, record(named, offset=1))) == 1
    assert len(handle(door, record(named, offset=1))) == 1  # handled again after a fault
    assert handle(door, record(named, offset=2)) == []


async def test_an_unforeseen_failure_is_answered_and_kept(door: KafkaDoor) -> None:
    response_record, letter = door.failed(record(b'{"prompt":"secret"}'), RuntimeError("secret"))
    response = decode(delivered(response_record), response_pb2.GenerateResponse)
    assert response.outcome == response_pb2.OUTCOME_FAILED
    assert response.error.code == Code.ERROR_CODE_INTERNAL
    assert "secret" not in response.error.message
    assert all(b"secret" not in value for _, value in letter.headers)


async def test_a_transaction_that_is_undone_loses_and_doubles_nothing() -> None:
    broker = MemoryBroker(partitions=2)
    door = KafkaDoor(
        admission=Admission(routes()),
        known=KnownIds(3600),
        quota=TenantQuota(100),
        topic_prefix="penstock",
        clock=lambda: dt.datetime.now(dt.UTC),
    )
    for n in range(40):
        request = request_pb2.GenerateRequest(prompt="x", idempotency_key=f"k{n % 20}")
        broker.append(
            Outgoing(
                "penstock.requests",
                str(n % 20).encode(),
                json_format.MessageToJson(request).encode(),
            )
        )
    broker.fail_next_commit = LogError("the broker went away")
    consumer = TransactionalConsumer(
        broker, topic="penstock.requests", group="penstock-ingest", handler=door
    )
    task = asyncio.create_task(consumer.run())
    give_up = time.monotonic() + 20
    while len(broker.read("penstock.admitted")) < 20 and time.monotonic() < give_up:
        await asyncio.sleep(0.01)
    await consumer.stop(5)
    await task
    keys = [
        decode(r, admitted_pb2.AdmittedRequest).request.idempotency_key
        for r in broker.read("penstock.admitted")
    ]
    assert sorted(keys) == sorted(f"k{n}" for n in range(20))
    assert broker.read("penstock.responses") == []
