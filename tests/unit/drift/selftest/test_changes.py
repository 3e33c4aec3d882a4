"""The self-test notices a bank that does not see, and says nothing of one that does."""

from __future__ import annotations

import datetime as dt
import math
import statistics
from collections.abc import Sequence

import pytest

from penstock.codec import decode, encode
from penstock.kafka.ports import LogError
from penstock.records import Outgoing, Partition, Record
from penstock.v1 import alert_pb2, drift_pb2
from penstock_drift.policy.document import SELF_TEST_MODEL, Policy, parse_policy
from penstock_drift.records.signal_wire import SignalWriter, from_record
from penstock_drift.records.values import Observation
from penstock_drift.selftest.agent import SelfTestAgent
from penstock_drift.selftest.changes import MAX_BURST, Result, SelfTest

START = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
START_MS = round(START.timestamp() * 1000)
POLICY = parse_policy("self_test: {rate_per_s: 20, quiet_observations: 500}")
# Values until the first change: the baseline, and the one that shows that it is complete.
FIRST = 2001


def made(test: SelfTest, seconds: float) -> list[Observation]:
    """What it makes up until so many seconds after its start, asked every ten."""
    found = []
    for second in [*range(0, math.ceil(seconds), 10), seconds]:
        found += test.due(START_MS + round(second * 1000))
    return found


def fresh(policy: Policy = POLICY) -> SelfTest:
    return SelfTest(policy, run="run-1", seed=7, now_ms=START_MS)


def test_values_come_at_the_policys_rate_with_the_time_at_which_they_were_due() -> None:
    test = fresh()
    values = [*made(test, 1), *made(test, 1), *made(test, 2.5)]
    assert [each.time_ms - START_MS for each in values] == [50 * n for n in range(1, 51)]
    assert len({each.source for each in values}) == 50
    assert {each.key.model for each in values} == {SELF_TEST_MODEL}


def test_the_same_seed_gives_the_same_values() -> None:
    assert made(fresh(), 50) == made(fresh(), 50)


def test_the_first_change_comes_after_the_baseline_and_the_laws_are_as_told() -> None:
    test = fresh()
    quiet = [each.values["refusal"] for each in made(test, FIRST / 20)]
    assert test.changing == ""
    changed = [each.values["refusal"] for each in made(test, FIRST / 20 + 99)]
    assert test.changing == "refusal"
    assert statistics.fmean(float(v) for v in quiet) == pytest.approx(0.02, abs=0.01)
    assert statistics.fmean(float(v) for v in changed) == pytest.approx(0.10, abs=0.03)


def test_a_change_that_is_found_is_followed_by_quiet_and_by_another_signals() -> None:
    test = fresh()
    made(test, FIRST / 20 + 5)
    verdict = test.heard("refusal", stands=True, found_ms=0)
    assert verdict is not None
    assert (verdict.result, verdict.values) == (Result.FOUND, 100)
    made(test, FIRST / 20 + 5 + 24)
    assert test.changing == ""
    levels = [math.log1p(float(each.values["latency"])) for each in made(test, 200)]
    assert test.changing == "latency"
    assert statistics.fmean(levels) == pytest.approx(1.15, abs=0.03)


def test_a_change_that_nobody_finds_is_missed_once() -> None:
    test = fresh()
    test.armed = 100
    made(test, FIRST / 20 + 1)
    # log(100 / 1e-4) / 0.0845 nats * 4, in values; ticks, lateness and slack besides.
    assert test.expected == 656
    patience_s = 656 / 20 + 3 * 10 + 2 + 30
    assert test.look(START_MS + round((FIRST / 20 + patience_s - 1) * 1000)) is None
    late_ms = START_MS + round((FIRST / 20 + patience_s + 1) * 1000)
    test.due(late_ms)
    verdict = test.look(late_ms)
    assert verdict is not None
    assert (verdict.signal, verdict.result, verdict.expected) == ("refusal", Result.MISSED, 656)
    assert test.look(late_ms + 1) is None


def test_the_smallest_alpha_asks_for_much_and_for_no_infinity() -> None:
    test = fresh(parse_policy("alpha: 1.0e-320"))
    test.armed = 100
    # log(100 / 1e-320) / 0.0845 nats * 4.
    assert test.expected == 35_180


