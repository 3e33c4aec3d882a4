"""What penstock needs of a log, as small protocols.

`penstock.kafka.broker.KafkaBroker` is the real one; `penstock.kafka.memory.MemoryBroker` keeps
everything in memory with the same meaning (transactions, markers that take offsets, fencing,
eager rebalances), so that unit tests need no socket.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from penstock.records import Outgoing, Partition, Record

__all__ = [
    "Broker",
    "Fenced",
    "LogError",
    "Membership",
    "Ownership",
    "Position",
    "Publisher",
    "RebalanceListener",
]


class LogError(Exception):
    """The log could not do it; what was in the call did not happen, or will be undone."""


class Fenced(LogError):
    """Somebody else took the partition over: drop its work, nothing of it may be written."""


@dataclasses.dataclass(frozen=True, slots=True)
class Position:
    """Where a group stands in a partition.

    Attributes:
        offset: The next offset to read; the log's beginning where nothing was committed yet.
        metadata: What the last owner left beside it.
    """

    offset: int
    metadata: str = ""


class Publisher(Protocol):
    """Writes records outside any transaction."""

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Returns when all replicas in sync hold the records.

        Raises:
            LogError: Some were not acknowledged; they may still arrive.
        """
        ...


class RebalanceListener(Protocol):
    """Told when partitions come and go. Both calls finish before the next generation begins."""

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        """The partitions are no longer this member's."""
        ...

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        """The partitions are this member's; nothing is delivered before `read_from`."""
        ...


class Ownership(Protocol):
    """The right to answer for one input partition, held through its transactional id."""

    @property
    def position(self) -> Position:
        """Where the last owner's last commit left the partition."""
        ...

    async def commit(self, outputs: Sequence[Outgoing], next_offset: int, metadata: str) -> None:
        """Writes outputs and position in one transaction; returns when it is committed.

        Raises:
            Fenced: Somebody else took the partition over; nothing was written.
            LogError: It is not known whether it was written; ownership must be taken anew.
        """
        ...

    async def release(self) -> None:
        """Gives up what the client holds; the position stays."""
        ...


class Membership(Protocol):
    """A place in a consumer group."""

    async def poll(
        self, timeout_s: float, max_records: int, partitions: Collection[Partition]
    ) -> Mapping[Partition, Sequence[Record]]:
        """What was delivered of some of the partitions, at most `max_records`.

        Empty after `timeout_s` without any. What was fetched of the others is kept for later.

        Raises:
            LogError: The group cannot be read.
        """
        ...

    async def take(self, partition: Partition) -> Ownership:
        """Takes a partition over: fences the last owner, only then reads the position.

        Nothing is delivered before `read_from`.

        Raises:
            LogError: The broker did not answer in time.
        """
        ...

    def read_from(self, partition: Partition, offset: int) -> None:
        """Delivers a partition from an offset on."""
        ...

    def read_to(self, partition: Partition) -> int:
        """The next offset that the client will look at; markers before it count as read."""
        ...

    def unread(self, partition: Partition) -> int:
        """Offsets that readers may see and were not delivered yet, as far as known."""
        ...

    async def leave(self) -> None:
        """Leaves the group at once."""
        ...


class Broker(Protocol):
    """Where consumers come from."""

    async def join(self, group: str, topic: str, listener: RebalanceListener) -> Membership:
        """Joins a group that reads one topic, committed records only.

        Raises:
            LogError: The broker could not be reached.
        """
        ...
