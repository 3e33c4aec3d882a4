"""What the gRPC door tells, over a real channel, from the records that readers would give it."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from functools import partial

import grpc
import pytest

from penstock.codec import JSON, encode
from penstock.records import Outgoing, Partition, Record
from penstock.rpc.channel import open_channel
from penstock.rpc.server import Server, Service
from penstock.v1 import alert_pb2, drift_pb2, drift_service_pb2, drift_service_pb2_grpc
from penstock.v1.drift_service_pb2_grpc import DriftStub
from penstock_drift.channels.bank import CatalogueBank
from penstock_drift.policy.document import parse_policy
from penstock_drift.records.evidence import Exemplar
from penstock_drift.records.values import Kind, SignalType, Source
from penstock_drift.servicer import DriftServicer
from penstock_drift.signals.declared import Declaration
from penstock_drift.views.feed import Changes, IncidentFeed, SignalView
from penstock_drift.views.statuses import SavedStatuses

CATALOGUE = {
    "refusal": Declaration("refusal", SignalType.BINARY, Kind.OUTPUT),
    "error": Declaration("error", SignalType.BINARY, Kind.OPERATIONAL),
}
POLICY = parse_policy("signals: {'*': {baseline_observations: 100}}")
OPENED, RESOLVED = alert_pb2.ALERT_STATE_OPENED, alert_pb2.ALERT_STATE_RESOLVED


def record(out: Outgoing, partition: int = 0) -> Record:
    return Record(Partition(out.topic, partition), 0, out.key, out.value, out.headers, 0)


def alert(
    incident: str,
    state: alert_pb2.AlertState.ValueType = OPENED,
    model: str = "triage",
    *,
    drift: bool = True,
) -> Record:
    made = alert_pb2.Alert(incident_id=incident, state=state, service="drift", title=incident)
    made.opened_at.FromDatetime(dt.datetime(2026, 5, 1, tzinfo=dt.UTC))
    if drift:
        made.drift.model, made.drift.variant = model, "base"
    return record(encode(made, topic="p.alerts", key=incident, source="drift", encoding=JSON))


class World:
    """A door on a free port, and what its readers feed."""

    def __init__(self) -> None:
        self.feed, self.view = IncidentFeed(), SignalView()
        servicer = DriftServicer(self.feed, self.view, SavedStatuses(CATALOGUE, lambda: POLICY))
        register = partial(drift_service_pb2_grpc.add_DriftServicer_to_server, servicer)
        name = drift_service_pb2.DESCRIPTOR.services_by_name["Drift"].full_name
        self.server = Server([Service(name, register)], host="127.0.0.1", port=0)

    def save(self, model: str, partition: int, *refusals: float) -> None:
        """A key's state as the fold saves it, after some values of `refusal`."""
        from penstock_drift.fold.keys import KeySnapshot
        from penstock_drift.records.values import Key
        from penstock_drift.worker.snapshots import _dump, _key_to_json

        channel = CatalogueBank(CATALOGUE).channel("refusal", POLICY)
        assert channel is not None
        for number, value in enumerate(refusals):
            place = Source("responses", 0, number)
            channel.update(value, Exemplar(f"req-{number}", place, 1000 * number, value))
        key = Key(model, "base")
        snapshot = KeySnapshot(0, {"refusal": channel.state()}, frozenset())
        value = _dump(_key_to_json(key, snapshot))
        self.view.on_state(record(Outgoing("p.drift_state", str(key).encode(), value), partition))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.port = await world.server.start()  # type: ignore[attr-defined]
    yield world
    await world.server.stop(0)


@pytest.fixture
async def stub(world: World) -> AsyncIterator[DriftStub]:
    async with open_channel(f"127.0.0.1:{world.port}") as channel:  # type: ignore[attr-defined]
        yield DriftStub(channel)


async def test_an_incident_is_told_as_it_stands(world: World, stub: DriftStub) -> None:
    world.feed.on_alert(alert("drift/1"))
    world.feed.on_alert(alert("drift/1", RESOLVED))
    request = drift_service_pb2.GetIncidentRequest(incident_id="drift/1")
    assert (await stub.GetIncident(request)).state == RESOLVED


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ("drift/none", grpc.StatusCode.NOT_FOUND),
        ("cost/1", grpc.StatusCode.NOT_FOUND),
        ("", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_what_is_no_incident_of_drift_is_not_found(
    world: World, stub: DriftStub, asked: str, code: grpc.StatusCode
) -> None:
    world.feed.on_alert(alert("cost/1", drift=False))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.GetIncident(drift_service_pb2.GetIncidentRequest(incident_id=asked))
    assert raised.value.code() == code


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({}, ["drift/1", "drift/2"]),
        ({"resolved": True}, ["drift/1", "drift/2", "drift/over"]),
        ({"model": "other"}, ["drift/2"]),
        ({"variant": "none"}, []),
    ],
)
async def test_incidents_are_told_once(
    world: World, stub: DriftStub, request_: dict[str, str], told: list[str]
) -> None:
    world.feed.on_alert(alert("drift/1"))
    world.feed.on_alert(alert("drift/2", model="other"))
    world.feed.on_alert(alert("drift/over", RESOLVED))
    world.feed.on_alert(alert("cost/1", drift=False))
    request = drift_service_pb2.WatchIncidentsRequest(once=True, **request_)  # type: ignore[arg-type]
    assert sorted([each.incident_id async for each in stub.WatchIncidents(request)]) == told


