"""Shadow copies and the tenant's bound at the Kafka door and in what ingest reads of the log."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable

import pytest

from penstock.codec import decode, encode
from penstock.errors import Code
from penstock.kafka.consumer import TransactionalConsumer
from penstock.kafka.memory import MemoryBroker
from penstock.kafka.ports import LogError
from penstock.records import Outgoing, Record
from penstock.routing import RouteTable
from penstock.v1 import admitted_pb2, common_pb2, response_pb2, route_pb2
from penstock_ingest.admission.pipeline import Admission
from penstock_ingest.admission.quota import TenantQuota
from penstock_ingest.doors.kafka_door import KafkaDoor
from penstock_ingest.log_view import LogView
from penstock_ingest.waiting.index import KnownIds, ResponseIndex
from penstock_ingest.waiting.waiters import Waiters


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Door:
    """The Kafka door over a log in memory, with what an instance reads of it."""

    def __init__(self, max_queued: int = 100) -> None:
        self.broker = MemoryBroker(partitions=1)
        self.routes = RouteTable()
        self.index = ResponseIndex(3600, 1 << 20)
        self.known = KnownIds(3600)
        self.quota = TenantQuota(max_queued)
        self.view = LogView(
            routes=self.routes,
            waiters=Waiters(10),
            index=self.index,
            known=self.known,
            quota=self.quota,
            clock=now,
        )
        self.route(1)

    def route(self, version: int, shadow: int = 100, **changes: str) -> None:
        route = route_pb2.Route(model="triage", version=version)
        base = changes.get("base", "base")
        route.variants.add(name=base, base_model="m", weight=1, stage=route_pb2.STAGE_CHAMPION)
        route.variants.add(
            name="shadow", base_model="m", weight=shadow, stage=route_pb2.STAGE_SHADOW
        )
        self.view.route(self.append("routes", route, "triage"))

    def append(
        self,
        topic: str,
        message: route_pb2.Route | response_pb2.GenerateResponse | admitted_pb2.AdmittedRequest,
        key: str,
    ) -> Record:
        return self.broker.append(
            encode(message, topic=f"penstock.{topic}", key=key, source="test")
        )

    def admitted(self) -> list[admitted_pb2.AdmittedRequest]:
        return [
            decode(r, admitted_pb2.AdmittedRequest) for r in self.broker.read("penstock.admitted")
        ]

    def responses(self) -> list[response_pb2.GenerateResponse]:
        return [
            decode(r, response_pb2.GenerateResponse) for r in self.broker.read("penstock.responses")
        ]

    async def consume(self, *requests: str, until: Callable[[], bool]) -> None:
        for request in requests:
            self.broker.append(Outgoing("penstock.requests", b"talk", request.encode()))
        door = KafkaDoor(
            admission=Admission(self.routes),
            known=self.known,
            quota=self.quota,
            topic_prefix="penstock",
            clock=now,
        )
        consumer = TransactionalConsumer(
            self.broker, topic="penstock.requests", group="penstock-ingest", handler=door
        )
        task = asyncio.create_task(consumer.run())
        give_up = time.monotonic() + 20
        while not until():
            assert time.monotonic() < give_up, (self.admitted(), self.responses())
            await asyncio.sleep(0.01)
        await consumer.stop(5)
        await task


async def test_a_copy_is_written_with_its_request_under_the_same_key() -> None:
    door = Door()
    await door.consume('{"prompt": "a"}', until=lambda: len(door.admitted()) == 2)
    request, copy = door.admitted()
    assert copy.origin_request_id == request.request_id
    assert {r.key for r in door.broker.read("penstock.admitted")} == {b"talk"}
    assert [r.header("ce_id") for r in door.broker.read("penstock.admitted")] == [
        request.request_id,
        f"{request.request_id}~shadow",
    ]


async def test_a_transaction_that_is_undone_takes_the_copies_with_it() -> None:
    door = Door()
    door.broker.fail_next_commit = LogError("the broker went away")
    sent = [f'{{"prompt": "{n}"}}' for n in range(5)]
    await door.consume(*sent, until=lambda: len(door.admitted()) >= 10)
    names = [a.request_id for a in door.admitted()]
    assert len(names) == len(set(names)) == 10
    assert door.quota.queued("default", now().timestamp()) == 5


async def test_over_its_bound_a_tenants_record_ends_with_the_reason() -> None:
    door = Door(max_queued=2)
    sent = [f'{{"prompt": "{n}", "tenant": "acme"}}' for n in range(3)]
    await door.consume(
        *sent, '{"prompt": "x", "tenant": "rival"}', until=lambda: len(door.admitted()) == 6
    )
    (refused,) = door.responses()
    assert (refused.outcome, refused.tenant) == (response_pb2.OUTCOME_REJECTED, "acme")
    assert refused.error.code == Code.ERROR_CODE_OVERLOADED
    assert refused.error.retryable
    assert "2 requests queued" in refused.error.message
    assert door.broker.read("penstock.dlq") == []


async def test_a_refused_request_does_not_use_its_key_up() -> None:
    door = Door(max_queued=1)
    sent = '{"prompt": "a", "idempotency_key": "k"}'
    await door.consume('{"prompt": "first"}', sent, until=lambda: len(door.responses()) == 1)
    first = door.admitted()[0]
    ended = response_pb2.GenerateResponse(request_id=first.request_id, tenant="default")
    door.view.response(door.append("responses", ended, "talk"))
    await door.consume(sent, until=lambda: len(door.admitted()) == 4)
    assert door.admitted()[2].request.idempotency_key == "k"


async def test_what_is_read_back_counts_clients_requests_only() -> None:
    door = Door()
    await door.consume('{"prompt": "a"}', until=lambda: len(door.admitted()) == 2)
    others = [
        admitted_pb2.AdmittedRequest(request_id=f"other-{purpose}", purpose=purpose)
        for purpose in (common_pb2.PURPOSE_REPLAY, common_pb2.PURPOSE_PROBE)
    ]
    for other in others:
        other.deadline.GetCurrentTime()
        other.deadline.seconds += 100
        other.request.tenant = "default"
        door.append("admitted", other, "k")
    for record in door.broker.read("penstock.admitted"):
        door.view.admitted(record)
    assert door.quota.queued("default", now().timestamp()) == 1
    request, copy = door.admitted()[:2]
    assert request.request_id in door.known
    assert copy.request_id not in door.known
    for purpose in (common_pb2.PURPOSE_SHADOW, common_pb2.PURPOSE_PROBE):
        response = response_pb2.GenerateResponse(
            request_id=copy.request_id, tenant="default", purpose=purpose
        )
        door.view.response(door.append("responses", response, "k"))
    assert len(door.index) == 0
    response = response_pb2.GenerateResponse(request_id=request.request_id, tenant="default")
    door.view.response(door.append("responses", response, "k"))
    assert len(door.index) == 1
    assert door.quota.queued("default", now().timestamp()) == 0


async def test_a_copys_answer_cannot_be_fetched() -> None:
    door = Door()
    copy = response_pb2.GenerateResponse(
        request_id="r~shadow", tenant="default", purpose=common_pb2.PURPOSE_SHADOW
    )
    door.view.response(door.append("responses", copy, "k"))
    assert door.index.find("r~shadow", "default", now().timestamp()) is None


@pytest.mark.parametrize(("version", "shadow"), [(1, 5), (0, 5), (2, 500)])
def test_a_route_that_is_older_or_broken_changes_nothing(version: int, shadow: int) -> None:
    door = Door()
    door.route(version, shadow, base="other")
    assert "base" in door.routes.find("triage").variants
    door.route(3, 50)
    assert door.routes.find("triage").variants["shadow"].weight == 50
