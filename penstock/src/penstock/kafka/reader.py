"""Reads a topic without a group: routes, replies, tokens, an index over responses."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from collections.abc import Callable, Sequence
from typing import ClassVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from penstock.kafka.broker import record_of
from penstock.kafka.cancellation import own_cancellation
from penstock.kafka.clients import check_fetching, stop_consumer
from penstock.kafka.ports import LogError
from penstock.records import Record
from penstock.telemetry import logger

__all__ = ["LogReader", "Start"]

log = logger(__name__)

RETRY_S = 1.0


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a reader begins: the beginning, the end, or an instant."""

    BEGINNING: ClassVar[Start]
    END: ClassVar[Start]

    name: str
    instant: dt.datetime | None = None

    @classmethod
    def at(cls, instant: dt.datetime) -> Start:
        """The first record that is not older than an instant."""
        return cls("at", instant)


Start.BEGINNING = Start("beginning")
Start.END = Start("end")


class LogReader:
    """Reads partitions of a topic from a start on, for as long as it runs.

    Args:
        bootstrap: Kafka's bootstrap servers.
        topic: The topic's full name.
        partitions: Which ones; None reads all.
        start: Where to begin. After a fault it goes on where it was.
        read_committed: Whether records of open and aborted transactions are hidden.

    Attributes:
        caught_up: Set once everything that was there at the start has been read.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        *,
        partitions: Sequence[int] | None = None,
        start: Start = Start.END,
        read_committed: bool = True,
    ) -> None:
        self.caught_up = asyncio.Event()
        self._bootstrap = bootstrap
        self._topic = topic
        self._numbers = partitions
        self._start = start
        self._isolation = "read_committed" if read_committed else "read_uncommitted"
        self._positions: dict[TopicPartition, int] = {}

    async def run(self, on_record: Callable[[Record], None]) -> None:
        """Calls `on_record` for each record, in order per partition, until cancelled."""
        while True:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                enable_auto_commit=False,
                isolation_level=self._isolation,
                # A position that retention overtook goes on with the oldest record there is.
                auto_offset_reset="earliest",
            )
            try:
                with own_cancellation():
                    await consumer.start()
                    await self._read(consumer, on_record)
            except (KafkaError, LogError) as error:
                log.warning("reader waits for Kafka", topic=self._topic, error=repr(error))
                await asyncio.sleep(RETRY_S)
            finally:
                await stop_consumer(consumer)

    async def _read(self, consumer: AIOKafkaConsumer, on_record: Callable[[Record], None]) -> None:
        tps = await self._partitions(consumer)
        consumer.assign(tps)
        if not self._positions:
            self._positions = await self._first_positions(consumer, tps)
        for tp, offset in self._positions.items():
            consumer.seek(tp, offset)
        ends = await consumer.end_offsets(tps)
        while True:
            if not self.caught_up.is_set():
                # A position passes markers and aborted records, which are never delivered.
                behind = [tp for tp in tps if await consumer.position(tp) < ends[tp]]
                if not behind:
                    self.caught_up.set()
            fetched = await consumer.getmany(timeout_ms=100 if not self.caught_up.is_set() else 500)
            check_fetching(consumer)
            for tp, messages in fetched.items():
                for message in messages:
                    on_record(record_of(message))
                self._positions[tp] = await consumer.position(tp)

    async def _partitions(self, consumer: AIOKafkaConsumer) -> list[TopicPartition]:
        numbers = self._numbers
        if numbers is None:
            await consumer._client._wait_on_metadata(self._topic)
            numbers = sorted(consumer.partitions_for_topic(self._topic) or ())
        if not numbers:
            raise LogError(
                f"topic {self._topic} is not there; create it with: penstock topics apply"
            )
        return [TopicPartition(self._topic, number) for number in numbers]

    async def _first_positions(
        self, consumer: AIOKafkaConsumer, tps: Sequence[TopicPartition]
    ) -> dict[TopicPartition, int]:
        ends: dict[TopicPartition, int] = await consumer.end_offsets(tps)
        if self._start.name == "end":
            return ends
        if self._start.instant is None:
            return dict(await consumer.beginning_offsets(tps))
        instant_ms = int(self._start.instant.timestamp() * 1000)
        found = await consumer.offsets_for_times(dict.fromkeys(tps, instant_ms))
        return {tp: found[tp].offset if found.get(tp) else ends[tp] for tp in tps}
