"""A record on its way through a service: what the handler of it sees, and what it may say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from penstock.kafka.limits import Breach
from penstock.records import Outgoing, Partition, Record

__all__ = ["Delivery", "Halts", "Handler", "Progress"]


class Progress(Protocol):
    """What a delivery tells of its record: the partition's worker."""

    def began(self, offset: int) -> None:
        """The record is at an engine now."""
        ...

    def died(self, offset: int) -> None:
        """An engine died while it had the record."""
        ...

    def ended(self, delivery: Delivery, outputs: Sequence[Outgoing], *, dead: bool) -> None:
        """The record's work has ended; ValueError where it had before."""
        ...


class Handler(Protocol):
    """What a service does with a record."""

    def accept(self, delivery: Delivery) -> None:
        """Begins the work on a record; `delivery.complete` is called once, now or later.

        What it raises is answered with `failed`.
        """
        ...

    def failed(self, record: Record, error: Exception) -> Sequence[Outgoing]:
        """What to write for a record that cannot be handled: its dead letter and its answer."""
        ...


class Halts(Protocol):
    """What people are told of a partition that stands at its limit on dead letters."""

    def opened(self, partition: Partition, breach: Breach, halted_at_ms: int) -> Sequence[Outgoing]:
        """Written in the transaction that notes the halt."""
        ...

    def resolved(self, partition: Partition, halted_at_ms: int) -> Sequence[Outgoing]:
        """Written in the transaction that ends it."""
        ...


class Delivery:
    """A record on its way through a handler.

    Attributes:
        record: The record.
        deaths: How often an owner or an engine died while it had the record.
        dropped: The partition is lost; nothing that comes of the record counts any more.
        size: Of the record's value, in bytes.
    """

    __slots__ = ("_on_drop", "_progress", "deaths", "dropped", "record", "size")

    def __init__(self, record: Record, deaths: int, progress: Progress) -> None:
        self.record = record
        self.deaths = deaths
        self.dropped = False
        self._on_drop: Callable[[], None] | None = None
        self.size = len(record.value or b"")
        self._progress = progress

    @property
    def tenure(self) -> object:
        """The same object for all records of one ownership of the partition, another for the next.

        A handler that keeps something of a partition lets it go when this changes.
        """
        return self._progress

    def on_drop(self, callback: Callable[[], None]) -> None:
        """Has a callback called once if the partition is lost before the record has ended."""
        self._on_drop = callback

    def begin(self) -> None:
        """Says that the record is at an engine now."""
        if not self.dropped:
            self._progress.began(self.record.offset)

    def died(self) -> int:
        """Says that an engine died while it had the record; returns how often by now."""
        self.deaths += 1
        if not self.dropped:
            self._progress.died(self.record.offset)
        return self.deaths

    def complete(self, outputs: Sequence[Outgoing], *, dead: bool = False) -> None:
        """Ends the record with what it writes; does nothing when the partition is lost.

        Args:
            outputs: Written in one transaction with the record's end.
            dead: The record was given up: counts towards the limit on dead letters.

        Raises:
            ValueError: It has ended already.
        """
        if not self.dropped:
            # What it calls holds the work, which holds this: a ring that only the cycle collector
            # would free.
            self._on_drop = None
            self._progress.ended(self, outputs, dead=dead)

    def drop(self) -> None:
        """Ends the work without a result."""
        self.dropped = True
        callback, self._on_drop = self._on_drop, None
        if callback is not None:
            callback()
