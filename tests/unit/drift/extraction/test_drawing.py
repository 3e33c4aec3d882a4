"""From records of `responses` and `feedback` to records of `signals`, on a log in memory."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from penstock.codec import JSON, PROTOBUF, encode
from penstock.identity import response_id_of
from penstock.kafka.consumer import TransactionalConsumer
from penstock.kafka.memory import MemoryBroker
from penstock.kafka.ports import LogError
from penstock.pricing import PriceTable
from penstock.records import Outgoing, Partition, Record
from penstock.v1 import admitted_pb2, common_pb2, drift_pb2, feedback_pb2, response_pb2, route_pb2
from penstock_drift.extraction.extract import Extraction, Plan, plan_of
from penstock_drift.extraction.idle import IdleSources, Topic
from penstock_drift.extraction.joins import Join, Table
from penstock_drift.extraction.lines import Lines
from penstock_drift.extraction.steps import (
    FeedbackStep,
    Parts,
    ResponseStep,
    admitted_name,
    response_name,
)
from penstock_drift.policy.document import parse_policy
from penstock_drift.policy.relay import Relay
from penstock_drift.records.signal_wire import SignalWriter, from_record
from penstock_drift.records.values import Item, Key, Observation, PolicyChange, Tick, Traffic
from penstock_drift.signals.catalogue import CATALOGUE

PRICES = PriceTable.parse(
    '{"triage": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}}'
)
# Without the signals that load a language model: other tests draw those.
POLICY = parse_policy(
    "{tick_s: 10, lateness_s: 2, segments: {task: 2}, signals: {'*language*': {enabled: false}}}"
)


def at(time_ms: int) -> Timestamp:
    return Timestamp(seconds=time_ms // 1000, nanos=time_ms % 1000 * 1_000_000)


def admitted(n: int) -> Outgoing:
    message = admitted_pb2.AdmittedRequest(request_id=f"r{n}", variant="base")
    message.request.model = "triage"
    message.request.prompt = f"What about number {n}?"
    return written(message, "admitted", f"r{n}", f"r{n}")


def response(n: int, time_ms: int, *, key: str | None = None, **fields: Any) -> Outgoing:
    message = response_pb2.GenerateResponse(
        request_id=f"r{n}",
        response_id=response_id_of(f"r{n}"),
        outcome=response_pb2.OUTCOME_ANSWERED,
        text='{"category": "billing"}',
        model="triage",
        variant="base",
        route_version=3,
        created_at=at(time_ms),
    )
    message.usage.prompt_tokens, message.usage.completion_tokens = 10, 5
    message.MergeFrom(response_pb2.GenerateResponse(**fields))
    return written(message, "responses", key or f"r{n}", message.response_id)


def feedback(n: int, time_ms: int, label: str) -> Outgoing:
    message = feedback_pb2.Feedback(request_id=f"r{n}", label=label, created_at=at(time_ms))
    return written(message, "feedback", f"r{n}", f"f{n}")


def written(message: Message, topic: str, key: str, event_id: str) -> Outgoing:
    encoding = JSON if zlib.crc32(key.encode()) % 3 == 0 else PROTOBUF
    return encode(
        message, topic=f"p.{topic}", key=key, source="test", event_id=event_id, encoding=encoding
    )


class MemoryCursor:
    """See `Cursor`, over the log in memory."""

    def __init__(self, broker: MemoryBroker, topic: str, partition: int) -> None:
        self._log = broker._logs[Partition(topic, partition)]
        self.position = 0

    async def start_at(self, time_ms: int) -> None:
        self.position = 0

    async def read(self, wait_s: float) -> Sequence[Record]:
        window = self._log[self.position : self.position + 7]
        self.position += len(window)
        await asyncio.sleep(0)
        return [record for record in window if record is not None]

    async def end(self) -> int:
        return len(self._log)

    async def close(self) -> None: ...


class Place:
    """A worker on a log in memory."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        writer = SignalWriter("p.signals", broker.partitions)
        self.relay = Relay(writer, broker)
        self.relay.policy = POLICY
        self.parts = Parts(Extraction(PRICES), writer, self._plan, lambda: 2 * broker.partitions)
        self.lines = {
            "responses": Lines(self._response_step, dlq="p.dlq", group="g"),
            "feedback": Lines(self._feedback_step, dlq="p.dlq", group="g"),
        }
        self.consumers = {
            name: TransactionalConsumer(broker, topic=f"p.{name}", group=f"g-{name}", handler=lines)
            for name, lines in self.lines.items()
        }

    def _plan(self) -> Plan:
        return plan_of(self.relay.policy, CATALOGUE)

    def _response_step(self, number: int) -> ResponseStep:
        cursor = MemoryCursor(self.broker, "p.admitted", number)
        join = Join(cursor, Table(10**9, 10**8), admitted_name, once=True)
        return ResponseStep(self.parts, join, number)

    def _feedback_step(self, number: int) -> FeedbackStep:
        cursor = MemoryCursor(self.broker, "p.responses", number)
        join = Join(cursor, Table(10**9, 10**8), response_name, once=False)
        return FeedbackStep(self.parts, join, number)

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(consumer.run()) for consumer in self.consumers.values()]
        try:
            yield
        finally:
            for consumer in self.consumers.values():
                await consumer.stop(1.0)
            await asyncio.gather(*tasks)
            for lines in self.lines.values():
                await lines.close()

    def done(self, name: str) -> bool:
        partitions = [Partition(f"p.{name}", n) for n in range(self.broker.partitions)]
        return all(
            self.broker.position(f"g-{name}", p).offset >= len(self.broker._logs[p])
            for p in partitions
        )

    async def finish(self) -> None:
        async with asyncio.timeout(30):
            while not (self.done("responses") and self.done("feedback")):
                await asyncio.sleep(0.01)


