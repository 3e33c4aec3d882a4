"""Finds the record that another one refers to: a response's request, a feedback's response.

Both lie in partitions of the same number, the one that is referred to was written first, and both
are read in order. So a join reads the other partition just far enough: until the name is found, or
everything is read that was there when it was asked for. What was read and not asked for yet is kept
for a time and within a size, both stated.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from penstock.records import Record

__all__ = ["Cursor", "Found", "Join", "Joined", "Table"]

# Clocks of two writers may differ by as much. Reading on beyond would only fill the table.
SKEW_MS = 60_000
# What an entry costs beside the record's own bytes, roughly.
OVERHEAD_BYTES = 1000


class Cursor(Protocol):
    """Reads one partition of a topic on demand, committed records only; retries for ever."""

    @property
    def position(self) -> int:
        """The offset to be read next."""
        ...

    async def start_at(self, time_ms: int) -> None:
        """Goes to the first record that is not older, or to the end."""
        ...

    async def read(self, wait_s: float) -> Sequence[Record]:
        """What comes next; empty where nothing came in time."""
        ...

    async def end(self) -> int:
        """The offset after the last record that readers may see now."""
        ...

    async def close(self) -> None:
        """Lets go of the connection."""
        ...


class Joined(Enum):
    """How a name was found."""

    # It had been read already.
    AFTER = "after"
    # It was read now: whoever asked came first.
    BEFORE = "before"
    # It is not there: older than the time it is kept, or never written.
    LATE = "late"


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A name's record, or none; and how."""

    record: Record | None
    how: Joined


class Table:
    """Records by name, the newest of them. Pure.

    Args:
        ttl_ms: How long one is kept, by the records' own time.
        max_bytes: How much is kept; the oldest go first.
    """

    def __init__(self, ttl_ms: int, max_bytes: int) -> None:
        self.ttl_ms = ttl_ms
        self._max_bytes = max_bytes
        self._records: OrderedDict[str, Record] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    @property
    def size(self) -> int:
        """What it costs, in bytes, roughly."""
        return self._bytes

    def add(self, name: str, record: Record) -> None:
        """Keeps a record; a second one of the same name does nothing."""
        if name in self._records:
            return
        self._records[name] = record
        self._bytes += _size(record)
        while self._bytes > self._max_bytes and len(self._records) > 1:
            self._drop_oldest()

    def get(self, name: str) -> Record | None:
        """The record of that name."""
        return self._records.get(name)

    def remove(self, name: str) -> None:
        """Lets a record go; one that is not there does nothing."""
        record = self._records.pop(name, None)
        if record is not None:
            self._bytes -= _size(record)

    def forget(self, before_ms: int) -> None:
        """Lets those go that are older."""
        while self._records and next(iter(self._records.values())).timestamp_ms < before_ms:
            self._drop_oldest()

    def clear(self) -> None:
        """Lets all go."""
        self._records.clear()
        self._bytes = 0

    def _drop_oldest(self) -> None:
        _, record = self._records.popitem(last=False)
        self._bytes -= _size(record)


class Join:
    """Looks names up in a partition that is read along. One at a time.

    Args:
        cursor: Reads the partition.
        table: Keeps what was read.
        name_of: What a record is looked up by; None for what nobody asks for.
        once: Whether a name is asked for once only, so that its record can go when it is found.
        timer: Seconds that never go back.
    """

    def __init__(
        self,
        cursor: Cursor,
        table: Table,
        name_of: Callable[[Record], str | None],
        *,
        once: bool,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.table = table
        self._cursor = cursor
        self._name_of = name_of
        self._once = once
        self._timer = timer
        # All that was on the log by then has been read.
        self._complete_s = -math.inf
        self._read_to_ms: int | None = None

    async def find(self, name: str, at_ms: int, arrived_s: float) -> Found:
        """Looks a name up.

        Args:
            name: Of the record.
            at_ms: The time of the record that refers to it. What is older by more than the
                table's time to live is not found.
            arrived_s: When that record had been delivered here, by the join's timer: what it
                refers to was on the log by then.
        """
        await self._stand_before(at_ms)
        self.table.forget(at_ms - self.table.ttl_ms)
        record = self.table.get(name)
        how = Joined.AFTER
        if record is None:
            record = await self._read_until(name, at_ms, arrived_s)
            how = Joined.LATE if record is None else Joined.BEFORE
        if record is not None and self._once:
            self.table.remove(name)
        return Found(record, how)

    async def close(self) -> None:
        """Lets go of the partition."""
        await self._cursor.close()

    async def _stand_before(self, at_ms: int) -> None:
        start_ms = at_ms - self.table.ttl_ms
        if self._read_to_ms is not None and self._read_to_ms >= start_ms:
            return
        # At the start, or after a pause so long that what lies between is of no use.
        await self._cursor.start_at(start_ms)
        self.table.clear()
        self._read_to_ms = start_ms
        self._complete_s = -math.inf

    async def _read_until(self, name: str, at_ms: int, arrived_s: float) -> Record | None:
        # What the client has fetched already costs nothing to look at; to ask where the log ends
        # costs a request, which answers for all who arrived before it.
        asked_s: float = 0.0
        end: int | None = None
        while arrived_s > self._complete_s:
            records = await self._cursor.read(0.0 if end is None else 0.2)
            self._take(records)
            found = self.table.get(name)
            if found is not None:
                return found
            if records and records[-1].timestamp_ms > at_ms + SKEW_MS:
                return None
            if not records and end is None:
                asked_s, end = self._timer(), await self._cursor.end()
            if end is not None and self._cursor.position >= end:
                self._complete_s = asked_s
                # Also where nothing was there: else each later name would look for its beginning.
                self._read_to_ms = max(self._read_to_ms or 0, at_ms)
            # A client that has much at hand must not keep the others from running.
            await asyncio.sleep(0)
        return None

    def _take(self, records: Sequence[Record]) -> None:
        for record in records:
            self._read_to_ms = max(self._read_to_ms or 0, record.timestamp_ms)
            name = self._name_of(record)
            if name is not None:
                self.table.add(name, record)


def _size(record: Record) -> int:
    return len(record.value or b"") + OVERHEAD_BYTES
