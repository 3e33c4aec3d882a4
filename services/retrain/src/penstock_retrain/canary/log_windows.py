"""Reads stretches of topics, from given offsets to given offsets: what a canary counts once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from penstock.kafka.broker import record_of
from penstock.kafka.clients import check_fetching, stop_consumer
from penstock.kafka.ports import LogError
from penstock.records import Record
from penstock_retrain.canary.observing import Offsets

__all__ = ["LogWindows"]

TIMEOUT_S = 30.0
WAIT_MS = 500

T = TypeVar("T")


class LogWindows:
    """Stretches of the topics of one Kafka, without a group; only what is committed.

    Args:
        bootstrap: Kafka's bootstrap servers.
    """

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._consumers: dict[str, AIOKafkaConsumer] = {}

    async def close(self) -> None:
        """Disconnects."""
        while self._consumers:
            await stop_consumer(self._consumers.popitem()[1])

    async def ends(self, topic: str) -> dict[int, int]:
        """Where the topic ends now, for readers of what is committed.

        Raises:
            LogError: Kafka did not say in time; as of all that follow.
        """
        return await self._ask(topic, self._ends)

    async def at(self, topic: str, instant_ms: int) -> dict[int, int]:
        """The first records that are not older than an instant, milliseconds since 1970."""

        async def ask(consumer: AIOKafkaConsumer, topic: str) -> dict[int, int]:
            ends = await self._ends(consumer, topic)
            asked = {TopicPartition(topic, number): instant_ms for number in ends}
            found = await consumer.offsets_for_times(asked)
            return {
                tp.partition: each.offset if each else ends[tp.partition]
                for tp, each in found.items()
            }

        return await self._ask(topic, ask)

    async def read(
        self, topic: str, start: Offsets, end: Offsets, limit: int
    ) -> tuple[list[Record], dict[int, int]]:
        """Records from `start` until before `end`, `limit` at most.

        What retention has removed meanwhile is passed over.

        Returns:
            The records, in order by partition, and where to go on.
        """

        async def ask(
            consumer: AIOKafkaConsumer, topic: str
        ) -> tuple[list[Record], dict[int, int]]:
            return await self._read(consumer, topic, start, end, limit)

        return await self._ask(topic, ask)

    async def _ask(self, topic: str, call: Callable[[AIOKafkaConsumer, str], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await call(await self._connected(topic), topic)
        except (KafkaError, LogError, TimeoutError, OSError) as error:
            # Whatever state it is in, another one is connected for the next question.
            consumer = self._consumers.pop(topic, None)
            if consumer is not None:
                await stop_consumer(consumer)
            raise LogError(f"{topic} cannot be read: {error!r}") from error

    async def _connected(self, topic: str) -> AIOKafkaConsumer:
        consumer = self._consumers.get(topic)
        if consumer is None:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
            )
            self._consumers[topic] = consumer
            await consumer.start()
        return consumer

    @staticmethod
    async def _ends(consumer: AIOKafkaConsumer, topic: str) -> dict[int, int]:
        await consumer._client._wait_on_metadata(topic)
        numbers = consumer.partitions_for_topic(topic) or ()
        found = await consumer.end_offsets([TopicPartition(topic, n) for n in numbers])
        return {tp.partition: offset for tp, offset in found.items()}

    @staticmethod
    async def _read(
        consumer: AIOKafkaConsumer, topic: str, start: Offsets, end: Offsets, limit: int
    ) -> tuple[list[Record], dict[int, int]]:
        positions = dict(start)
        left = {
            TopicPartition(topic, number)
            for number, offset in end.items()
            if start.get(number, 0) < offset
        }
        if not left:
            return [], positions
        consumer.assign(sorted(left))
        for tp in left:
            consumer.seek(tp, start.get(tp.partition, 0))
        records: list[Record] = []
        while left and len(records) < limit:
            fetched = await consumer.getmany(
                *left, timeout_ms=WAIT_MS, max_records=limit - len(records)
            )
            check_fetching(consumer)
            for tp, messages in fetched.items():
                records += [record_of(m) for m in messages if m.offset < end[tp.partition]]
            for tp in list(left):
                # A position passes markers and aborted records, which are never delivered.
                position = await consumer.position(tp)
                positions[tp.partition] = min(position, end[tp.partition])
                if position >= end[tp.partition]:
                    left.discard(tp)
        return records, positions
