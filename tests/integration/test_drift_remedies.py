"""A remedy is carried out exactly once by whoever has the log, and its end is told."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Callable

import pytest

from penstock.cli.routes_plan import newest
from penstock.codec import decode, encode
from penstock.kafka.publisher import KafkaPublisher
from penstock.records import Outgoing
from penstock.rpc.channel import open_channel
from penstock.v1 import alert_pb2, drift_pb2, drift_service_pb2, route_pb2
from penstock.v1.drift_service_pb2_grpc import DriftStub
from penstock_drift.doors import Doors
from penstock_drift.policy.document import Policy, parse_policy
from penstock_drift.records.signal_wire import SignalWriter
from penstock_drift.settings import DriftSettings
from penstock_native.kafka import KafkaServer
from penstock_native.ports import free_port
from tests.integration.operator_place import Place, make_place

pytestmark = pytest.mark.integration

POLICY = parse_policy(
    "actions: {remedies: [{name: back, do: rollback_route, dry_run: false},"
    " {name: urgent-only, do: shed, priority_above: 0, dry_run: false}]}\n"
    "self_test: {enabled: false}"
)


@pytest.fixture
async def place(kafka: KafkaServer) -> Place:
    return await make_place(kafka.bootstrap)


class Worker:
    """The doors of one worker."""

    def __init__(self, place: Place, policy: Callable[[], Policy]) -> None:
        self.port = free_port()
        self._place, self._policy = place, policy
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Worker:
        place = self._place
        settings = DriftSettings(
            PENSTOCK_KAFKA_BOOTSTRAP=place.bootstrap,  # type: ignore[call-arg]
            PENSTOCK_TOPIC_PREFIX=place.prefix,
            grpc_port=self.port,
        )
        self._publisher = KafkaPublisher(place.bootstrap, "test")
        await self._publisher.start()
        writer = SignalWriter(place.topic("signals"), 2)
        doors = Doors(settings, self._publisher, self._policy, writer)
        self._task = asyncio.create_task(doors.run(self._stop))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.wait_for(self._task, 60)
        await self._publisher.stop()


def route(place: Place) -> Outgoing:
    champion, candidate = (
        route_pb2.Variant(name=name, base_model="triage", stage=stage, weight=weight)
        for name, stage, weight in (
            ("base", route_pb2.STAGE_CHAMPION, 90),
            ("new", route_pb2.STAGE_CANDIDATE, 10),
        )
    )
    made = route_pb2.Route(model="triage", version=1, variants=[champion, candidate])
    return encode(made, topic=place.topic("routes"), key="triage", source="cli")


def event(
    place: Place, event_id: str, state: drift_pb2.DriftState.ValueType, action: str = ""
) -> Outgoing:
    made = drift_pb2.DriftEvent(
        event_id=event_id,
        incident_id="drift-1",
        model="triage",
        variant="new",
        signal="error",
        kind=drift_pb2.DRIFT_KIND_OPERATIONAL,
        state=state,
        action=action,
    )
    made.detected_at.FromDatetime(dt.datetime.now(dt.UTC))
    return encode(made, topic=place.topic("drift"), key="triage/new", source="drift")


async def alerts(place: Place, least: int) -> list[alert_pb2.Alert]:
    async with asyncio.timeout(60):
        while len(found := await place.read("alerts")) < least:
            await asyncio.sleep(0.2)
    return [decode(record, alert_pb2.Alert) for record in found]


async def test_a_candidate_that_drifts_loses_its_traffic_once(place: Place) -> None:
    await place.publish(route(place))  # a worker reads routes to their end before it acts
    async with Worker(place, lambda: POLICY):
        await place.publish(event(place, "e1", drift_pb2.DRIFT_STATE_DRIFT, "back"))
        (opened,) = await alerts(place, 1)
        assert (opened.state, opened.labels["outcome"]) == (alert_pb2.ALERT_STATE_OPENED, "done")
        standing = newest(await place.read("routes"))["triage"]
        assert standing.version == 2
        assert {v.name: v.weight for v in standing.variants} == {"base": 90, "new": 0}
        await place.publish(event(place, "e2", drift_pb2.DRIFT_STATE_COOLDOWN))
        *_, over = await alerts(place, 2)
    assert (over.incident_id, over.state) == ("remedy/e1", alert_pb2.ALERT_STATE_RESOLVED)
    # The way back that the alert names works.
    assert "penstock routes rollback triage --to 1" in opened.summary
    assert "version 3 written" in await place.done("routes", "rollback", "triage", "--to", "1")


async def test_another_worker_does_not_do_again_what_was_done(place: Place) -> None:
    await place.publish(route(place))
    async with Worker(place, lambda: POLICY):
        await place.publish(event(place, "e1", drift_pb2.DRIFT_STATE_DRIFT, "back"))
        await alerts(place, 1)
    async with Worker(place, lambda: POLICY):
        # Within the hour, by another finding: known to be one too many from the log alone.
        await place.publish(event(place, "e2", drift_pb2.DRIFT_STATE_DRIFT, "back"))
        _, refused = await alerts(place, 2)
    assert refused.labels["outcome"] == "refused"
    assert "within the hour" in refused.summary
    assert len(await place.read("routes")) == 2


async def test_a_measure_is_asked_for_once_and_the_way_back_works(place: Place) -> None:
    await place.publish(route(place))
    for _ in range(2):
        async with Worker(place, lambda: POLICY):
            await asyncio.sleep(1)
            if not await place.read("drift"):
                found = event(place, "e1", drift_pb2.DRIFT_STATE_DRIFT, "urgent-only")
                await place.publish(found)
            (opened,) = await alerts(place, 1)
    assert (opened.state, opened.labels["outcome"]) == (alert_pb2.ALERT_STATE_OPENED, "done")
    assert len(await place.read("control")) == 1
    (line,) = (await place.done("models", "measures", "--json")).splitlines()
    measure = json.loads(line)
    assert (measure["kind"], measure["model"], measure["priority_above"]) == ("shed", "triage", 0)
    _, _, undo = opened.summary.partition("Take it back with: penstock ")
    assert "are refused" in await place.done(*undo.split())
    assert await place.done("models", "measures", "--json") == ""


async def test_the_grpc_door_tells_of_incidents_of_the_log(place: Place) -> None:
    made = alert_pb2.Alert(
        incident_id="drift-1", drift=alert_pb2.DriftIncident(model="triage", variant="base")
    )
    out = encode(made, topic=place.topic("alerts"), key="drift-1", source="drift")
    async with (
        Worker(place, lambda: POLICY) as worker,
        open_channel(f"127.0.0.1:{worker.port}") as channel,
    ):
        request = drift_service_pb2.WatchIncidentsRequest()
        told = aiter(DriftStub(channel).WatchIncidents(request, wait_for_ready=True))
        await place.publish(out)
        found = await asyncio.wait_for(anext(told), 60)
    assert found.incident_id == "drift-1"
