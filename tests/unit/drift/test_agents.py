"""The agents of fold and judge: what is written before what, what a lost partition leaves."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from prometheus_client import REGISTRY

from penstock.codec import decode
from penstock.errors import InvalidRequest, Unavailable
from penstock.kafka.ports import Fenced, LogError
from penstock.records import Outgoing, Partition, Record
from penstock.v1 import alert_pb2, drift_pb2
from penstock_drift.records.signal_wire import SignalWriter
from penstock_drift.records.values import Observation, Tick
from penstock_drift.worker.fold_agent import FoldAgent
from penstock_drift.worker.judge_agent import JudgeAgent, evidence_of
from penstock_drift.worker.snapshots import StateRecords, laid_over
from tests.unit.drift.toy import BANK, DECLARED, interleaved, make_world

SIGNALS, EVIDENCE = Partition("p.signals", 0), Partition("p.evidence", 0)


class Log:
    """A publisher, and stores whose last owner alone may write."""

    def __init__(self) -> None:
        self.written: list[Outgoing] = []
        self.states: dict[int, StateRecords] = {}
        self.owners: dict[int, MemoryStore] = {}
        self.broken = False
        self.unreadable = False

    async def publish(self, records: Sequence[Outgoing]) -> None:
        if self.broken:
            raise LogError("broken")
        self.written += records

    def store(self, number: int = 0) -> MemoryStore:
        return MemoryStore(self, number)

    def on(self, topic: str) -> list[Outgoing]:
        return [record for record in self.written if record.topic == f"p.{topic}"]


class MemoryStore:
    def __init__(self, log: Log, number: int) -> None:
        self._log, self._number = log, number
        self.closed = False

    async def take(self) -> dict[bytes, bytes]:
        if self._log.unreadable:
            raise Unavailable("not now")
        self._log.owners[self._number] = self
        return laid_over(self._log.states.get(self._number, []))

    async def write(self, state: StateRecords, outputs: Sequence[Outgoing] = ()) -> None:
        if self._log.owners[self._number] is not self:
            raise Fenced("somebody else's")
        if self._log.broken:
            raise LogError("broken")
        self._log.states.setdefault(self._number, []).extend(state)
        self._log.written += outputs

    async def close(self) -> None:
        self.closed = True


async def one() -> int:
    return 1


def fold_agent(log: Log, **more: float) -> FoldAgent:
    settings = {"save_s": 0.0, **more}
    return FoldAgent(BANK, log, log.store, one, "p", **settings)  # type: ignore[arg-type]


def records_of(items: Sequence[object], start: int = 0) -> list[Record]:
    writer = SignalWriter("p.signals", 1)
    records = []
    for offset, item in enumerate(items, start):
        made = writer.everywhere(item) if isinstance(item, Tick) else None  # type: ignore[arg-type]
        out = made[0] if made else _encoded(writer, item)
        records.append(Record(SIGNALS, offset, out.key, out.value, out.headers, 0))
    return records


def _encoded(writer: SignalWriter, item: object) -> Outgoing:
    if isinstance(item, Observation):
        return writer.observations([item])[0]
    return writer.everywhere(item)[0]  # type: ignore[arg-type]


WORLD = records_of(interleaved(make_world(3, partitions=1), random.Random(5))[0])


def evidence_records(log: Log) -> list[Record]:
    return [
        Record(EVIDENCE, offset, out.key, out.value, out.headers, 0)
        for offset, out in enumerate(log.on("evidence"))
    ]


async def fold_all(log: Log, agent: FoldAgent, start: int = 0) -> None:
    for first in range(start, len(WORLD), 50):
        await agent.handle(WORLD[first : first + 50])


async def test_from_signals_to_events_and_alerts() -> None:
    log = Log()
    await fold_all(log, fold_agent(log))
    judge = JudgeAgent(DECLARED, log.store, "p")
    # The judge's state is another store than the fold's.
    log.states[0] = []
    for record in evidence_records(log):
        await judge.handle([record])
    events = [decode(_read(out), drift_pb2.DriftEvent) for out in log.on("drift")]
    alerts = [decode(_read(out), alert_pb2.Alert) for out in log.on("alerts")]
    found = [event for event in events if event.state == drift_pb2.DRIFT_STATE_DRIFT]
    assert {event.segment for event in found} == {"", "task=a", "task=b"}
    assert {event.incident_id for event in events} == {alert.incident_id for alert in alerts}
    opened = [alert for alert in alerts if alert.state == alert_pb2.ALERT_STATE_OPENED]
    kinds = {alert.labels["kind"] for alert in opened}
    assert kinds == {"quality", "operational"}
    refusal = next(alert for alert in opened if alert.labels["kind"] == "quality")
    assert refusal.severity == alert_pb2.SEVERITY_PAGE
    assert "refusal of m/v" in refusal.title
    assert refusal.drift.causes[0].name == "adapter"
    lead = refusal.drift.evidence[0]
    effect = lead.after.estimate - lead.before.estimate
    assert {part.name for part in refusal.drift.segments} == {"task=a", "task=b"}
    assert sum(part.amount for part in refusal.drift.segments) == pytest.approx(effect)
    assert all(out.key == b"m/v" for out in log.on("drift"))


def _read(out: Outgoing) -> Record:
    return Record(Partition(out.topic, 0), 0, out.key, out.value, out.headers, 0)


async def test_evidence_is_out_before_the_state_and_the_state_before_the_position() -> None:
    log = Log()
    agent = fold_agent(log)
    await agent.handle(WORLD[:200])
    kept = agent.tenures.kept_to()[SIGNALS]
    assert 0 < kept <= 200
    assert log.on("evidence")
    before = list(log.states[0])
    log.broken = True
    with pytest.raises(LogError):
        await agent.handle(WORLD[200:400])
    assert agent.tenures.kept_to()[SIGNALS] == kept
    assert log.states[0] == before


async def test_a_new_owner_goes_on_where_the_kept_state_ends() -> None:
    undisturbed = Log()
    await fold_all(undisturbed, fold_agent(undisturbed))
    log = Log()
    first = fold_agent(log)
    await first.handle(WORLD[:500])
    kept = first.tenures.kept_to()[SIGNALS]
    await fold_all(log, fold_agent(log), start=kept)
    told: dict[int, bytes | None] = {}
    for record in evidence_records(log):
        until = evidence_of(record).until_ms
        # What is told twice is the same.
        assert told.setdefault(until, record.value) == record.value
    assert list(told.values()) == [out.value for out in undisturbed.on("evidence")]


async def test_a_fenced_owner_ends_in_silence_and_takes_it_anew_if_it_has_it_still() -> None:
    log = Log()
    old, new = fold_agent(log), fold_agent(log)
    await old.handle(WORLD[:100])
    await new.handle(WORLD[:200])
    state = list(log.states[0])
    await old.handle(WORLD[100:150])
    assert log.states[0] == state
    # It stands where it last kept its state: nothing of what came after may be acknowledged.
    assert old.tenures.kept_to()[SIGNALS] <= 100


async def test_partitions_dealt_anew_are_dropped_with_their_clients() -> None:
    log = Log()
    agent = fold_agent(log)
    await agent.handle(WORLD[:100])
    store = log.owners[0]
    agent.tenures.dealt(())
    assert agent.tenures.kept_to() == {}
    await agent.tenures.end()
    assert store.closed


async def test_a_partition_that_went_elsewhere_is_shown_no_more() -> None:
    log = Log()
    agent = fold_agent(log)

    def closed_s() -> float | None:
        name = "penstock_drift_closed_until_seconds"
        return REGISTRY.get_sample_value(name, {"partition": "0"})

    await agent.handle(WORLD[:100])
    assert closed_s() is not None
    agent.dealt(())
    assert closed_s() is None

    async def lost_meanwhile(records: Sequence[Outgoing]) -> None:
        log.written += records
        agent.dealt(())

    log.publish = lost_meanwhile  # type: ignore[method-assign]
    await agent.handle(WORLD[:200])
    assert closed_s() is None


async def test_a_record_that_is_none_changes_nothing() -> None:
    log = Log()
    agent = fold_agent(log)
    bad = Record(SIGNALS, 50, None, b"\xff\xff", (), 0)
    with pytest.raises(InvalidRequest):
        await agent.handle([*WORLD[:50], bad])
    await fold_all(log, agent)
    undisturbed = Log()
    await fold_all(undisturbed, fold_agent(undisturbed))
    values = [out.value for out in log.on("evidence")]
    assert values == [out.value for out in undisturbed.on("evidence")]


async def test_a_state_that_cannot_be_read_is_waited_for() -> None:
    log = Log()
    agent = fold_agent(log)
    log.unreadable = True
    with pytest.raises(Unavailable):
        await agent.handle(WORLD[:50])
    log.unreadable = False
    await agent.handle(WORLD[:50])
    assert agent.tenures.kept_to()[SIGNALS] > 0
