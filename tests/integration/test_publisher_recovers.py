"""A producer that the broker refuses for good is replaced, and readiness tells."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from penstock.kafka.ports import LogError
from penstock.kafka.publisher import STALLED_S, KafkaPublisher
from penstock.kafka.reader import LogReader, Start
from penstock.records import Outgoing, Record
from penstock_native.kafka import KafkaServer

pytestmark = pytest.mark.integration

SMALL_BYTES = 2_000


@pytest.fixture
async def topic(kafka: KafkaServer, request: pytest.FixtureRequest) -> str:
    name = f"publisher.{request.node.name}"
    await make_topic(kafka, name)
    return name


async def make_topic(kafka: KafkaServer, name: str) -> None:
    """Makes a topic that refuses large records, after the client has let them through."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    config = {"max.message.bytes": str(SMALL_BYTES)}
    await admin.create_topics([NewTopic(name, 2, 1, topic_configs=config)])
    await admin.close()


@pytest.fixture
async def publisher(kafka: KafkaServer) -> AsyncIterator[KafkaPublisher]:
    publisher = KafkaPublisher(kafka.bootstrap, "test")
    await publisher.start()
    yield publisher
    await publisher.stop()


def record(topic: str, value: bytes, partition: int = 0) -> Outgoing:
    return Outgoing(topic, b"k", value, partition=partition)


async def values(kafka: KafkaServer, topic: str) -> list[bytes | None]:
    reader = LogReader(kafka.bootstrap, topic, start=Start.BEGINNING)
    records: list[Record] = []
    task = asyncio.create_task(reader.run(records.append))
    await asyncio.wait_for(reader.caught_up.wait(), 30)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return sorted(r.value or b"" for r in records)


async def test_a_batch_that_is_refused_for_good_does_not_stop_what_follows(
    kafka: KafkaServer, publisher: KafkaPublisher, topic: str
) -> None:
    await publisher.publish([record(topic, b"first")])
    with pytest.raises(LogError, match="MessageSizeTooLarge"):
        await publisher.publish([record(topic, b"x" * 2 * SMALL_BYTES)])
    # The refused batch took a number: with the same producer this is out of sequence for ever.
    for n in range(3):
        await publisher.publish([record(topic, b"after %d" % n), record(topic, b"other", 1)])
    assert publisher.can_write
    assert await values(kafka, topic) == sorted(
        [b"first", *[b"after %d" % n for n in range(3)], *[b"other"] * 3]
    )


async def test_what_is_in_flight_ends_and_one_producer_follows(
    kafka: KafkaServer, publisher: KafkaPublisher, topic: str
) -> None:
    async def write(n: int) -> bool:
        large = n % 10 == 0
        try:
            await publisher.publish([record(topic, b"%04d" % n + b"x" * SMALL_BYTES * large)])
        except LogError:
            return False
        return True

    await publisher.publish([record(topic, b"first")])
    done = await asyncio.wait_for(asyncio.gather(*[write(n) for n in range(100)]), 60)
    # Those that came back as written are there; of the others nobody was told so.
    written = [b"%04d" % n for n, ok in enumerate(done) if ok]
    assert set(written) <= set(await values(kafka, topic))
    assert not any(done[n] for n in range(0, 100, 10))
    await publisher.publish([record(topic, b"last")])
    assert b"last" in await values(kafka, topic)


async def test_what_the_client_refuses_leaves_the_producer_alone(
    kafka: KafkaServer, publisher: KafkaPublisher, topic: str
) -> None:
    link = publisher._link
    with pytest.raises(LogError, match="MessageSizeTooLarge"):
        await publisher.publish([record(topic, b"x" * 20_000_000)])
    await publisher.publish([record(topic, b"after")])
    assert publisher._link is link


async def test_a_broker_that_hangs_shows_and_writes_go_on_when_it_is_back(tmp_path: Path) -> None:
    now = [0.0]
    with KafkaServer(tmp_path) as kafka:
        await make_topic(kafka, "t")
        publisher = KafkaPublisher(kafka.bootstrap, "test", timer=lambda: now[0])
        await publisher.start()
        await publisher.publish([record("t", b"first")])
        assert kafka.pid is not None
        os.kill(kafka.pid, signal.SIGSTOP)
        writing = asyncio.create_task(publisher.publish([record("t", b"second")]))
        try:
            await asyncio.sleep(0.1)
            assert publisher.can_write
            now[0] = STALLED_S + 1
            assert not publisher.can_write
        finally:
            os.kill(kafka.pid, signal.SIGCONT)
        await asyncio.wait_for(writing, 60)
        assert publisher.can_write
        assert await values(kafka, "t") == [b"first", b"second"]
        await publisher.stop()
        assert not publisher.can_write
        with pytest.raises(LogError, match="not started"):
            await publisher.publish([record("t", b"third")])
