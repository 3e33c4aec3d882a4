"""The log on Apache Kafka, through aiokafka. The only module that knows aiokafka's consumers.

aiokafka's transactions carry no group generation, so a stopped owner that wakes can only be told
apart by its transactional id: one id per (group, topic, partition), taken by initialising it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import (
    IllegalOperation,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
)
from aiokafka.partitioner import murmur2
from aiokafka.producer import sender
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import OffsetAndMetadata

import penstock.kafka.tolerance  # noqa: F401 - one odd record must not stop every reader
from penstock.kafka.cancellation import own_cancellation
from penstock.kafka.clients import check_fetching, stop_consumer, stop_producer
from penstock.kafka.ports import Fenced, LogError, Position, RebalanceListener
from penstock.records import Outgoing, Partition, Record
from penstock.topics import MAX_REQUEST_RECORD_BYTES

__all__ = ["KafkaBroker", "KafkaMembership", "KafkaOwnership", "record_of", "send_all"]

SESSION_MS = 10_000
HEARTBEAT_MS = 1_000  # how soon a member hears of a rebalance
REBALANCE_MS = 30_000
DAY_MS = 86_400_000
TRANSACTION_MS = 5_000  # a dead owner's transaction holds read-committed readers this long
TAKE_S = 8.0  # within the session: the client sends no heartbeats while partitions are taken
RELEASE_S = 5.0
COMMIT_S = 15.0
MAX_RECORD_BYTES = MAX_REQUEST_RECORD_BYTES + 1024 * 1024

# aiokafka waits 20 ms whenever the broker still finishes the last transaction of the id, which
# caps an id at 40 transactions a second; the broker needs about 2 ms.
_BACKOFF_S = 0.002
if getattr(sender, "BACKOFF_OVERRIDE", None) == 0.02:
    sender.BACKOFF_OVERRIDE = _BACKOFF_S


def record_of(message: object) -> Record:
    """Aiokafka's record as ours."""
    m = message
    return Record(
        partition=Partition(m.topic, m.partition),  # type: ignore[attr-defined]
        offset=m.offset,  # type: ignore[attr-defined]
        key=m.key,  # type: ignore[attr-defined]
        value=m.value,  # type: ignore[attr-defined]
        # Kafka allows a header without a value; one from outside must stop nobody.
        headers=[(n, v if v is not None else b"") for n, v in m.headers],  # type: ignore[attr-defined]
        timestamp_ms=m.timestamp,  # type: ignore[attr-defined]
        log_append_time=m.timestamp_type == 1,  # type: ignore[attr-defined]
    )


async def send_all(producer: AIOKafkaProducer, records: Sequence[Outgoing]) -> None:
    """Sends records and returns when each is acknowledged; raises aiokafka's own errors."""
    sent = [
        await producer.send(
            record.topic,
            value=record.value,
            key=record.key,
            partition=record.partition,
            headers=list(record.headers),
        )
        for record in records
    ]
    await asyncio.gather(*sent)


async def send_batches(producer: AIOKafkaProducer, records: Sequence[Outgoing]) -> None:
    """The same with the records of each partition in batches: a third of the work for many."""
    batches: dict[TopicPartition, list[BatchBuilder]] = {}
    for record in records:
        tp = TopicPartition(record.topic, await _partition(producer, record))
        open_batches = batches.get(tp)
        if open_batches is None:
            open_batches = batches[tp] = [producer.create_batch()]
        if not _append(open_batches[-1], record):
            open_batches.append(producer.create_batch())
            if not _append(open_batches[-1], record):  # alone it always fits, or never
                raise MessageSizeTooLargeError(f"a record of {record.topic} is too large")
    sent = [
        await producer.send_batch(batch, tp.topic, partition=tp.partition)
        for tp, open_batches in batches.items()
        for batch in open_batches
    ]
    await asyncio.gather(*sent)


