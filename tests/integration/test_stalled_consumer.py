"""A client that stops fetching or never stops: replaced, found, or ended all the same."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import NodeNotReadyError

from penstock.kafka import watch as watch_module
from penstock.kafka.broker import KafkaBroker, KafkaMembership
from penstock.kafka.clients import stop_consumer
from penstock.kafka.consumer import Delivery, TransactionalConsumer
from penstock.kafka.ends import LogEnds
from penstock.kafka.publisher import KafkaPublisher
from penstock.kafka.reader import LogReader, Start
from penstock.kafka.watch import ConsumerWatch, StoodStill
from penstock.records import Outgoing, Record
from penstock_native.kafka import KafkaServer

pytestmark = pytest.mark.integration


class Count:
    """Ends every record at once."""

    def __init__(self) -> None:
        self.seen = 0

    def accept(self, delivery: Delivery) -> None:
        self.seen += 1
        delivery.complete(())

    def failed(self, record: Record, error: Exception) -> Sequence[Outgoing]:
        raise AssertionError(f"{record.offset}: {error!r}")


@dataclasses.dataclass(frozen=True)
class Scene:
    """A topic, who writes to it and who consumes it."""

    topic: str
    handler: Count
    consumer: TransactionalConsumer
    consuming: asyncio.Task[None]
    publisher: KafkaPublisher

    async def write(self, value: bytes) -> None:
        await self.publisher.publish([Outgoing(self.topic, None, value)])


@contextlib.asynccontextmanager
async def consumed(kafka: KafkaServer) -> AsyncIterator[Scene]:
    """A topic whose first twenty records are consumed."""
    topic = uuid.uuid4().hex[:8]
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    publisher = KafkaPublisher(kafka.bootstrap, "test")
    await publisher.start()
    handler = Count()
    consumer = TransactionalConsumer(
        KafkaBroker(kafka.bootstrap), topic=topic, group=f"g-{topic}", handler=handler
    )
    scene = Scene(topic, handler, consumer, asyncio.create_task(consumer.run()), publisher)
    try:
        for n in range(20):
            await scene.write(b"%d" % n)
        await until(lambda: handler.seen == 20)
        yield scene
    finally:
        await consumer.stop(drain_s=1)
        await asyncio.gather(scene.consuming, return_exceptions=True)
        await publisher.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.05)


async def test_a_fetcher_that_hangs_is_found(
    kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "LOOK_S", 0.2)
    async with consumed(kafka) as scene:
        ends = LogEnds(kafka.bootstrap, scene.topic)
        watching = asyncio.create_task(
            ConsumerWatch(scene.consumer.standing, ends, limit_s=3).run()
        )
        try:
            await asyncio.sleep(5)
            assert not watching.done()  # at the end, behind the marker of its own commit or not

            async def hang(*_: Any) -> bool:
                with contextlib.suppress(asyncio.CancelledError):  # as aiokafka's own does
                    await asyncio.sleep(3600)
                return False

            monkeypatch.setattr(Fetcher, "_proc_fetch_request", hang)  # aiokafka#1154
            # A fetch that is under way may still bring the first.
            for value in (b"last", b"unheard"):
                await scene.write(value)
                await asyncio.sleep(2)
            with pytest.raises(StoodStill, match="reading of partition 0"):
                await asyncio.wait_for(watching, 60)
            assert scene.handler.seen < 22
            assert not scene.consuming.done()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await ends.stop()


async def test_a_fetcher_that_ended_is_replaced(
    kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with consumed(kafka) as scene:
        read: list[bytes] = []
        reader = LogReader(kafka.bootstrap, scene.topic, start=Start.BEGINNING)
        reading = asyncio.create_task(reader.run(lambda record: read.append(record.value or b"")))
        try:
            await until(lambda: len(read) == 20)
            fetch, broken = Fetcher._proc_fetch_request, set[str]()

            async def fail_once(self: Fetcher, *rest: Any) -> bool:
                name = self._client._client_id  # the reader's is another than the consumer's
                if name not in broken:
                    broken.add(name)
                    raise RuntimeError("nobody expects this")
                return bool(await fetch(self, *rest))

            monkeypatch.setattr(Fetcher, "_proc_fetch_request", fail_once)
            for n in range(20, 40):
                await scene.write(b"%d" % n)
            await until(lambda: scene.handler.seen == 40 and len(read) == 40)
            assert len(broken) == 2
            assert read == [b"%d" % n for n in range(40)]
            assert not reading.done()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def test_a_client_whose_fetcher_misses_its_end_is_ended(
    kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with consumed(kafka) as scene:
        name = uuid.uuid4().hex
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, client_id=name)
        fetching, ending = asyncio.Event(), asyncio.Event()
        fetch = Fetcher._proc_fetch_request

        async def end_slowly(self: Fetcher, *rest: Any) -> bool:
            if self._client._client_id != name:
                return bool(await fetch(self, *rest))
            fetching.set()
            try:
                await asyncio.sleep(3600)
            finally:
                ending.set()
                await asyncio.sleep(0.5)
            return False

        monkeypatch.setattr(Fetcher, "_proc_fetch_request", end_slowly)
        await consumer.start()
        consumer.subscribe([scene.topic])
        async with asyncio.timeout(60):
            await fetching.wait()
            # The partitions go. While its requests end, the fetching task ignores that it shall.
            consumer.unsubscribe()
            await ending.wait()
            await stop_consumer(consumer, limit_s=2)
        fetcher, client = consumer._fetcher, consumer._client
        await until(lambda: all(t.done() for t in (fetcher._fetch_task, *fetcher._pending_tasks)))
        assert not any(connection.connected() for connection in client._conns.values())


async def test_a_consumer_whose_part_in_the_group_ends_joins_anew(kafka: KafkaServer) -> None:
    async with consumed(kafka) as scene:
        membership = scene.consumer._membership
        assert isinstance(membership, KafkaMembership)
        # Nothing of aiokafka says so: it goes on fetching, and never hears of a rebalance again.
        membership._consumer._coordinator._coordination_task.cancel()
        await until(lambda: scene.consumer._membership not in (membership, None))
        await scene.write(b"after")
        await until(lambda: scene.handler.seen == 21)
        assert not scene.consuming.done()


async def test_closing_a_client_without_a_broker_cancels_nobody(
    kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with consumed(kafka) as scene:
        consumer = AIOKafkaConsumer(scene.topic, bootstrap_servers=kafka.bootstrap)
        await consumer.start()
        client, asked = consumer._client, asyncio.Event()

        async def refuse(*_: Any, **__: Any) -> Any:
            asked.set()
            raise NodeNotReadyError

        consumer._fetcher._retry_backoff = 3600
        monkeypatch.setattr(client, "send", refuse)
        async with asyncio.timeout(60):
            await asked.wait()
            await asyncio.sleep(0.1)  # its requests wait to be sent again
            await stop_consumer(consumer)
        assert consumer._fetcher._fetch_task.done()