def signals(broker: MemoryBroker) -> list[Item]:
    found = [from_record(record) for record in broker.read("p.signals")]
    return [item for item in found if item is not None]


def observations(broker: MemoryBroker) -> list[Observation]:
    return [item for item in signals(broker) if isinstance(item, Observation)]


async def drawn_from(*records: Outgoing, partitions: int = 1) -> MemoryBroker:
    broker = MemoryBroker(partitions)
    for record in records:
        broker.append(record)
    place = Place(broker)
    async with place.working():
        await place.finish()
    return broker


async def test_a_response_and_its_request_become_one_observation_per_key() -> None:
    broker = await drawn_from(admitted(1), response(1, 15_500, labels={"task": "a", "other": "x"}))
    whole, task = observations(broker)
    assert (whole.key, task.key) == (Key("triage", "base"), Key("triage", "base", "task=a"))
    assert dataclasses.replace(task, key=whole.key, segments=("task=a",)) == whole
    assert (task.segments, whole.adapter) == ((), None)
    assert (whole.request_id, whole.time_ms, whole.route_version) == ("r1", 15_500, 3)
    assert whole.source == ("responses", 0, 0)
    assert whole.values["completion_tokens"] == 5
    assert whole.values["cost"] == pytest.approx(20)
    assert whole.values["answer_class"] == "billing"
    # Of the request:
    assert whole.values["turns"] == 1
    assert "prompt_words" in whole.values


async def test_the_adapter_that_answered_is_told_and_none_is_not_the_same_as_unknown() -> None:
    (base,) = observations(await drawn_from(response(1, 15_500, adapter="")))
    (tuned,) = observations(await drawn_from(response(1, 15_500, adapter="triage-2")))
    assert (base.adapter, tuned.adapter) == ("", "triage-2")
    assert base.segments == ("task=",)


async def test_a_response_without_its_request_tells_what_it_can() -> None:
    (observation,) = observations(await drawn_from(response(1, 15_500)))
    assert observation.values["completion_tokens"] == 5
    assert "prompt_words" not in observation.values


