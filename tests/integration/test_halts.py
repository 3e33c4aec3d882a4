"""Partitions that halt at too many dead letters: found, and told to go on, on a real Kafka."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Awaitable, Callable, Sequence

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from penstock.codec import decode
from penstock.kafka.broker import KafkaBroker
from penstock.kafka.consumer import Delivery, TransactionalConsumer
from penstock.kafka.dlq import dead_letter
from penstock.kafka.halts import HaltAlerts, Resumes
from penstock.kafka.progress import Progress
from penstock.kafka.progress import encode as encode_progress
from penstock.kafka.reader import LogReader, Start
from penstock.records import Outgoing, Record
from penstock.v1 import control_pb2
from penstock_native.kafka import KafkaServer
from tests.integration.operator_place import Place, make_place

pytestmark = pytest.mark.integration


@pytest.fixture
async def place(kafka: KafkaServer) -> Place:
    return await make_place(kafka.bootstrap)


async def halt(place: Place, group: str, at_ms: int) -> None:
    """A group that stands halted in partition 1 of `admitted`, as its owner leaves it."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=place.bootstrap, group_id=group, enable_auto_commit=False
    )
    await consumer.start()
    tps = [TopicPartition(place.topic("admitted"), n) for n in range(2)]
    consumer.assign(tps)
    marks = [encode_progress(Progress()), encode_progress(Progress(halted_at_ms=at_ms))]
    await consumer.commit(
        {tp: OffsetAndMetadata(1, mark) for tp, mark in zip(tps, marks, strict=True)}
    )
    await consumer.stop()


async def test_a_halted_partition_is_found_and_told_to_go_on(place: Place) -> None:
    group = f"{place.prefix}-pump"
    # The consumer's clock is ahead of the operator's.
    halted_at_ms = int(dt.datetime.now(dt.UTC).timestamp() * 1000) + 60_000
    await place.publish(
        *(Outgoing(place.topic("admitted"), None, b"", partition=1) for _ in range(4))
    )
    await halt(place, group, halted_at_ms)
    standings = [
        json.loads(line) for line in (await place.done("consumers", "list", "--json")).splitlines()
    ]
    assert [(s["partition"], s["position"], s["lag"]) for s in standings] == [(0, 1, 0), (1, 1, 3)]
    halted = json.loads(await place.done("consumers", "halted", "--json"))
    assert (halted["group"], halted["partition"]) == (group, 1)
    assert group in await place.done("consumers", "halted")

    told = await place.done("consumers", "resume", group, "--topic", "admitted")
    assert "partitions 1" in told
    (record,) = await place.read("control")
    resume = decode(record, control_pb2.Control).resume
    assert (resume.group, resume.topic) == (group, place.topic("admitted"))
    assert not resume.HasField("partition")
    assert resume.requested_at.ToMilliseconds() > halted_at_ms


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody", "--topic", "admitted"], "no group 'nobody' has read"),
        (["GROUP", "--topic", "requests"], "has read"),
        (["GROUP", "--topic", "admitted", "--partition", "7"], "partition 7"),
        (["GROUP", "--topic", "nope"], "is not there"),
    ],
    ids=str,
)
async def test_a_command_for_nobody_is_refused(
    place: Place, arguments: Sequence[str], message: str
) -> None:
    group = f"{place.prefix}-pump"
    await halt(place, group, 1)
    named = [group if each == "GROUP" else each for each in arguments]
    result = await place.command("consumers", "resume", *named)
    assert (result.exit_code, message in result.stderr) == (1, True)
    assert await place.read("control") == []


class Broken:
    """A handler of a bad deploy, until it is mended."""

    def __init__(self, place: Place) -> None:
        self.mended = False
        self.handled: list[bytes | None] = []
        self._place = place

    def accept(self, delivery: Delivery) -> None:
        if not self.mended:
            raise ValueError("a bad deploy")
        self.handled.append(delivery.record.value)
        delivery.complete(())

    def failed(self, record: Record, error: Exception) -> Sequence[Outgoing]:
        return [
            dead_letter(
                record,
                dlq_topic=self._place.topic("dlq"),
                service="test",
                reason="it raised",
                error=error,
                attempts=1,
            )
        ]


async def running(
    place: Place, handler: Broken
) -> tuple[TransactionalConsumer, asyncio.Task[None]]:
    group = f"{place.prefix}-test"
    consumer = TransactionalConsumer(
        KafkaBroker(place.bootstrap),
        topic=place.topic("admitted"),
        group=group,
        handler=handler,
        halts=HaltAlerts("test", group, place.topic("alerts")),
    )
    commands = Resumes(group, place.topic("admitted"), consumer.resume)
    reader = LogReader(place.bootstrap, place.topic("control"), start=Start.BEGINNING)

    async def both() -> None:
        hearing = asyncio.create_task(reader.run(commands.take))
        try:
            await consumer.run()
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)

    return consumer, asyncio.create_task(both())


async def until(condition: Callable[[], Awaitable[bool]], limit_s: float = 60) -> None:
    async with asyncio.timeout(limit_s):
        while not await condition():
            await asyncio.sleep(0.2)


async def test_a_bad_deploy_halts_stays_halted_when_restarted_and_is_resumed(place: Place) -> None:
    values = [b"%d" % n for n in range(200)]
    await place.publish(
        *(Outgoing(place.topic("admitted"), None, value, partition=0) for value in values)
    )
    handler = Broken(place)
    consumer, task = await running(place, handler)

    async def halted() -> bool:
        return f"{place.prefix}-test" in await place.done("consumers", "halted")

    await until(halted)
    letters = await place.read("dlq")
    assert len(letters) == 20
    (alert,) = await place.read("alerts")
    summary = json.loads(alert.value or b"")["summary"]
    command = summary.rpartition("penstock ")[2].split()

    await consumer.stop(1)
    await task
    handler.mended = True
    consumer, task = await running(place, handler)
    await until(lambda: _true(len(consumer.assigned) == 2))
    await asyncio.sleep(2)
    assert handler.handled == []

    await place.done(*command)
    await until(lambda: _true(len(handler.handled) == 180))

    async def resolved() -> bool:
        states = [json.loads(each.value or b"")["state"] for each in await place.read("alerts")]
        return states == ["ALERT_STATE_OPENED", "ALERT_STATE_RESOLVED"]

    # A transaction's records show a moment after it was acknowledged.
    await until(resolved)
    await until(lambda: _not(halted))
    await consumer.stop(1)
    await task
    assert handler.handled == values[20:]
    assert [letter.value for letter in await place.read("dlq")] == values[:20]
    assert await resolved()


async def _true(value: bool) -> bool:
    return value


async def _not(condition: Callable[[], Awaitable[bool]]) -> bool:
    return not await condition()
