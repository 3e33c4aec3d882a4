"""The kit's transactional consumer and reader on a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from penstock.kafka.broker import KafkaBroker, KafkaMembership, KafkaOwnership
from penstock.kafka.consumer import Delivery, TransactionalConsumer
from penstock.kafka.ports import Fenced
from penstock.kafka.publisher import KafkaPublisher
from penstock.kafka.reader import LogReader, Start
from penstock.records import Outgoing, Partition, Record
from penstock_native.kafka import KafkaServer

pytestmark = pytest.mark.integration

PARTITIONS = 2


@pytest.fixture
async def topics(kafka: KafkaServer) -> tuple[str, str]:
    """A new pair of topics, in and out."""
    name = uuid.uuid4().hex[:8]
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(f"{name}.{end}", PARTITIONS, 1) for end in ("in", "out")])
    await admin.close()
    return f"{name}.in", f"{name}.out"


class Echo:
    """Writes each value to the output topic, in any order where it takes time."""

    def __init__(self, output: str, longest_s: float = 0.0) -> None:
        self.output = output
        self.handled: Counter[bytes] = Counter()
        self._longest_s = longest_s

    def accept(self, delivery: Delivery) -> None:
        record = delivery.record
        self.handled[record.value or b""] += 1
        outputs = [Outgoing(self.output, record.key, record.value)]
        if self._longest_s:
            delivery.begin()
            wait_s = random.uniform(0, self._longest_s)
            asyncio.get_running_loop().call_later(wait_s, delivery.complete, outputs)
        else:
            delivery.complete(outputs)

    def failed(self, record: Record, error: Exception) -> Sequence[Outgoing]:
        raise AssertionError(f"{record.offset}: {error!r}")


class Held(Echo):
    """Ends every other record at once, and those between when it is told to."""

    def __init__(self, output: str) -> None:
        super().__init__(output)
        self._held: list[Delivery] = []

    def accept(self, delivery: Delivery) -> None:
        if self.handled.total() % 2:
            super().accept(delivery)
        else:
            self.handled[delivery.record.value or b""] += 1
            delivery.begin()
            self._held.append(delivery)

    def release(self) -> None:
        for delivery in self._held:
            record = delivery.record
            delivery.complete([Outgoing(self.output, record.key, record.value)])


class Nothing:
    """A listener for memberships that a test drives by hand."""

    def __init__(self) -> None:
        self.assigned_partitions: set[Partition] = set()

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        self.assigned_partitions -= set(partitions)

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        self.assigned_partitions |= set(partitions)


@contextlib.asynccontextmanager
async def reading(kafka: KafkaServer, topic: str) -> AsyncIterator[list[bytes]]:
    """What is committed to a topic, from its beginning, as it comes."""
    seen: list[bytes] = []
    reader = LogReader(kafka.bootstrap, topic, start=Start.BEGINNING)
    task = asyncio.create_task(reader.run(lambda record: seen.append(record.value or b"")))
    try:
        await asyncio.wait_for(reader.caught_up.wait(), 20)
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def consuming(
    kafka: KafkaServer, source: str, handler: Echo, instance_id: str | None = None
) -> AsyncIterator[TransactionalConsumer]:
    consumer = TransactionalConsumer(
        KafkaBroker(kafka.bootstrap, instance_id=instance_id),
        topic=source,
        group=f"g-{source}",
        handler=handler,
    )
    task = asyncio.create_task(consumer.run())
    try:
        yield consumer
    finally:
        await consumer.stop(drain_s=5)
        await task


async def publish(kafka: KafkaServer, topic: str, values: Sequence[bytes]) -> None:
    publisher = KafkaPublisher(kafka.bootstrap, "test")
    await publisher.start()
    await publisher.publish([Outgoing(topic, value, value) for value in values])
    await publisher.stop()


async def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


async def test_markers_and_aborted_records_do_not_stop_it(
    kafka: KafkaServer, topics: tuple[str, str]
) -> None:
    source, output = topics
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=source)
    await producer.start()
    for n in range(10):
        await producer.begin_transaction()
        for partition in range(PARTITIONS):
            await producer.send_and_wait(source, b"%d/%d" % (n, partition), partition=partition)
        await (producer.abort_transaction() if n % 2 else producer.commit_transaction())
    await producer.stop()
    expected = Counter(b"%d/%d" % (n, p) for n in range(0, 10, 2) for p in range(PARTITIONS))
    handler = Echo(output)
    async with reading(kafka, output) as seen:
        async with consuming(kafka, source, handler):
            await until(lambda: len(seen) >= len(expected))
        async with consuming(kafka, source, handler):  # a restart repeats nothing
            await publish(kafka, source, [b"last"])
            await until(lambda: b"last" in seen)
    assert Counter(seen) == expected + Counter([b"last"])
    assert handler.handled == expected + Counter([b"last"])


async def test_a_reader_catches_up_with_a_topic_that_ends_in_aborted_records(
    kafka: KafkaServer, topics: tuple[str, str]
) -> None:
    source, _ = topics
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=source)
    await producer.start()
    for end in (producer.commit_transaction, producer.abort_transaction):
        await producer.begin_transaction()
        await producer.send_and_wait(source, end.__name__.encode(), partition=0)
        await end()
    await producer.stop()
    async with reading(kafka, source) as seen:
        assert seen == [b"commit_transaction"]


async def test_an_owner_that_was_taken_over_can_write_nothing(
    kafka: KafkaServer, topics: tuple[str, str]
) -> None:
    source, output = topics
    partition = Partition(source, 0)
    await publish(kafka, source, [b"a"])
    members: list[KafkaMembership] = []
    for _ in range(2):
        listener = Nothing()
        members.append(await KafkaBroker(kafka.bootstrap).join(f"g-{source}", source, listener))
        await until(lambda known=listener: bool(known.assigned_partitions))
    stopped = await _taken(members, partition)
    await stopped.commit([Outgoing(output, b"k", b"before")], 0, "")
    owner = await _taken(members, partition)
    with pytest.raises(Fenced):
        await stopped.commit([Outgoing(output, b"k", b"stale")], 1, "")
    await owner.commit([Outgoing(output, b"k", b"after")], 1, "left by the owner")
    again = await _taken(members, partition)
    assert (again.position.offset, again.position.metadata) == (1, "left by the owner")
    for resource in (stopped, owner, again):
        await resource.release()
    for member in members:
        await member.leave()
    async with reading(kafka, output) as seen:
        assert seen == [b"before", b"after"]


async def _taken(members: Sequence[KafkaMembership], partition: Partition) -> KafkaOwnership:
    """The partition, taken through whichever member it is assigned to."""
    for member in members:
        if any(tuple(tp) == tuple(partition) for tp in member._consumer.assignment()):
            return await member.take(partition)
    raise AssertionError("nobody has the partition")


async def test_a_broker_restart_loses_and_repeats_nothing(
    kafka: KafkaServer, topics: tuple[str, str]
) -> None:
    source, output = topics
    values = [b"%d" % n for n in range(600)]
    async with reading(kafka, output) as seen, consuming(kafka, source, Echo(output)):
        await publish(kafka, source, values[:300])
        await until(lambda: len(seen) > 50)
        await asyncio.to_thread(kafka.restart)
        await publish(kafka, source, values[300:])
        await until(lambda: len(seen) >= 600)
        await publish(kafka, source, [b"end"])
        await until(lambda: b"end" in seen)
    assert Counter(seen) == Counter([*values, b"end"])


async def test_a_rebalance_keeps_the_work_of_partitions_that_stay(
    kafka: KafkaServer, topics: tuple[str, str]
) -> None:
    source, output = topics
    values = [b"%d" % n for n in range(400)]
    one, two = Held(output), Echo(output, longest_s=0.1)
    async with reading(kafka, output) as seen:
        async with consuming(kafka, source, one) as first:
            await publish(kafka, source, values)
            await until(lambda: one.handled.total() == 400)
            async with consuming(kafka, source, two) as second:
                await until(lambda: len(first.assigned) == len(second.assigned) == 1)
                one.release()
                await until(lambda: len(seen) >= 400)
        moved = two.handled.total()
    assert Counter(seen) == Counter(values)
    # Only what was under way on the partition that moved ran twice.
    assert one.handled.total() == 400
    assert 0 < moved < 300


async def test_the_end_of_a_partition_is_reached_behind_markers(
    kafka: KafkaServer, topics: tuple[str, str]
) -> None:
    source, output = topics
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=source)
    await producer.start()
    async with producer.transaction():
        await producer.send_and_wait(source, b"a", partition=0)
    await producer.stop()
    async with reading(kafka, output) as seen, consuming(kafka, source, Echo(output)) as consumer:
        await until(lambda: seen == [b"a"])
        # A marker behind the last record is nothing to read: a watchdog would wait for ever.
        await until(lambda: all(each.unread == 0 for each in consumer.standing()))


async def test_a_static_member_that_restarts_moves_nothing(
    kafka: KafkaServer, topics: tuple[str, str]
) -> None:
    source, output = topics
    one, two = Echo(output, longest_s=1), Echo(output)
    async with reading(kafka, output) as seen, consuming(kafka, source, one, "one") as first:
        async with consuming(kafka, source, two, "two") as second:
            await until(lambda: len(first.assigned) == len(second.assigned) == 1)
            kept, moved = first.assigned, second.assigned
            await publish(kafka, source, [b"%d" % n for n in range(100)])
            await until(lambda: one.handled.total() + two.handled.total() == 100)
        async with consuming(kafka, source, two, "two") as second:
            await until(lambda: second.assigned == moved)
            assert first.assigned == kept
            await publish(kafka, source, [b"after %d" % n for n in range(20)])
            await until(lambda: len(seen) >= 120)
    assert set(Counter(seen).values()) == {1}
    assert set(one.handled.values()) == {1}
