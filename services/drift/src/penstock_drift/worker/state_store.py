"""Where one partition's state lies between two owners: records of a compacted topic."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

from penstock.errors import Unavailable
from penstock.kafka.ports import LogError
from penstock.kafka.reader import LogReader, Start
from penstock.kafka.transactions import TransactionalPublisher
from penstock.records import Outgoing, Record
from penstock.telemetry import logger
from penstock_drift.worker.snapshots import StateRecords, laid_over

__all__ = ["KafkaStateStore", "StateStore"]

log = logger(__name__)

READ_S = 120.0
# A thousand keys are tens of megabytes; nobody waits for these records but who takes over.
TRANSACTION_MS = 60_000


class StateStore(Protocol):
    """One partition's state, with one owner at a time."""

    async def take(self) -> dict[bytes, bytes]:
        """Takes the state over, and returns the newest record of each key.

        Whoever had it before can write nothing more.

        Raises:
            Unavailable: It cannot be read now.
        """
        ...

    async def write(self, state: StateRecords, outputs: Sequence[Outgoing] = ()) -> None:
        """Writes state, and what came with it to other topics: all of it or nothing.

        Raises:
            Fenced: Somebody else has taken it over; nothing was written.
            LogError: It is not known whether it was written: the state must be taken anew.
        """
        ...

    async def close(self) -> None:
        """Gives up what the client holds; the state stays."""
        ...


class KafkaStateStore:
    """A partition of a compacted topic, and a transactional id.

    Args:
        bootstrap: Kafka's bootstrap servers.
        topic: The compacted topic's full name.
        partition: Its partition.
        transactional_id: The owner's.
    """

    def __init__(self, bootstrap: str, topic: str, partition: int, transactional_id: str) -> None:
        self._bootstrap = bootstrap
        self._topic, self._partition = topic, partition
        self._publisher = TransactionalPublisher(
            bootstrap, "penstock-drift", transactional_id, transaction_ms=TRANSACTION_MS
        )

    async def take(self) -> dict[bytes, bytes]:
        """See `StateStore`."""
        try:
            # Before the state is read: a former owner's transaction is then over for good.
            await self._publisher.start()
            records: list[tuple[bytes, bytes | None]] = []

            def on_record(record: Record) -> None:
                if record.key is not None:
                    records.append((record.key, record.value))

            async with asyncio.timeout(READ_S):
                await self._read(on_record)
        except (LogError, TimeoutError) as error:
            await self.close()
            raise Unavailable(
                f"the state in {self._topic}/{self._partition} cannot be read: {error!r}"
            ) from error
        state = laid_over(records)
        log.info("state taken over", topic=self._topic, partition=self._partition, keys=len(state))
        return state

    async def write(self, state: StateRecords, outputs: Sequence[Outgoing] = ()) -> None:
        """See `StateStore`."""
        records = [Outgoing(self._topic, key, value, (), self._partition) for key, value in state]
        await self._publisher.publish([*outputs, *records])

    async def close(self) -> None:
        """See `StateStore`."""
        await self._publisher.stop()

    async def _read(self, on_record: Callable[[Record], None]) -> None:
        reader = LogReader(
            self._bootstrap, self._topic, partitions=[self._partition], start=Start.BEGINNING
        )
        reading = asyncio.create_task(reader.run(on_record))
        caught_up = asyncio.create_task(reader.caught_up.wait())
        try:
            await asyncio.wait((reading, caught_up), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        finally:
            for task in (reading, caught_up):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(reading, caught_up, return_exceptions=True)
