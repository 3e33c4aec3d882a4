"""A client that silently stops fetching is found, by what the broker says of the log's end."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from penstock.kafka import watch as watch_module
from penstock.kafka.broker import KafkaBroker, KafkaMembership
from penstock.kafka.consumer import Delivery, TransactionalConsumer
from penstock.kafka.ends import LogEnds
from penstock.kafka.publisher import KafkaPublisher
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


async def test_a_fetcher_that_ended_is_found(
    kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "LOOK_S", 0.2)
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
    consuming = asyncio.create_task(consumer.run())
    ends = LogEnds(kafka.bootstrap, topic)
    watching = asyncio.create_task(ConsumerWatch(consumer.standing, ends, limit_s=3).run())
    try:
        await publisher.publish([Outgoing(topic, None, b"%d" % n) for n in range(20)])
        async with asyncio.timeout(60):
            while handler.seen < 20:
                await asyncio.sleep(0.05)
        await asyncio.sleep(5)
        assert not watching.done()  # at the end, behind the marker of its own commit or not
        membership = consumer._membership
        assert isinstance(membership, KafkaMembership)
        membership._consumer._fetcher._fetch_task.cancel()  # aiokafka#1154: nothing else ends
        # A fetch that is under way may still bring the first.
        for value in (b"last", b"unheard"):
            await publisher.publish([Outgoing(topic, None, value)])
            await asyncio.sleep(2)
        with pytest.raises(StoodStill, match="reading of partition 0"):
            await asyncio.wait_for(watching, 60)
        assert handler.seen < 22
        assert not consuming.done()
    finally:
        watching.cancel()
        await consumer.stop(drain_s=1)
        await asyncio.gather(consuming, watching, return_exceptions=True)
        await ends.stop()
        await publisher.stop()