async def test_changes_are_told_as_they_come_and_nobody_is_followed_for_ever(
    world: World, stub: DriftStub
) -> None:
    world.feed.on_alert(alert("drift/1"))
    call = stub.WatchIncidents(drift_service_pb2.WatchIncidentsRequest(model="triage"))
    told = aiter(call)
    assert (await anext(told)).incident_id == "drift/1"
    world.feed.on_alert(alert("drift/other", model="other"))
    world.feed.on_alert(alert("drift/1", RESOLVED))
    over = await asyncio.wait_for(anext(told), 5)
    assert (over.incident_id, over.state) == ("drift/1", RESOLVED)
    call.cancel()
    async with asyncio.timeout(5):
        while world.feed._followers:
            await asyncio.sleep(0.01)


async def test_a_slow_follower_gets_the_newest_of_each_incident() -> None:
    feed = IncidentFeed()
    with feed.follow() as changes:
        for _ in range(1000):
            feed.on_alert(alert("drift/1"))
            feed.on_alert(alert("drift/2"))
        feed.on_alert(alert("drift/1", RESOLVED))
        taken = await changes.take()
    assert [(each.id, each.resolved) for each in taken] == [("drift/2", False), ("drift/1", True)]
    assert isinstance(changes, Changes)


def test_what_is_no_alert_stops_nothing() -> None:
    feed = IncidentFeed()
    odd = Record(Partition("p.alerts", 0), 0, b"k", b"\xff\xff", (), 0)
    feed.on_alert(odd)
    feed.on_action(odd)
    view = SignalView()
    view.on_event(odd)
    assert feed.book.incidents(resolved=True) == []


async def test_signals_stand_as_saved_and_as_found(world: World, stub: DriftStub) -> None:
    world.save("triage", 0, *[0.0] * 120)
    world.save("other", 1, *[1.0, 0.0] * 20)
    event = drift_pb2.DriftEvent(
        model="triage", variant="base", signal="refusal", state=drift_pb2.DRIFT_STATE_DRIFT
    )
    world.view.on_event(record(encode(event, topic="p.drift", key="k", source="drift")))
    found = (await stub.GetSignals(drift_service_pb2.GetSignalsRequest())).signals
    assert [(s.model, s.state) for s in found] == [
        ("other", drift_pb2.DRIFT_STATE_WARMING),
        ("triage", drift_pb2.DRIFT_STATE_DRIFT),
    ]
    assert (found[0].baseline_observations, found[0].baseline_needed) == (40, 100)
    assert found[0].baseline_mean == 0.5
    assert found[1].kind == drift_pb2.DRIFT_KIND_OUTPUT
    assert found[1].updated_at.ToMilliseconds() == 119_000
    event.state = drift_pb2.DRIFT_STATE_ARMED
    world.view.on_event(record(encode(event, topic="p.drift", key="k", source="drift")))
    request = drift_service_pb2.GetSignalsRequest(model="triage", signal="refusal")
    (status,) = (await stub.GetSignals(request)).signals
    assert status.state == drift_pb2.DRIFT_STATE_ARMED


def test_states_are_bounded_by_their_bytes_and_the_oldest_news_goes_first() -> None:
    view = SignalView(max_bytes=100)
    for name in (b"a", b"b", b"c", b"a", b"d"):
        view.on_state(record(Outgoing("p.drift_state", name, b"x" * 30)))
    assert [key for _, key in view.states] == [b"c", b"a", b"d"]
    view.on_state(record(Outgoing("p.drift_state", b"big", b"x" * 101)))
    assert view.states == {}
    view.on_state(record(Outgoing("p.drift_state", b"e", b"x" * 100)))
    assert len(view.states) == 1


async def test_a_key_that_was_dropped_is_not_told(world: World, stub: DriftStub) -> None:
    world.save("triage", 0, 0.0)
    world.save("triage", 1, 0.0)
    gone = Record(Partition("p.drift_state", 1), 9, b"triage/base/", None, (), 0)
    world.view.on_state(gone)
    assert len((await stub.GetSignals(drift_service_pb2.GetSignalsRequest())).signals) == 1
