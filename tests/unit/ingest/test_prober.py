"""Probes go out as admitted requests and come back as replies; people are told of what is not."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Sequence

import pytest
from prometheus_client import REGISTRY

from penstock.codec import decode
from penstock.kafka.ports import LogError
from penstock.records import Outgoing, Partition, Record
from penstock.routing import RouteTable
from penstock.v1 import admitted_pb2, alert_pb2, common_pb2, response_pb2, route_pb2
from penstock_ingest.health.board import Board, Key, Policy
from penstock_ingest.health.incidents import ModelIncidents
from penstock_ingest.health.prober import Prober, probe_of

KEY = Key("triage", "triage-base")
Answer = Callable[[admitted_pb2.AdmittedRequest], response_pb2.GenerateResponse | None]


def answered(probe: admitted_pb2.AdmittedRequest) -> response_pb2.GenerateResponse:
    return response_pb2.GenerateResponse(
        request_id=probe.request_id, outcome=response_pb2.OUTCOME_ANSWERED
    )


def silent(probe: admitted_pb2.AdmittedRequest) -> None:
    return None


def only_prompts(probe: admitted_pb2.AdmittedRequest) -> response_pb2.GenerateResponse:
    response = answered(probe)
    if not probe.request.prompt:
        response.outcome = response_pb2.OUTCOME_REJECTED
        response.error.code = common_pb2.ERROR_CODE_INVALID_ARGUMENT
        response.error.message = "no chat template"
    return response


class Platform:
    """A log that engines answer as a test says, a clock that moves when told, and a prober."""

    def __init__(self, ordinal: int = 3, policy: Policy | None = None) -> None:
        self.now_s = 0.0
        self.answer: Answer = answered
        self.probes: list[admitted_pb2.AdmittedRequest] = []
        self.alerts: list[alert_pb2.Alert] = []
        self.broken = False
        self.closed = ""
        self.routes = RouteTable()
        self.route(1)
        self.board = Board(policy or Policy(30, 3, 600))
        self.incidents = ModelIncidents(
            self, topic_prefix="penstock", ordinal=ordinal, clock=self.clock
        )
        self.prober = Prober(
            self.board,
            self.routes,
            self,
            self.incidents,
            topic_prefix="penstock",
            reply_partition=ordinal,
            timeout_s=0.05,
            closed=lambda: self.closed,
            clock=self.clock,
            timer=lambda: self.now_s,
        )

    def clock(self) -> dt.datetime:
        return dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=self.now_s)

    def route(self, version: int) -> None:
        route = route_pb2.Route(model=KEY.model, version=version)
        stage = route_pb2.STAGE_CHAMPION
        route.variants.add(name=KEY.variant, base_model="m", weight=1, stage=stage)
        self.routes.apply(route)

    async def publish(self, records: Sequence[Outgoing]) -> None:
        if self.broken:
            raise LogError("no broker")
        for outgoing in records:
            record = Record(
                Partition(outgoing.topic, 0), 0, None, outgoing.value, outgoing.headers, 0
            )
            if outgoing.topic == "penstock.alerts":
                self.alerts.append(decode(record, alert_pb2.Alert))
                # The log may be read sooner than the broker says that it was written.
                self.incidents.read(self.alerts[-1])
                continue
            assert outgoing.topic == "penstock.admitted"
            probe = decode(record, admitted_pb2.AdmittedRequest)
            self.probes.append(probe)
            reply = self.answer(probe)
            if reply is not None:
                asyncio.get_running_loop().call_soon(self.prober.reply, reply)

    async def look(self, now_s: float) -> None:
        """One look of the prober, and the end of every probe that it starts."""
        self.now_s = now_s
        async with asyncio.TaskGroup() as probes:
            await self.prober.look(probes)
        await self.incidents.tell(self.board, self.now_s)


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Platform:
    monkeypatch.setattr("penstock_ingest.health.prober.GRACE_S", 0.05)
    return Platform()


def gauge(name: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"model": KEY.model, "variant": KEY.variant})


async def test_a_probe_is_small_urgent_pinned_and_answered_here(platform: Platform) -> None:
    await platform.look(0)
    (probe,) = platform.probes
    assert probe.purpose == common_pb2.PURPOSE_PROBE
    assert (probe.variant, probe.route_version, probe.reply_partition) == (KEY.variant, 1, 3)
    request = probe.request
    assert (request.model, request.tenant, request.priority) == (KEY.model, "penstock-probe", -100)
    assert (request.sampling.max_tokens, request.no_cache, request.ordering_key) == (1, True, "")
    assert probe.deadline == request.deadline
    assert platform.board.models[KEY.model].ready
    assert gauge("penstock_ingest_probe_ready") == 1
    assert gauge("penstock_ingest_probe_seconds_count")
    await platform.look(29)
    assert len(platform.probes) == 1
    platform.route(2)
    await platform.look(29)
    assert [each.route_version for each in platform.probes] == [1, 2]


async def test_a_model_that_knows_prompts_only_is_asked_by_a_prompt(platform: Platform) -> None:
    platform.answer = only_prompts
    await platform.look(0)
    assert platform.board.models[KEY.model].errors == (
        "triage-base: invalid_argument: no chat template"
    )
    for second in (1, 40, 80):
        await platform.look(second)
    assert [bool(each.request.prompt) for each in platform.probes] == [False, True, True, True]
    assert platform.board.models[KEY.model].ready


async def test_people_are_told_once_reminded_and_told_of_the_end(platform: Platform) -> None:
    await platform.look(0)
    platform.answer = silent
    for second in (30, 31, 33, 37, 50):
        await platform.look(second)
    assert gauge("penstock_ingest_probe_ready") == 0
    (opened,) = platform.alerts
    assert opened.state == alert_pb2.ALERT_STATE_OPENED
    assert opened.incident_id == "ingest/model-not-ready/triage"
    assert "triage-base: no reply within 0.1 s" in opened.summary
    assert dict(opened.labels) == {"model": "triage", "instance": "ingest-3"}
    assert opened.runbook == "docs/runbooks/readiness.md"
    for second in range(60, 700, 30):
        await platform.look(second)
    platform.answer = answered
    await platform.look(760)
    states = [alert_pb2.AlertState.Name(each.state)[12:] for each in platform.alerts]
    assert states == ["OPENED", "UPDATED", "UPDATED", "RESOLVED"]
    assert len({each.alert_id for each in platform.alerts}) == 4
    assert [each.alert_id.rpartition("/")[2] for each in platform.alerts[1:3]] == ["1", "2"]
    assert {each.opened_at.seconds for each in platform.alerts} == {opened.opened_at.seconds}


async def test_an_alert_that_could_not_be_written_is_written_later(platform: Platform) -> None:
    await platform.look(0)
    platform.answer = silent
    for second in (30, 31):
        await platform.look(second)
    platform.broken = True
    await platform.look(33)
    assert platform.board.unready(33) == [KEY.model]
    assert platform.alerts == []
    platform.broken = False
    await platform.look(34)
    assert len(platform.alerts) == 1


async def test_without_a_log_nobody_is_at_fault(platform: Platform) -> None:
    await platform.look(0)
    platform.closed = "Kafka does not answer"
    for second in range(30, 300, 10):
        await platform.look(second)
    assert len(platform.probes) == 1
    assert platform.board.models[KEY.model].ready


async def test_whoever_takes_the_place_ends_the_incident(platform: Platform) -> None:
    await platform.look(0)
    platform.answer = silent
    for second in (30, 31, 33):
        await platform.look(second)
    for ordinal, ends in ((3, 1), (4, 0)):
        successor = Platform(ordinal)
        successor.incidents.read(platform.alerts[0])
        successor.answer = silent
        await successor.look(0)
        assert successor.alerts == []
        successor.answer = answered
        await successor.look(1)
        assert [each.state for each in successor.alerts] == [alert_pb2.ALERT_STATE_RESOLVED] * ends


async def test_a_route_that_ends_ends_its_incident_and_its_gauge(platform: Platform) -> None:
    platform.answer = silent
    await platform.look(0)
    await platform.look(601)
    assert [each.state for each in platform.alerts] == [alert_pb2.ALERT_STATE_OPENED]
    platform.routes.remove(KEY.model)
    await platform.look(602)
    assert platform.alerts[-1].summary == "It is not routed any more."
    assert gauge("penstock_ingest_probe_ready") is None


async def test_replies_of_others_are_left_to_their_callers(platform: Platform) -> None:
    other = response_pb2.GenerateResponse(request_id="req-1")
    assert not platform.prober.reply(other)


def test_every_probe_has_an_id_of_its_own() -> None:
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    made = [
        probe_of(route_pb2.Route(), "v", now=now, timeout_s=1, reply_partition=0) for _ in range(2)
    ]
    assert made[0].request_id != made[1].request_id
    assert made[0].request_id.startswith("probe-")
