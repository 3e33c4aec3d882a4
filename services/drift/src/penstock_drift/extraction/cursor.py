"""Reads one partition of a topic on demand, without a group."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from penstock.kafka.broker import record_of
from penstock.kafka.cancellation import own_cancellation
from penstock.kafka.clients import check_fetching, stop_consumer
from penstock.kafka.ports import LogError
from penstock.records import Record
from penstock.telemetry import logger

__all__ = ["KafkaCursor"]

log = logger(__name__)

T = TypeVar("T")

RETRY_S = 1.0
STALLED_S = 30.0


class KafkaCursor:
    """See `penstock_drift.extraction.joins.Cursor`.

    Args:
        bootstrap: Kafka's bootstrap servers.
        topic: The topic's full name.
        partition: Which partition.
    """

    def __init__(self, bootstrap: str, topic: str, partition: int) -> None:
        self._bootstrap = bootstrap
        self._tp = TopicPartition(topic, partition)
        self._consumer: AIOKafkaConsumer | None = None
        self._position = 0

    @property
    def position(self) -> int:
        """See the protocol."""
        return self._position

    async def start_at(self, time_ms: int) -> None:
        """See the protocol."""

        async def seek(consumer: AIOKafkaConsumer) -> int:
            found = (await consumer.offsets_for_times({self._tp: max(0, time_ms)})).get(self._tp)
            if found is not None:
                return int(found.offset)
            return int((await consumer.end_offsets([self._tp]))[self._tp])

        self._position = await self._patiently(seek)
        if self._consumer is not None:
            self._consumer.seek(self._tp, self._position)

    async def read(self, wait_s: float) -> Sequence[Record]:
        """See the protocol."""

        async def read(consumer: AIOKafkaConsumer) -> list[Record]:
            fetched = await consumer.getmany(self._tp, timeout_ms=round(wait_s * 1000))
            check_fetching(consumer)
            # Past markers and aborted records too, which are never delivered.
            self._position = int(await consumer.position(self._tp))
            return [record_of(message) for message in fetched.get(self._tp, ())]

        return await self._patiently(read)

    async def end(self) -> int:
        """See the protocol."""

        async def end(consumer: AIOKafkaConsumer) -> int:
            return int((await consumer.end_offsets([self._tp]))[self._tp])

        return await self._patiently(end)

    async def close(self) -> None:
        """See the protocol."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop_consumer(consumer)

    async def _patiently(self, ask: Callable[[AIOKafkaConsumer], Awaitable[T]]) -> T:
        while True:
            try:
                # A client may stand still without an error; a new one then goes on.
                with own_cancellation():
                    async with asyncio.timeout(STALLED_S):
                        return await ask(await self._connected())
            except (KafkaError, LogError, TimeoutError) as error:
                log.warning("a join waits for Kafka", topic=self._tp.topic, error=repr(error))
                await self.close()
                await asyncio.sleep(RETRY_S)

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                enable_auto_commit=False,
                isolation_level="read_committed",
                # A position that retention overtook goes on with the oldest record there is.
                auto_offset_reset="earliest",
            )
            self._consumer = consumer
            await consumer.start()
            consumer.assign([self._tp])
            consumer.seek(self._tp, self._position)
        return self._consumer
