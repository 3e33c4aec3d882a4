"""faust under the kit: committed records only, nothing repeated, poison on the dlq once."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from penstock.codec import encode
from penstock.errors import InvalidRequest
from penstock.kafka.gate import ResumeGate
from penstock.kafka.guard import DeadLetters, Handle
from penstock.kafka.halts import HaltAlerts
from penstock.kafka.ports import LogError
from penstock.kafka.publisher import KafkaPublisher
from penstock.records import Outgoing, Partition, Record
from penstock.settings import Settings
from penstock.streams import consume, make_app, run
from penstock.v1 import control_pb2

pytestmark = pytest.mark.integration


class Place:
    """A topic, its dlq and a group of its own on the session's Kafka."""

    def __init__(self, bootstrap: str) -> None:
        name = uuid.uuid4().hex[:8]
        self.bootstrap = bootstrap
        self.topic, self.dlq, self.group = f"{name}.in", f"{name}.dlq", f"{name}-group"
        self.alerts, self.control = f"{name}.alerts", f"{name}.control"
        self.settings = Settings.load({}, PENSTOCK_KAFKA_BOOTSTRAP=bootstrap)

    @asynccontextmanager
    async def running(
        self, handle: Handle, publisher: Any = None, **more: Any
    ) -> AsyncIterator[asyncio.Task[None]]:
        own = KafkaPublisher(self.bootstrap, "test")
        await own.start()
        app = make_app(self.group, self.settings)
        alerts = HaltAlerts("test", self.group, self.alerts)
        gate = ResumeGate(self.bootstrap, own, alerts, self.control)
        letters = DeadLetters(publisher or own, self.dlq, "test", self.group, gate)
        consume(app, self.topic, handle, dead_letters=letters, max_batch=20, **more)
        task = asyncio.create_task(run(app))
        try:
            yield task
        finally:
            if not task.done():
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await own.stop()

    async def committed_to(self, offset: int) -> None:
        """Waits until the group's position in partition 0 is `offset`."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            async with asyncio.timeout(20):
                while True:
                    positions = await admin.list_consumer_group_offsets(self.group)
                    found = positions.get(TopicPartition(self.topic, 0))
                    if found is not None and found.offset == offset:
                        return
                    await asyncio.sleep(0.1)
        finally:
            await admin.close()

    async def read(self, topic: str, count: int) -> list[Any]:
        """All records of a topic; waits until there are `count`."""
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=self.bootstrap, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            found: list[Any] = []
            async with asyncio.timeout(30):
                while len(found) < count:
                    for batch in (await consumer.getmany(timeout_ms=200)).values():
                        found.extend(batch)
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                found.extend(batch)
            return found
        finally:
            await consumer.stop()


@pytest.fixture
async def place(kafka: Any) -> Place:
    place = Place(kafka.bootstrap)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics(
        [NewTopic(place.topic, 2, 1)]
        + [NewTopic(t, 1, 1) for t in (place.dlq, place.alerts, place.control)]
    )
    await admin.close()
    return place


async def write(place: Place, values: Sequence[bytes], *, abort: bool = False) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=place.bootstrap, transactional_id=f"{place.topic}-{abort}"
    )
    await producer.start()
    for number, start in enumerate(range(0, len(values), 10)):
        await producer.begin_transaction()
        for value in values[start : start + 10]:
            await producer.send(place.topic, value, partition=number % 2)
        await (producer.abort_transaction() if abort else producer.commit_transaction())
    await producer.stop()


async def until(condition: Any, timeout_s: float = 40) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.05)


async def test_sees_committed_records_only_and_repeats_none(place: Place) -> None:
    await write(place, [b"0"])
    for _ in range(5):
        # Aborted and committed transactions in turn: 50 records of 100 count.
        await write(place, [b"aborted"] * 10, abort=True)
        await write(place, [b"%d" % n for n in range(10)])
    seen: list[Record] = []

    async def keep(records: Sequence[Record]) -> None:
        seen.extend(records)

    async with place.running(keep):
        await until(lambda: len(seen) >= 51)
        await place.committed_to(111)  # markers count
    assert {r.value for r in seen} == {b"%d" % n for n in range(10)}
    assert len(seen) == 51

    await write(place, [b"after the restart"])
    async with place.running(keep):
        await until(lambda: len(seen) >= 52)
    assert [r.value for r in seen[51:]] == [b"after the restart"]


async def test_poison_goes_to_the_dlq_once_and_the_rest_is_handled(place: Place) -> None:
    await write(place, [b"%d" % n for n in range(30)])
    seen: set[bytes] = set()

    async def refuse_seven(records: Sequence[Record]) -> None:
        if any(record.value == b"7" for record in records):
            raise ValueError("7 quoted from a prompt")
        seen.update(record.value or b"" for record in records)

    async with place.running(refuse_seven):
        await until(lambda: len(seen) == 29)
        await write(place, [b"later"])
        await until(lambda: b"later" in seen)
    async with place.running(refuse_seven):
        await write(place, [b"latest"])
        await until(lambda: b"latest" in seen)
    (letter,) = await place.read(place.dlq, 1)
    headers = dict(letter.headers)
    assert letter.value == b"7"
    assert headers["kafka_dlt-original-topic"] == place.topic.encode()
    assert headers["kafka_dlt-exception-fqcn"] == b"builtins.ValueError"
    assert b"prompt" not in headers["kafka_dlt-exception-message"]


class Broken:
    async def publish(self, records: Sequence[Outgoing]) -> None:
        raise LogError("the dlq cannot be written")


async def test_stops_without_committing_when_the_dlq_cannot_be_written(place: Place) -> None:
    await write(place, [b"1", b"2", b"3"])

    async def refuse(records: Sequence[Record]) -> None:
        raise ValueError

    async with place.running(refuse, Broken()) as task:
        with pytest.raises(LogError):
            await asyncio.wait_for(task, 40)

    seen: list[bytes | None] = []

    async def keep(records: Sequence[Record]) -> None:
        seen.extend(record.value for record in records)

    async with place.running(keep):
        await until(lambda: len(seen) >= 3)
    assert seen == [b"1", b"2", b"3"]


async def test_a_batch_under_way_at_the_stop_is_delivered_again(place: Place) -> None:
    await write(place, [b"1", b"2", b"3"])
    begun = asyncio.Event()

    async def hang(records: Sequence[Record]) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with place.running(hang):
        await asyncio.wait_for(begun.wait(), 40)

    seen: list[bytes | None] = []

    async def keep(records: Sequence[Record]) -> None:
        seen.extend(record.value for record in records)

    async with place.running(keep):
        await until(lambda: len(seen) >= 3)
    assert seen == [b"1", b"2", b"3"]


async def test_what_is_not_kept_yet_is_not_acknowledged(place: Place) -> None:
    await write(place, [b"%d" % n for n in range(40)])
    seen: list[Record] = []
    kept: dict[Partition, int] = {}

    async def handle(records: Sequence[Record]) -> None:
        seen.extend(records)

    first = Partition(place.topic, 0)
    async with place.running(handle, kept_to=lambda: kept):
        await until(lambda: len(seen) >= 40)
        kept[first] = 7
        await write(place, [b"more"] * 2)
        await until(lambda: len(seen) >= 42)
        await place.committed_to(7)
    again: list[Record] = []

    async def handle_again(records: Sequence[Record]) -> None:
        again.extend(records)

    async with place.running(handle_again):
        await until(lambda: sum(r.partition == first for r in again) >= 15)
    assert min(r.offset for r in again if r.partition == first) == 7


async def test_a_second_worker_takes_over_and_nothing_is_lost(place: Place) -> None:
    seen: list[bytes] = []

    async def keep(records: Sequence[Record]) -> None:
        await asyncio.sleep(0.01)  # so that rebalances find batches under way
        seen.extend(record.value or b"" for record in records)

    expected = [b"%d" % n for n in range(400)]
    async with place.running(keep):
        await write(place, expected[:200])
        async with place.running(keep):
            await write(place, expected[200:300])
            await until(lambda: len(set(seen)) == 300)
        await write(place, expected[300:])
        await until(lambda: len(set(seen)) == 400)
    # At least once, and no more again than what a rebalance finds uncommitted.
    assert set(seen) == set(expected)
    assert len(seen) < 800


async def test_a_broken_deploy_halts_with_an_alert_until_it_is_resumed(place: Place) -> None:
    values = [b"%d" % n for n in range(100)]
    await write(place, values)
    broken, seen = True, []

    async def handle(records: Sequence[Record]) -> None:
        if broken:
            raise InvalidRequest("a bad deploy reads nothing")
        seen.extend(record.value for record in records)

    async with place.running(handle):
        (alert,) = await place.read(place.alerts, 1)
        shown = json.loads(alert.value)
        assert shown["state"] == "ALERT_STATE_OPENED"
        assert f"penstock consumers resume {place.group} --topic {place.topic}" in shown["summary"]
        buried = {letter.value for letter in await place.read(place.dlq, 20)}
        assert 20 <= len(buried) < 40  # a run of 20 in one partition of two

        broken = False
        resume = control_pb2.Resume(group=place.group, topic=place.topic)
        resume.requested_at.GetCurrentTime()
        publisher = KafkaPublisher(place.bootstrap, "test")
        await publisher.start()
        command = control_pb2.Control(resume=resume)
        await publisher.publish([encode(command, topic=place.control, key=None, source="test")])
        await publisher.stop()
        await until(lambda: len(seen) + len(buried) >= 100)
        states = [json.loads(alert.value)["state"] for alert in await place.read(place.alerts, 2)]
    assert set(seen) == set(values) - buried
    assert len(seen) == len(set(seen))
    assert states == ["ALERT_STATE_OPENED", "ALERT_STATE_RESOLVED"]
