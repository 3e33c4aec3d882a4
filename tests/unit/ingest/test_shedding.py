"""The Kafka door while requests are shed: one clear rejection each, and no copies for shadows."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence

import pytest

from penstock.codec import decode
from penstock.errors import Code
from penstock.measures import Kind, Measure, Measures, measure_record
from penstock.records import Outgoing
from penstock.routing import RouteTable
from penstock.v1 import admitted_pb2, response_pb2, route_pb2
from penstock_ingest.admission.pipeline import Admission
from penstock_ingest.admission.quota import TenantQuota
from penstock_ingest.admission.shedding import Shedding
from penstock_ingest.doors.kafka_door import KafkaDoor
from penstock_ingest.waiting.index import KnownIds
from tests.unit.ingest.test_kafka_door import NOW, delivered, handle, record

MINUTE = dt.timedelta(minutes=1)


class Door:
    """A Kafka door whose clock the test holds."""

    def __init__(self) -> None:
        self.now, self.measures, self.quota = NOW, Measures(), TenantQuota(1000)
        routes = RouteTable()
        route = route_pb2.Route(model="triage", version=1)
        route.variants.add(name="base", base_model="m", weight=1, stage=route_pb2.STAGE_CHAMPION)
        route.variants.add(name="dark", base_model="m", weight=100, stage=route_pb2.STAGE_SHADOW)
        routes.apply(route)
        self.door = KafkaDoor(
            admission=Admission(routes),
            known=KnownIds(3600),
            quota=self.quota,
            topic_prefix="penstock",
            clock=lambda: self.now,
            shedding=Shedding(self.measures),
        )

    def shed(self, name: str = "m-1", **more: object) -> None:
        made = Measure(name, Kind.SHED, "triage", self.now, self.now + 10 * MINUTE, **more)  # type: ignore[arg-type]
        written = delivered(measure_record(made, "penstock.control", "test"))
        stamp = round(self.now.timestamp() * 1000)
        self.measures.take(dataclasses.replace(written, timestamp_ms=stamp))

    def handle(self, value: bytes, offset: int = 0) -> Sequence[Outgoing]:
        return handle(self.door, record(value, offset=offset))


def test_a_refused_request_gets_its_one_response_with_the_reason() -> None:
    door = Door()
    door.shed(priority_above=5)
    (out,) = door.handle(b'{"prompt": "x", "priority": 6}')
    assert out.topic == "penstock.responses"
    response = decode(delivered(out), response_pb2.GenerateResponse)
    assert response.outcome == response_pb2.OUTCOME_REJECTED
    assert (response.error.code, response.error.retryable) == (Code.ERROR_CODE_OVERLOADED, True)
    assert response.error.retry_after_s == 60
    assert len(door.quota) == 0


def test_what_is_let_in_has_no_shadow_copies_meanwhile() -> None:
    door = Door()
    assert len(door.handle(b'{"prompt": "x"}')) == 2
    door.shed(priority_above=5)
    (out,) = door.handle(b'{"prompt": "x"}', offset=1)
    assert out.topic == "penstock.admitted"
    door.now += 10 * MINUTE
    asked = b'{"prompt": "x", "priority": 50, "timeout": "3600s"}'
    assert len(door.handle(asked, offset=2)) == 2


def test_a_share_of_the_requests_is_refused() -> None:
    door = Door()
    door.shed(share=0.4)
    topics = [door.handle(b'{"prompt": "x"}', offset=n)[0].topic for n in range(500)]
    assert topics.count("penstock.responses") / 500 == pytest.approx(0.4, abs=0.08)
    # A record that is handled again after a crash is decided alike.
    again = Door()
    again.shed(share=0.4)
    assert [again.handle(b'{"prompt": "x"}', offset=n)[0].topic for n in range(500)] == topics


def test_a_refused_key_can_be_used_when_it_is_over() -> None:
    door = Door()
    door.shed()
    asked = b'{"prompt": "x", "idempotency_key": "k", "timeout": "3600s"}'
    assert door.handle(asked)[0].topic == "penstock.responses"
    door.now += 10 * MINUTE
    (out, _) = door.handle(asked, offset=1)
    assert decode(delivered(out), admitted_pb2.AdmittedRequest).request.idempotency_key == "k"


def test_of_two_measures_either_may_refuse() -> None:
    door = Door()
    door.shed("m-1", priority_above=50)
    door.shed("m-2", priority_above=5)
    assert door.handle(b'{"prompt": "x", "priority": 10}')[0].topic == "penstock.responses"
    assert door.handle(b'{"prompt": "x", "priority": 5}', offset=1)[0].topic == "penstock.admitted"
