"""Asks where a topic ends, on connections of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from penstock.kafka.clients import stop_consumer
from penstock.kafka.ports import LogError

__all__ = ["LogEnds"]

TIMEOUT_S = 10.0


class LogEnds:
    """The ends of a topic's partitions for readers of what is committed.

    Args:
        bootstrap: Kafka's bootstrap servers.
        topic: The topic's full name.
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._consumer: AIOKafkaConsumer | None = None

    async def read(self) -> Mapping[int, int]:
        """The offset after the last record that such a reader may see, by partition.

        Raises:
            LogError: The broker did not answer in time.
        """
        try:
            async with asyncio.timeout(TIMEOUT_S):
                consumer = await self._connected()
                await consumer._client._wait_on_metadata(self._topic)
                numbers = consumer.partitions_for_topic(self._topic) or ()
                ends = await consumer.end_offsets([TopicPartition(self._topic, n) for n in numbers])
        except (KafkaError, TimeoutError) as error:
            await self.stop()
            raise LogError(f"the ends of {self._topic} are not known: {error!r}") from error
        return {tp.partition: offset for tp, offset in ends.items()}

    async def stop(self) -> None:
        """Disconnects; the next question connects anew."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop_consumer(consumer)

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                isolation_level="read_committed",
                enable_auto_commit=False,
            )
            self._consumer = consumer
            await consumer.start()
        return self._consumer