def _append(batch: BatchBuilder, record: Outgoing) -> bool:
    appended = batch.append(
        timestamp=None, key=record.key, value=record.value, headers=list(record.headers)
    )
    return appended is not None


async def _partition(producer: AIOKafkaProducer, record: Outgoing) -> int:
    if record.partition is not None:
        return record.partition
    count = len(await producer.partitions_for(record.topic))
    return partition_of(record.key, count)


@functools.lru_cache(maxsize=65_536)
def partition_of(key: bytes | None, count: int) -> int:
    """The partition that Kafka's own clients give a key; the first for none."""
    if key is None:
        return 0
    return int((murmur2(key) & 0x7FFFFFFF) % count)


class KafkaBroker:
    """Makes memberships of consumer groups on a Kafka cluster.

    Args:
        bootstrap: Kafka's bootstrap servers.
        client_id: Names the client in the broker's logs.
        instance_id: Names the member for good: one that comes back within the session gets its
            partitions back, and nobody else's move. No two may run at a time.
    """

    def __init__(
        self, bootstrap: str, client_id: str = "penstock", *, instance_id: str | None = None
    ) -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._instance_id = instance_id

    async def join(self, group: str, topic: str, listener: RebalanceListener) -> KafkaMembership:
        """See `penstock.kafka.ports.Broker`."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            group_id=group,
            group_instance_id=self._instance_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            rebalance_timeout_ms=REBALANCE_MS,
            partition_assignment_strategy=(StickyPartitionAssignor,),
            # A full consumer does not poll; whether it makes progress is watched elsewhere.
            max_poll_interval_ms=DAY_MS,
            fetch_max_wait_ms=500,
            fetch_max_bytes=16 * 1024 * 1024,
        )
        try:
            await consumer.start()
        except KafkaError as error:
            await stop_consumer(consumer)
            raise LogError(f"Kafka at {self._bootstrap} cannot be reached: {error}") from error
        membership = KafkaMembership(consumer, self._bootstrap, self._client_id, group)
        # Subscribing after the start lets the caller hold its membership before the first
        # assignment asks for it.
        consumer.subscribe([topic], listener=_Listener(consumer, listener))
        return membership


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Hands rebalances on, with new partitions paused until they are taken."""

    def __init__(self, consumer: AIOKafkaConsumer, listener: RebalanceListener) -> None:
        self._consumer = consumer
        self._listener = listener

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        await self._listener.revoked([Partition(*p) for p in revoked])

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        self._consumer.pause(*assigned)
        await self._listener.assigned(sorted(Partition(*p) for p in assigned))


