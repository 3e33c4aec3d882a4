"""A log in memory with the meaning of `penstock.kafka.ports`, for unit tests without a socket.

It keeps what matters to those who build on the real one: transactions are atomic, each one's
marker takes an offset that is never delivered, an aborted transaction leaves a gap, taking a
partition fences its last owner, and every join or leave revokes every partition of the group.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
import zlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from penstock.kafka.ports import Fenced, LogError, Position, RebalanceListener
from penstock.records import Outgoing, Partition, Record

__all__ = ["MemoryBroker", "MemoryMembership", "MemoryOwnership"]


@dataclasses.dataclass
class _Group:
    members: list[MemoryMembership] = dataclasses.field(default_factory=list)
    positions: dict[Partition, Position] = dataclasses.field(default_factory=dict)
    epochs: dict[Partition, int] = dataclasses.field(default_factory=lambda: defaultdict(int))


class MemoryBroker:
    """Topics, groups and a publisher in memory.

    Args:
        partitions: How many partitions every topic has.

    Attributes:
        fail_next_commit: Raised by the next commit of anybody, once; nothing is written.
        ahead_ms: How far the records' clock is ahead.
    """

    def __init__(self, partitions: int = 4) -> None:
        self.partitions = partitions
        self._logs: dict[Partition, list[Record | None]] = defaultdict(list)
        self._groups: dict[tuple[str, str], _Group] = defaultdict(_Group)
        self._arrived = asyncio.Event()
        self.fail_next_commit: LogError | None = None
        self.ahead_ms = 0

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """See `penstock.kafka.ports.Publisher`."""
        for record in records:
            self.append(record)

    def append(self, record: Outgoing) -> Record:
        """Writes one record and returns it as it stands on the log."""
        number = record.partition
        if number is None:
            number = zlib.crc32(record.key or b"") % self.partitions
        partition = Partition(record.topic, number)
        written = Record(
            partition=partition,
            offset=len(self._logs[partition]),
            key=record.key,
            value=record.value,
            headers=record.headers,
            timestamp_ms=time.time_ns() // 1_000_000 + self.ahead_ms,
        )
        self._logs[partition].append(written)
        self._arrived.set()
        return written

    def gap(self, partition: Partition) -> None:
        """Takes an offset that is never delivered, as a marker or an aborted record does."""
        self._logs[partition].append(None)

    def read(self, topic: str) -> list[Record]:
        """Everything committed to a topic, partition by partition."""
        return [
            record
            for partition in sorted(self._logs)
            if partition.topic == topic
            for record in self._logs[partition]
            if record is not None
        ]

    def position(self, group: str, partition: Partition) -> Position:
        """Where a group stands."""
        return self._groups[group, partition.topic].positions.get(partition, Position(0))

    async def join(self, group: str, topic: str, listener: RebalanceListener) -> MemoryMembership:
        """See `penstock.kafka.ports.Broker`."""
        membership = MemoryMembership(self, self._groups[group, topic], topic, listener)
        membership.group.members.append(membership)
        membership.start_rebalance()
        return membership


class MemoryMembership:
    """A place in a group in memory; see `penstock.kafka.ports.Membership`."""

    def __init__(
        self, broker: MemoryBroker, group: _Group, topic: str, listener: RebalanceListener
    ) -> None:
        self.group = group
        self._broker = broker
        self._topic = topic
        self._listener = listener
        self._assigned: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._rebalance: asyncio.Task[None] | None = None

    def start_rebalance(self) -> None:
        """Begins a new generation of the group, after the one that is under way."""
        running = [m._rebalance for m in self.group.members if m._rebalance]
        self._rebalance = asyncio.create_task(self._next_generation(running))

    async def _next_generation(self, after: Sequence[asyncio.Task[None]]) -> None:
        await asyncio.gather(*after, return_exceptions=True)
        members = list(self.group.members)
        for member in members:
            lost, member._assigned = list(member._assigned), {}
            await member._listener.revoked(lost)
        for index, member in enumerate(members):
            numbers = range(index, self._broker.partitions, len(members))
            partitions = [Partition(self._topic, number) for number in numbers]
            member._assigned = dict.fromkeys(partitions, 0)
            member._paused = set(partitions)
            await member._listener.assigned(partitions)

    async def poll(
        self, timeout_s: float, max_records: int, partitions: Collection[Partition]
    ) -> Mapping[Partition, list[Record]]:
        """See the port."""
        fetched = self._fetch(max_records, partitions)
        if not fetched:
            self._broker._arrived.clear()
            try:
                await asyncio.wait_for(self._broker._arrived.wait(), min(timeout_s, 0.01))
            except TimeoutError:
                return {}
            fetched = self._fetch(max_records, partitions)
        await asyncio.sleep(0)
        return fetched

    def _fetch(
        self, max_records: int, partitions: Collection[Partition]
    ) -> dict[Partition, list[Record]]:
        fetched: dict[Partition, list[Record]] = {}
        for partition, position in self._assigned.items():
            if partition not in partitions or partition in self._paused or max_records <= 0:
                continue
            window = self._broker._logs[partition][position : position + max_records]
            records = [record for record in window if record is not None]
            self._assigned[partition] = position + len(window)
            max_records -= len(records)
            if records:
                fetched[partition] = records
        return fetched

    async def take(self, partition: Partition) -> MemoryOwnership:
        """See the port."""
        self.group.epochs[partition] += 1
        position = self.group.positions.get(partition, Position(0))
        return MemoryOwnership(self._broker, self.group, partition, position)

    def read_from(self, partition: Partition, offset: int) -> None:
        """See the port."""
        if partition in self._assigned:
            self._assigned[partition] = offset
            self._paused.discard(partition)

    def read_to(self, partition: Partition) -> int:
        """See the port."""
        return self._assigned.get(partition, 0)

    def unread(self, partition: Partition) -> int:
        """See the port."""
        return len(self._broker._logs[partition]) - self._assigned.get(partition, 0)

    async def leave(self) -> None:
        """See the port."""
        if self._rebalance is not None:
            await asyncio.gather(self._rebalance, return_exceptions=True)
        self.group.members.remove(self)
        if self.group.members:
            self.group.members[0].start_rebalance()


class MemoryOwnership:
    """One partition's right to answer, in memory; see `penstock.kafka.ports.Ownership`."""

    def __init__(
        self, broker: MemoryBroker, group: _Group, partition: Partition, position: Position
    ) -> None:
        self._broker = broker
        self._group = group
        self._partition = partition
        self._position = position
        self._epoch = group.epochs[partition]

    @property
    def position(self) -> Position:
        """See the port."""
        return self._position

    async def commit(self, outputs: Sequence[Outgoing], next_offset: int, metadata: str) -> None:
        """See the port."""
        await asyncio.sleep(0)
        if self._epoch != self._group.epochs[self._partition]:
            raise Fenced(f"{self._partition} belongs to somebody else")
        failure, self._broker.fail_next_commit = self._broker.fail_next_commit, None
        if failure is not None:
            raise failure
        written = {self._broker.append(output).partition for output in outputs}
        for partition in written:
            self._broker.gap(partition)
        self._group.positions[self._partition] = Position(next_offset, metadata)

    async def release(self) -> None:
        """See the port."""
