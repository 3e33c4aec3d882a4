"""What a worker holds of a partition while it has it: a state in memory, and where it is kept.

A partition can be taken away at any await. What was begun under the old tenure then ends in
silence: nothing of it may be written, and nothing is lost with it, for whoever has the partition
next begins where the kept state ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from typing import Generic, TypeVar

from penstock.kafka.ports import Fenced, LogError
from penstock.records import Outgoing, Partition, Record
from penstock.telemetry import logger
from penstock_drift.worker.snapshots import StateRecords
from penstock_drift.worker.state_store import StateStore

__all__ = ["Lost", "Tenure", "Tenures", "by_partition"]

log = logger(__name__)

S = TypeVar("S")


class Lost(Exception):
    """The partition is somebody else's, or will be; what was done for it does not count."""


class Tenure(Generic[S]):
    """One partition's state while it is held.

    Args:
        partition: The partition.
        state: Fold or judge.
        store: Where it is kept.

    Attributes:
        kept_to: Offset below which nothing has to be read again; None before anything was kept.
        lost: Whether the partition was taken away.
    """

    def __init__(self, partition: Partition, state: S, store: StateStore) -> None:
        self.partition = partition
        self.state = state
        self.kept_to: int | None = None
        self.lost = False
        self._store = store
        self._writing = asyncio.Lock()

    async def keep(
        self, state: StateRecords, kept_to: int, outputs: Sequence[Outgoing] = ()
    ) -> None:
        """Writes the state, and outputs with it.

        Raises:
            Lost: The partition is not held any more; nothing was written.
            LogError: It is not known whether it was written.
        """
        async with self._writing:
            if self.lost:
                raise Lost
            try:
                await self._store.write(state, outputs)
            except Fenced as error:
                self.lost = True
                raise Lost from error
            except LogError:
                # The client may have been stopped under it.
                if self.lost:
                    raise Lost from None
                raise
        self.kept_to = kept_to

    async def end(self) -> None:
        """Gives up the client, once what is being written is written."""
        self.lost = True
        async with self._writing:
            await self._store.close()


class Tenures(Generic[S]):
    """The partitions that a worker holds.

    Args:
        topic: Whose partitions.
        take: Takes a partition over: gives its state and where it is kept.
    """

    def __init__(self, topic: str, take: Callable[[int], Awaitable[tuple[S, StateStore]]]) -> None:
        self._topic = topic
        self._take = take
        self._held: dict[Partition, Tenure[S]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Tenure[S]]:
        return iter(list(self._held.values()))

    def dealt(self, _: Collection[Partition]) -> None:
        """Drops everything: partitions were dealt anew. Records say what this worker has now."""
        held, self._held = self._held, {}
        for tenure in held.values():
            self._drop(tenure)

    async def of(self, partition: Partition) -> Tenure[S]:
        """A partition's tenure; taken over at its first record.

        Raises:
            Lost: It was taken away meanwhile.
            Unavailable: Its state cannot be read now.
        """
        found = self._held.get(partition)
        if found is not None and not found.lost:
            return found
        held = self._held
        state, store = await self._take(partition.number)
        tenure = Tenure(partition, state, store)
        if held is not self._held:
            self._drop(tenure)
            raise Lost
        self._held[partition] = tenure
        return tenure

    def kept_to(self) -> dict[Partition, int]:
        """By partition, the offset below which records may be acknowledged."""
        return {tenure.partition: tenure.kept_to for tenure in self if tenure.kept_to is not None}

    async def end(self) -> None:
        """Gives everything up."""
        self.dealt(())
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _drop(self, tenure: Tenure[S]) -> None:
        tenure.lost = True
        ending = asyncio.create_task(tenure.end())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


def by_partition(records: Sequence[Record]) -> dict[Partition, list[Record]]:
    """Records of several partitions, each in its order."""
    found: dict[Partition, list[Record]] = {}
    for record in records:
        found.setdefault(record.partition, []).append(record)
    return found