class KafkaMembership:
    """A place in a consumer group on Kafka; see `penstock.kafka.ports.Membership`."""

    def __init__(
        self, consumer: AIOKafkaConsumer, bootstrap: str, client_id: str, group: str
    ) -> None:
        self._consumer = consumer
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._group = group

    async def poll(
        self, timeout_s: float, max_records: int, partitions: Collection[Partition]
    ) -> Mapping[Partition, list[Record]]:
        """See the port."""
        wanted = [TopicPartition(*p) for p in partitions]
        if not wanted:
            # Pausing and polling instead would throw away what was fetched.
            await asyncio.sleep(timeout_s)
            return {}
        try:
            fetched = await self._consumer.getmany(
                *wanted, timeout_ms=int(timeout_s * 1000), max_records=max_records
            )
            check_fetching(self._consumer)
        except KafkaError as error:
            raise LogError(f"reading failed: {error!r}") from error
        return {Partition(*tp): [record_of(m) for m in batch] for tp, batch in fetched.items()}

    def read_from(self, partition: Partition, offset: int) -> None:
        """See the port."""
        tp = TopicPartition(*partition)
        if tp in self._consumer.assignment():
            self._consumer.seek(tp, offset)
            self._consumer.resume(tp)

    def read_to(self, partition: Partition) -> int:
        """See the port."""
        state = self._reading(partition)
        return int(state.position) if state is not None else 0

    def unread(self, partition: Partition) -> int:
        """See the port."""
        state = self._reading(partition)
        if state is None or state.lso is None:
            return 0
        return max(0, int(state.lso) - int(state.position))

    def _reading(self, partition: Partition) -> Any:
        """Where the client reads, by aiokafka's own state; None while it has no position."""
        tp = TopicPartition(*partition)
        if tp not in self._consumer.assignment():
            return None
        # `position` is a coroutine that waits for one; markers at the end count as read here.
        state = self._consumer._subscription.subscription.assignment.state_value(tp)
        return state if state is not None and state.has_valid_position else None

    async def take(self, partition: Partition) -> KafkaOwnership:
        """See the port."""
        # The order matters: the id first, which ends what a dead owner left open and fences it;
        # only then the committed position, which nobody else can move any more.
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            transactional_id=f"{self._group}-{partition.topic}-{partition.number}",
            transaction_timeout_ms=TRANSACTION_MS,
            acks="all",
            linger_ms=0,
            max_batch_size=256 * 1024,
            max_request_size=MAX_RECORD_BYTES,
            request_timeout_ms=20_000,
        )
        try:
            async with asyncio.timeout(TAKE_S):
                await producer.start()
                position = await self._position(partition)
        except BaseException as error:
            await stop_producer(producer, RELEASE_S)
            if isinstance(error, Exception):
                raise LogError(f"{partition} could not be taken: {error!r}") from error
            raise
        return KafkaOwnership(producer, self._group, partition, position)

    async def _position(self, partition: Partition) -> Position:
        # `AIOKafkaConsumer.committed` drops the metadata; the coordinator keeps it.
        tp = TopicPartition(*partition)
        committed = await self._consumer._coordinator.fetch_committed_offsets([tp])
        found = committed.get(tp)
        if found is not None and found.offset >= 0:
            return Position(found.offset, found.metadata)
        beginnings = await self._consumer.beginning_offsets([tp])
        return Position(beginnings[tp])

    async def leave(self) -> None:
        """See the port."""
        await stop_consumer(self._consumer, RELEASE_S)


class KafkaOwnership:
    """One partition's transactional id on Kafka; see `penstock.kafka.ports.Ownership`."""

    def __init__(
        self, producer: AIOKafkaProducer, group: str, partition: Partition, position: Position
    ) -> None:
        self._producer = producer
        self._group = group
        self._tp = TopicPartition(*partition)
        self._position = position

    @property
    def position(self) -> Position:
        """See the port."""
        return self._position

    async def commit(self, outputs: Sequence[Outgoing], next_offset: int, metadata: str) -> None:
        """See the port."""
        try:
            with own_cancellation():
                # aiokafka looks for a lost coordinator without a bound of its own.
                async with asyncio.timeout(COMMIT_S):
                    await self._write(outputs, next_offset, metadata)
        except ProducerFenced as error:
            raise Fenced(f"{self._tp} belongs to somebody else") from error
        except (KafkaError, IllegalOperation, AssertionError, TimeoutError) as error:
            # aiokafka asserts on its state machine after a fatal error.
            raise LogError(f"transaction for {self._tp} failed: {error!r}") from error

    async def _write(self, outputs: Sequence[Outgoing], next_offset: int, metadata: str) -> None:
        producer = self._producer
        await producer.begin_transaction()
        # Offsets only after the acknowledgements: while the broker adds the group to the
        # transaction it cannot verify writes of the same transaction, and refuses them
        # (NOT_ENOUGH_REPLICAS to clients this old) until a retry 100 ms later.
        await send_batches(producer, outputs)
        await producer.send_offsets_to_transaction(
            {self._tp: OffsetAndMetadata(next_offset, metadata)}, self._group
        )
        await producer.commit_transaction()

    async def release(self) -> None:
        """See the port."""
        await stop_producer(self._producer, RELEASE_S)