async def test_half_a_character_in_an_answers_json_costs_no_record() -> None:
    # JSON can escape one half of a pair, UTF-8 cannot write it.
    odd = '{"category": "\\ud83d", "\\ude00": 1}'
    broker = await drawn_from(response(1, 15_500, text=odd))
    (observation,) = observations(broker)
    assert observation.values["answer_class"] == "?"
    assert observation.values["json_keys"] == "category,?"
    assert list(broker.read("p.dlq")) == []


async def test_a_schema_that_json_cannot_say_costs_its_own_signal_only() -> None:
    message = admitted_pb2.AdmittedRequest(request_id="r1", variant="base")
    message.request.messages.add(role="user", content="How many?")
    message.request.response_schema.update({"type": "number", "maximum": float("inf")})
    request = encode(message, topic="p.admitted", key="r1", source="test", event_id="r1")
    broker = await drawn_from(request, response(1, 15_500))
    (observation,) = observations(broker)
    assert observation.values["turns"] == 1
    assert "invalid_structure" not in observation.values
    assert broker.read("p.dlq") == []


@pytest.mark.parametrize(
    "fields",
    [
        {"purpose": common_pb2.PURPOSE_PROBE},
        {"purpose": common_pb2.PURPOSE_REPLAY},
        {"cached": True},
        {"labels": {"golden": "v1"}},
    ],
)
async def test_what_says_nothing_of_clients_traffic_is_left_out(fields: dict[str, Any]) -> None:
    broker = await drawn_from(admitted(1), response(1, 15_500, **fields))
    # Its time counts all the same.
    assert signals(broker) == [Tick("responses/0", 10_000, 2)]


async def test_an_undecodable_record_is_a_dead_letter_and_the_next_one_is_drawn_from() -> None:
    broken = Outgoing(
        "p.responses", b"k", b"\xff\xff", (("content-type", b"application/protobuf"),)
    )
    broker = await drawn_from(broken, response(1, 15_500))
    assert len(observations(broker)) == 1
    (letter,) = broker.read("p.dlq")
    assert letter.value == b"\xff\xff"


async def test_feedback_has_its_own_time_and_the_responses_keys() -> None:
    broker = await drawn_from(
        response(1, 15_500, labels={"task": "a"}), feedback(1, 99_000, "access")
    )
    rated = [o for o in observations(broker) if o.source.topic == "feedback"]
    assert [o.key.segment for o in rated] == ["", "task=a"]
    assert [(o.time_ms, dict(o.values)) for o in rated] == [(99_000, {"label_error": 1.0})] * 2


async def test_feedback_on_a_golden_request_is_its_loss() -> None:
    broker = await drawn_from(
        response(1, 15_500, labels={"golden": "v1"}), feedback(1, 16_000, "billing")
    )
    (rated,) = observations(broker)
    assert rated.values == {"golden_loss": 0.0}


async def test_feedback_on_nothing_is_passed_over() -> None:
    assert observations(await drawn_from(feedback(9, 16_000, "billing"))) == []


async def test_a_tick_follows_the_observations_that_it_ends() -> None:
    times = [15_000, 17_000, 21_900, 22_000, 23_000, 35_000]
    records = [response(n, time, key="one") for n, time in enumerate(times)]
    broker = await drawn_from(*records)
    told = [
        item.time_ms if isinstance(item, Observation) else item.until_ms  # type: ignore[union-attr]
        for item in signals(broker)
    ]
    assert told == [15_000, 10_000, 17_000, 21_900, 22_000, 20_000, 23_000, 35_000, 30_000]


async def test_a_clock_that_is_far_ahead_is_not_believed() -> None:
    broker = await drawn_from(response(1, 10**13))
    (observation,) = observations(broker)
    assert observation.time_ms < 10**13 - 10**11