def test_a_finding_where_nothing_changed_is_false_once() -> None:
    test = fresh()
    made(test, 30)
    verdict = test.heard("latency", stands=True, found_ms=0)
    assert verdict is not None
    assert verdict.result is Result.FALSE
    assert test.heard("latency", stands=True, found_ms=0) is None
    assert test.heard("latency", stands=False, found_ms=0) is None
    assert test.heard("latency", stands=True, found_ms=0) is not None


def test_a_finding_that_comes_after_its_change_was_missed_is_not_false() -> None:
    test = fresh()
    made(test, FIRST / 20 + 1)
    late_ms = START_MS + 1_000_000
    test.due(late_ms)
    missed = test.look(late_ms)
    assert missed is not None
    assert missed.result is Result.MISSED
    # The judge stood still, and tells it now: of a tick at which the change was there.
    assert test.heard("refusal", stands=True, found_ms=late_ms - 60_000) is None
    assert test.heard("refusal", stands=False, found_ms=late_ms + 60_000) is None
    again = test.heard("refusal", stands=True, found_ms=late_ms + 60_000)
    assert again is not None
    assert again.result is Result.FALSE


def test_a_signal_does_not_change_again_before_its_finding_has_ended() -> None:
    policy = parse_policy(
        "self_test: {quiet_observations: 500}\nsignals: {latency: {enabled: false}}"
    )
    test = fresh(policy)
    made(test, FIRST / 20 + 1)
    test.heard("refusal", stands=True, found_ms=0)
    made(test, 400)
    assert test.changing == ""
    test.heard("refusal", stands=False, found_ms=0)
    made(test, 401)
    assert test.changing == "refusal"


@pytest.mark.parametrize(
    "document",
    [
        "signals: {refusal: {enabled: false}, latency: {enabled: false}}",
        "signals: {refusal: {enabled: false}, latency: {season: day}}",
    ],
)
def test_without_a_signal_to_change_nothing_is_made_up(document: str) -> None:
    assert made(fresh(parse_policy(document)), 100) == []


def test_a_policy_that_wants_large_effects_gets_larger_changes() -> None:
    test = fresh(parse_policy("signals: {refusal: {min_change: 0.2}}"))
    made(test, 3001 / 20)
    values = [float(each.values["refusal"]) for each in made(test, 3001 / 20 + 50)]
    assert statistics.fmean(values) == pytest.approx(0.42, abs=0.05)


def test_a_pause_is_not_made_up_for() -> None:
    test = fresh()
    made(test, 1)
    after = test.due(START_MS + 86_400_000)
    assert len(after) <= MAX_BURST
    assert after[-1].time_ms == START_MS + 86_400_000


# The agent.


class Log:
    """A publisher that keeps what it is given, or refuses."""

    def __init__(self) -> None:
        self.written: list[Outgoing] = []
        self.away = False

    async def publish(self, records: Sequence[Outgoing]) -> None:
        if self.away:
            raise LogError("away")
        self.written += records

    def taken(self, topic: str) -> list[Record]:
        taken = [
            Record(Partition(topic, out.partition or 0), n, out.key, out.value, out.headers, 0)
            for n, out in enumerate(self.written)
            if out.topic == topic
        ]
        self.written = [out for out in self.written if out.topic != topic]
        return taken


class World:
    def __init__(self) -> None:
        self.log = Log()
        self.now = START
        self.policy = POLICY
        self.agent = SelfTestAgent(
            SignalWriter("p.signals", 4), self.log, lambda: self.policy, "p.alerts", self.clock
        )

    def clock(self) -> dt.datetime:
        return self.now

    async def until(self, seconds: float) -> None:
        end = START + dt.timedelta(seconds=seconds)
        while self.now < end:
            self.now = min(self.now + dt.timedelta(seconds=5), end)
            await self.agent.step()

    def variant(self) -> str:
        (item, *_) = [from_record(record) for record in self.log.taken("p.signals")]
        assert isinstance(item, Observation)
        return item.key.variant

    def found(self, variant: str, signal: str) -> None:
        event = drift_pb2.DriftEvent(
            model=SELF_TEST_MODEL,
            variant=variant,
            signal=signal,
            state=drift_pb2.DRIFT_STATE_DRIFT,
        )
        out = encode(event, topic="p.drift", key="k", source="drift")
        self.agent.on_event(Record(Partition("p.drift", 0), 0, out.key, out.value, out.headers, 0))

    def alerts(self) -> list[alert_pb2.Alert]:
        return [decode(record, alert_pb2.Alert) for record in self.log.taken("p.alerts")]

    def read(self, alert: alert_pb2.Alert) -> None:
        out = encode(alert, topic="p.alerts", key=alert.incident_id, source="drift")
        self.agent.on_alert(Record(Partition("p.alerts", 0), 0, out.key, out.value, out.headers, 0))


