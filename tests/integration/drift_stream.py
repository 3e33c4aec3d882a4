"""Responses whose signals change at known places, and what one undisturbed fold makes of them."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer

from penstock.codec import decode, encode
from penstock.kafka.reader import LogReader, Start
from penstock.records import Record
from penstock.v1 import common_pb2, drift_pb2, feedback_pb2, response_pb2
from penstock_drift.channels.bank import CatalogueBank
from penstock_drift.findings.wire import event_to_wire
from penstock_drift.records.signal_wire import from_record
from penstock_drift.records.values import Observation
from penstock_drift.replay.replaying import Replay
from penstock_drift.signals.catalogue import CATALOGUE
from tests.integration.operator_place import Place

BEGAN_MS = 1_767_225_600_000  # 2026-01-01
POLICY = """
tick_s: {tick_s}
lateness_s: 1
hysteresis_ticks: 2
cooldown_ticks: 5
signals:
  "*": {{enabled: false}}
  refusal: {{enabled: true, baseline_observations: {baseline}}}
  completion_tokens: {{enabled: true, baseline_observations: {baseline}}}
  latency: {{enabled: true, baseline_observations: {baseline}}}
segments: {{task: 40}}
self_test: {{enabled: false}}
"""
REFUSED = "I'm sorry, but I can't help with that request."
ANSWERED = "Your invoice was sent again; the queue is billing."
BATCH = 500
READ_S = 1800.0


@dataclasses.dataclass(frozen=True)
class Script:
    """What responses say, a function of their numbers and a seed.

    Attributes:
        changes: By task, the number from which on its refusals are 30 % and not 2.
        tasks: How many there are; responses take turns.
        partitions: Of `responses`; each task is on all of them.
        per_s: Responses in a second of event time.
        seed: Of everything that is drawn.
    """

    changes: Mapping[int, int]
    tasks: int = 2
    partitions: int = 2
    per_s: int = 50
    seed: int = 1

    def time_ms(self, number: int) -> int:
        """When a response is made, in event time: milliseconds since 1970."""
        return BEGAN_MS + number * 1000 // self.per_s

    def partition(self, number: int) -> int:
        """Where a response lies."""
        return number // self.tasks % self.partitions

    def response(self, number: int, time_ms: int) -> response_pb2.GenerateResponse:
        """The response of that number."""
        draw = random.Random(f"{self.seed}/{number}")
        task = number % self.tasks
        shifted = number >= self.changes.get(task, number + 1)
        message = response_pb2.GenerateResponse(
            request_id=f"r{number}",
            response_id=f"rsp{number}",
            outcome=response_pb2.OUTCOME_ANSWERED,
            text=REFUSED if draw.random() < (0.30 if shifted else 0.02) else ANSWERED,
            finish_reason=response_pb2.FINISH_REASON_STOP,
            model="triage",
            variant="base",
            route_version=1,
            labels={"task": f"t{task}"},
            usage=common_pb2.Usage(
                prompt_tokens=50, completion_tokens=max(1, round(draw.gauss(30, 8)))
            ),
            timings=response_pb2.Timings(
                queued_s=0.01,
                first_token_s=0.02,
                generation_s=0.1,
                total_s=draw.lognormvariate(-1, 0.3),
            ),
            attempt=1,
        )
        message.created_at.FromMilliseconds(time_ms)
        return message


async def write_responses(place: Place, script: Script, count: int) -> int:
    """Writes responses in event time of their own.

    Returns:
        The event time of the last one, in milliseconds.
    """
    async with _writing(place) as producer:
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            await _write(producer, place, script, {n: script.time_ms(n) for n in numbers})
    return script.time_ms(count - 1)


async def write_live(place: Place, script: Script, enough: asyncio.Event) -> int:
    """Writes responses as they would be made now, until there are enough.

    Returns:
        How many.
    """
    step = max(1, script.per_s // 10)
    number = 0
    async with _writing(place) as producer:
        while not enough.is_set():
            now_ms = time.time_ns() // 1_000_000
            await _write(
                producer, place, script, dict.fromkeys(range(number, number + step), now_ms)
            )
            number += step
            await asyncio.sleep(step / script.per_s)
    return number


@asynccontextmanager
async def _writing(place: Place) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=place.bootstrap, transactional_id=f"{place.prefix}-write"
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def _write(
    producer: AIOKafkaProducer, place: Place, script: Script, times: Mapping[int, int]
) -> None:
    async with producer.transaction():
        for number, time_ms in times.items():
            message = script.response(number, time_ms)
            out = encode(message, topic=place.topic("responses"), key=None, source="inference")
            await producer.send(
                out.topic,
                out.value,
                headers=list(out.headers),
                partition=script.partition(number),
            )


async def write_feedback(place: Place, partitions: int) -> None:
    """Feedback of now on every partition: these sources have nothing to say before it."""
    message = feedback_pb2.Feedback(feedback_id="f", request_id="nobody's", score=1)
    message.created_at.GetCurrentTime()
    out = encode(message, topic=place.topic("feedback"), key=None, source="test")
    await place.publish(*(dataclasses.replace(out, partition=n) for n in range(partitions)))


async def set_policy(place: Place, *, tick_s: int = 5, baseline: int = 400) -> None:
    """Puts the tests' policy in force."""
    document = POLICY.format(tick_s=tick_s, baseline=baseline)
    version = drift_pb2.PolicyVersion(version=1, document=document)
    await place.publish(
        encode(version, topic=place.topic("policies"), key="default", source="test")
    )


