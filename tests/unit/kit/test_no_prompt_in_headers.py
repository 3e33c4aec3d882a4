"""Whatever writes a dead letter: no header, of it or of what goes with it, holds prompt text."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence

import pytest

from penstock.errors import Code, InvalidRequest
from penstock.failures import Poisoned
from penstock.kafka.dlq import Letter
from penstock.kafka.guard import DeadLetters, Guard
from penstock.kafka.limits import Breach
from penstock.records import Outgoing, Partition, Record
from penstock.routing import RouteTable
from penstock.v1 import admitted_pb2
from penstock_inference.pump.answers import Answers
from penstock_ingest.admission.pipeline import Admission
from penstock_ingest.admission.quota import TenantQuota
from penstock_ingest.doors.kafka_door import KafkaDoor
from penstock_ingest.waiting.index import KnownIds

MARKER = "MARKER-of-a-prompt"
NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
ERRORS = [
    ValueError(MARKER),
    KeyError(MARKER),
    InvalidRequest(f"cannot parse {MARKER}", code=Code.ERROR_CODE_MALFORMED, field="value"),
    Poisoned(MARKER),
]


def record(topic: str, value: bytes, content_type: str = "application/json") -> Record:
    headers = (("content-type", content_type.encode()),)
    return Record(Partition(topic, 1), 7, b"key", value, headers, 1_777_636_800_000)


def check(outputs: Sequence[Outgoing]) -> None:
    letters = [output for output in outputs if output.topic == "p.dlq"]
    assert len(letters) == 1
    read = Record(Partition("p.dlq", 0), 0, None, letters[0].value, letters[0].headers, 0)
    assert Letter.of(read).service
    for output in outputs:
        for name, value in output.headers:
            assert MARKER.encode() not in value, name
            assert MARKER not in name


class Delivered:
    """A record on its way through a handler, and what it ended with."""

    deaths = 0
    dropped = False

    def __init__(self, sent: Record) -> None:
        self.record = sent
        self.outputs: Sequence[Outgoing] = ()

    def on_drop(self, callback: Callable[[], None]) -> None:
        pass

    def complete(self, outputs: Sequence[Outgoing], *, dead: bool = False) -> None:
        # One producer could stop the topic for all if its own mistakes counted.
        assert not dead
        self.outputs = outputs


def handled(door: KafkaDoor, sent: Record) -> Sequence[Outgoing]:
    delivery = Delivered(sent)
    door.accept(delivery)  # type: ignore[arg-type]
    return delivery.outputs


@pytest.fixture
def door() -> KafkaDoor:
    return KafkaDoor(
        admission=Admission(RouteTable(), max_request_bytes=10_000),
        known=KnownIds(3600),
        quota=TenantQuota(100),
        topic_prefix="p",
        clock=lambda: NOW,
    )


@pytest.mark.parametrize(
    "value",
    [
        f'{{"prompt": "{MARKER}',
        f'{{"prompt": "x", "{MARKER}": 1}}',
        f'{{"sampling": {{"seed": "{MARKER}"}}}}',
        f'["{MARKER}"]',
    ],
)
def test_ingest_with_what_it_cannot_read(door: KafkaDoor, value: str) -> None:
    check(handled(door, record("p.requests", value.encode())))


def test_ingest_with_an_encoding_it_does_not_know(door: KafkaDoor) -> None:
    check(handled(door, record("p.requests", MARKER.encode(), "text/csv")))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_ingest_with_what_its_handler_raises_at(door: KafkaDoor, error: Exception) -> None:
    check(door.failed(record("p.requests", f'{{"prompt": "{MARKER}"}}'.encode()), error))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("readable", [True, False])
def test_inference_with_what_it_gives_up(error: Exception, readable: bool) -> None:
    admitted = admitted_pb2.AdmittedRequest(request_id="req-1", variant="base")
    admitted.request.prompt = MARKER
    value = admitted.SerializeToString() if readable else MARKER.encode()
    sent = record("p.admitted", value, "application/protobuf")
    check(Answers("p", "group").given_up(sent, error, NOW.timestamp()))


class World:
    def __init__(self) -> None:
        self.written: list[Outgoing] = []

    async def publish(self, records: Sequence[Outgoing]) -> None:
        self.written.extend(records)

    async def hold(self, partition: Partition, breach: Breach) -> None:
        raise AssertionError(breach)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_cost_and_drift_with_what_they_cannot_use(error: Exception) -> None:
    world = World()

    async def handle(records: Sequence[Record]) -> None:
        raise error

    letters = DeadLetters(world, "p.dlq", "cost", "group", world)
    await Guard(handle, letters).handle([record("p.usage", MARKER.encode())])
    check(world.written)