async def missed() -> alert_pb2.Alert:
    """The page that a worker opened on a change of `refusal`; it does not run any more."""
    world = World()
    await world.until(200)
    (alert,) = world.alerts()
    return alert


async def test_a_missed_change_opens_an_incident_and_the_next_found_one_of_it_ends_it() -> None:
    world = World()
    # 2,001 values of baseline, 436 that the change may take, ticks and slack: 184 s.
    await world.until(200)
    (alert,) = world.alerts()
    assert (alert.state, alert.severity) == (
        alert_pb2.ALERT_STATE_OPENED,
        alert_pb2.SEVERITY_PAGE,
    )
    assert "made-up one of refusal was missed" in alert.title
    variant = world.variant()
    # The next change is of latency: found, and no business of the open incident.
    await world.until(230)
    world.found(variant, "latency")
    await world.until(270)
    assert world.alerts() == []
    world.found(variant, "refusal")
    await world.until(275)
    (over,) = world.alerts()
    assert (over.incident_id, over.state) == (alert.incident_id, alert_pb2.ALERT_STATE_RESOLVED)


async def test_a_page_of_before_a_restart_ends_with_the_next_found_one() -> None:
    page = await missed()
    world = World()
    world.read(page)
    await world.until(FIRST / 20 + 10)
    world.found(world.variant(), "refusal")
    await world.until(120)
    (over,) = world.alerts()
    assert (over.incident_id, over.state) == (page.incident_id, alert_pb2.ALERT_STATE_RESOLVED)
    assert over.opened_at == page.opened_at
    world.read(over)
    await world.until(125)
    assert world.alerts() == []


async def test_a_page_that_is_open_is_not_opened_again_by_another_worker() -> None:
    page = await missed()
    world = World()
    world.read(page)
    await world.until(200)
    assert world.alerts() == []


@pytest.mark.parametrize(
    "document", ["self_test: {enabled: false}", "signals: {refusal: {enabled: false}}"]
)
async def test_without_a_self_test_of_the_signal_its_page_ends(document: str) -> None:
    page = await missed()
    world = World()
    world.read(page)
    await world.until(5)
    assert world.alerts() == []
    world.policy = parse_policy(document)
    await world.until(15)
    (over,) = world.alerts()
    assert (over.incident_id, over.state) == (page.incident_id, alert_pb2.ALERT_STATE_RESOLVED)
    assert "no self-test" in over.summary


async def test_verdicts_are_told_once_the_log_can_be_written() -> None:
    world = World()
    await world.until(120)
    world.log.away = True
    with pytest.raises(LogError):
        await world.until(200)
    world.log.away = False
    world.now = START + dt.timedelta(seconds=200)
    await world.agent.step()
    assert len(world.alerts()) == 1


async def test_other_runs_and_models_are_no_business_of_it() -> None:
    world = World()
    await world.until(FIRST / 20 + 3)
    world.found("run-of-somebody-else", "refusal")
    await world.until(200)
    assert len(world.alerts()) == 1


async def test_a_new_policy_begins_a_new_run_and_one_without_ends_it() -> None:
    world = World()
    await world.until(10)
    first = world.variant()
    world.policy = parse_policy("self_test: {rate_per_s: 5}")
    await world.until(20)
    assert world.variant() != first
    world.policy = parse_policy("self_test: {enabled: false}")
    await world.until(30)
    assert world.log.taken("p.signals") == []