async def test_every_partition_of_signals_hears_every_source() -> None:
    records = [response(n, 10_000 * (n // 8)) for n in range(80)]
    broker = await drawn_from(*records, partitions=4)
    heard = {
        number: {
            item.source
            for record in broker._logs[Partition("p.signals", number)]
            if record is not None and isinstance(item := from_record(record), Tick)
        }
        for number in range(4)
    }
    assert heard == {n: {f"responses/{m}" for m in range(4)} for n in range(4)}


async def settle(place: Place, moment: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(moment):
            await place.finish()


@pytest.mark.parametrize("seed", range(6))
async def test_each_response_is_drawn_from_once_whatever_fails(seed: int) -> None:
    draw = random.Random(seed)
    broker = MemoryBroker(3)
    for n in range(300):
        broker.append(admitted(n))
    order = list(range(300))
    draw.shuffle(order)
    for n in order:
        broker.append(response(n, 100 * n, labels={"task": draw.choice("ab")}))
    for n in draw.sample(range(300), 40):
        broker.append(feedback(n, 40_000, "billing"))
    # Workers that die in the middle, others that come; commits that fail.
    for _ in range(5):
        place = Place(broker)
        tasks = [asyncio.create_task(consumer.run()) for consumer in place.consumers.values()]
        await settle(place, draw.uniform(0, 0.05))
        broker.fail_next_commit = LogError("lost") if draw.random() < 0.5 else None
        await settle(place, draw.uniform(0, 0.05))
        while not all(task.done() for task in tasks):
            # Again and again: a wait_for whose time has come just then loses a cancellation.
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=0.05)
        for lines in place.lines.values():
            await lines.close()
        # As the session's timeout does for one that died while it left.
        for group in broker._groups.values():
            group.members.clear()
    last = Place(broker)
    async with last.working():
        await last.finish()
    counts = Counter((o.source, o.key) for o in observations(broker))
    assert set(counts.values()) == {1}
    assert len(counts) == 2 * (300 + 40)
    drawn = [o for o in observations(broker) if o.source.topic == "responses"]
    assert all("prompt_words" in o.values for o in drawn)


class Ends:
    def __init__(self, broker: MemoryBroker, topic: str) -> None:
        self._broker, self._topic = broker, topic
        self.fails = False

    async def read(self) -> Mapping[int, int]:
        if self.fails:
            raise LogError("away")
        return {
            n: len(self._broker._logs[Partition(self._topic, n)])
            for n in range(self._broker.partitions)
        }


class Clock:
    def __init__(self) -> None:
        self.s = 100.0

    def seconds(self) -> float:
        return self.s

    def ms(self) -> int:
        return round(self.s * 1000)


async def test_idle_sources_tell_by_the_clock_once_all_is_read() -> None:
    broker, clock = MemoryBroker(2), Clock()
    place = Place(broker)
    topics = [
        Topic(name, place.consumers[name].standing, place.lines[name], Ends(broker, f"p.{name}"))
        for name in ("responses", "feedback")
    ]
    idle = IdleSources(topics, place.parts, broker, clock_ms=clock.ms, timer=clock.seconds)

    def told() -> list[Tick]:
        ticks = [item for item in signals(broker) if isinstance(item, Tick)]
        return ticks[: len(ticks) // broker.partitions]

    async with place.working():
        await until(lambda: all(len(t.standing()) == 2 for t in topics))
        await idle.look()
        clock.s = 119.0
        await idle.look()
        assert told() == []
        clock.s = 120.0
        await idle.look()
        # 120 s, less what a commit may take and the lateness, is in the tick up to 110 s.
        sources = ["responses/0", "responses/1", "feedback/0", "feedback/1"]
        assert told() == [Tick(source, 110_000, 4) for source in sources]
        clock.s = 124.999
        await idle.look()
        assert len(told()) == 4

        # A record makes its source busy for two ticks; a log that does not answer tells nothing.
        broker.append(dataclasses.replace(response(1, 125_000), partition=0))
        await until(lambda: place.done("responses"))
        topics[1].ends.fails = True  # type: ignore[attr-defined]
        clock.s = 140.0
        await idle.look()
        assert told()[4:] == [Tick("responses/0", 120_000, 4), Tick("responses/1", 130_000, 4)]
        topics[1].ends.fails = False  # type: ignore[attr-defined]
        clock.s = 160.0
        await idle.look()
        assert {(t.source, t.until_ms) for t in told()[6:]} == {(s, 150_000) for s in sources}


async def test_a_source_that_has_not_read_all_tells_nothing_by_the_clock() -> None:
    broker, clock = MemoryBroker(1), Clock()
    place = Place(broker)
    ends = Ends(broker, "p.responses")
    topic = Topic(
        "responses", place.consumers["responses"].standing, place.lines["responses"], ends
    )
    idle = IdleSources([topic], place.parts, broker, clock_ms=clock.ms, timer=clock.seconds)
    async with place.working():
        await until(lambda: len(topic.standing()) == 1)
        await idle.look()
        clock.s = 200.0

        async def more() -> Mapping[int, int]:
            return {0: 1}  # somebody else's connection sees a record that ours has not brought

        ends.read = more  # type: ignore[method-assign]
        await idle.look()
    assert signals(broker) == []


async def test_a_policy_is_written_to_every_partition_and_changes_what_is_drawn() -> None:
    broker = MemoryBroker(2)
    place = Place(broker)
    for version, document in [(2, "segments: {}"), (1, "{}"), (3, "no policy: [")]:
        message = drift_pb2.PolicyVersion(version=version, document=document)
        place.relay.take_policy(
            broker.append(encode(message, topic="p.policies", key="d", source="t"))
        )
    relaying = asyncio.create_task(place.relay.run())
    await until(lambda: len(broker.read("p.signals")) == 2)
    relaying.cancel()
    assert signals(broker) == [PolicyChange(2, "segments: {}")] * 2
    assert place.parts.plan().segments == {}


async def test_partitions_that_are_added_hear_of_the_policy_in_force() -> None:
    broker = MemoryBroker(4)
    place = Place(broker)
    place.relay.count(2)
    message = drift_pb2.PolicyVersion(version=3, document="segments: {}")
    place.relay.take_policy(broker.append(encode(message, topic="p.policies", key="d", source="t")))
    relaying = asyncio.create_task(place.relay.run())
    await until(lambda: len(broker.read("p.signals")) == 2)
    for partitions in (2, 4, 4):
        place.relay.count(partitions)
        await until(lambda: not place.relay._waiting)
    relaying.cancel()
    assert signals(broker) == [PolicyChange(3, "segments: {}")] * (2 + 4)
    told = {record.partition.number for record in broker.read("p.signals")}
    assert told == {0, 1, 2, 3}


async def test_the_newest_route_of_each_model_is_written_to_the_first_partition() -> None:
    broker = MemoryBroker(2)
    place = Place(broker)
    for version, weights in [(1, {"base": 100}), (2, {"base": 0, "better": 100, "copied": 5})]:
        route = route_pb2.Route(model="triage", version=version)
        for name, weight in weights.items():
            route.variants.add(name=name, weight=weight)
        route.variants[-1].stage = route_pb2.STAGE_SHADOW
        place.relay.take_route(broker.append(encode(route, topic="p.routes", key="x", source="t")))
    for key, value in [(b"gone", None), (b"none", b"\xff")]:
        place.relay.take_route(Record(Partition("p.routes", 0), 9, key, value, (), 0))
    relaying = asyncio.create_task(place.relay.run())
    await until(lambda: len(broker.read("p.signals")) == 2)
    relaying.cancel()
    assert signals(broker) == [Traffic("triage", 2, ("better", "copied")), Traffic("gone", 0, ())]
    assert {record.partition.number for record in broker.read("p.signals")} == {0}


async def until(condition: object) -> None:
    async with asyncio.timeout(10):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)