async def events_of(place: Place) -> list[drift_pb2.DriftEvent]:
    """What is on `drift`, in order."""
    return [decode(record, drift_pb2.DriftEvent) for record in await place.read("drift")]


@dataclasses.dataclass
class Sequential:
    """What one undisturbed fold of `signals` finds.

    Attributes:
        events: In order.
        whole: Request ids of the observations of all traffic.
        parts: Those of the observations of one task.
    """

    events: list[drift_pb2.DriftEvent] = dataclasses.field(default_factory=list)
    whole: list[str] = dataclasses.field(default_factory=list)
    parts: list[str] = dataclasses.field(default_factory=list)


async def sequential(place: Place, partitions: int) -> Sequential:
    """Folds `signals` from its beginning, in this process."""
    replay = Replay(partitions, CatalogueBank(CATALOGUE), CATALOGUE)
    found = Sequential()

    def take(record: Record) -> None:
        item = from_record(record)
        assert item is not None
        # A self-test may have begun before the policy that wants none was read.
        if isinstance(item, Observation) and item.key.model == "triage":
            (found.parts if item.key.segment else found.whole).append(item.request_id)
        replay.take(record.partition.number, record.offset, item)

    await _each(place, "signals", take)
    found.events += [event_to_wire(event) for event in replay.events]
    return found


async def _each(place: Place, name: str, take: Callable[[Record], None]) -> None:
    reader = LogReader(place.bootstrap, place.topic(name), start=Start.BEGINNING)
    reading = asyncio.create_task(reader.run(take))
    caught_up = asyncio.create_task(reader.caught_up.wait())
    try:
        async with asyncio.timeout(READ_S):
            await asyncio.wait([reading, caught_up], return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            reading.result()
    finally:
        for task in (reading, caught_up):
            task.cancel()
        await asyncio.gather(reading, caught_up, return_exceptions=True)


def assert_same(
    found: Sequence[drift_pb2.DriftEvent], expected: Sequence[drift_pb2.DriftEvent]
) -> None:
    """One by one, all fields."""
    assert [event.event_id for event in found] == [event.event_id for event in expected]
    for one, other in zip(found, expected, strict=True):
        assert one == other


def assert_each_once(found: Sequential, responses: int) -> None:
    """`signals` holds each response once under all traffic, and once under its task."""
    expected = {f"r{number}" for number in range(responses)}
    for ids in (found.whole, found.parts):
        assert len(ids) == responses
        assert set(ids) == expected
