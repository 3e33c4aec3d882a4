"""Which delivered records of a partition are done, and how far the group may commit.

Work ends in any order; the position may only move over work that ended. Offsets that are never
delivered (transaction markers, records of aborted transactions) count as done: the position moves
over *delivered* offsets, so a gap cannot hold it.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

__all__ = ["Batch", "Tracker"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Results that may be committed together.

    Attributes:
        results: One per record, in the order of offsets.
        next_offset: The position that the group stands at afterwards.
    """

    results: Sequence[T]
    next_offset: int


class Tracker(Generic[T]):
    """Follows one partition from a committed position on. Pure: no clock, no I/O."""

    def __init__(self, position: int | None) -> None:
        self._delivered_to = position if position is not None else 0
        self._pending: deque[int] = deque()
        self._done: dict[int, T] = {}

    @property
    def uncommitted(self) -> int:
        """Records delivered and not yet committed, whether done or not."""
        return len(self._pending)

    def deliver(self, offset: int) -> bool:
        """Notes a delivery; False for a repeat, which must not be handled again."""
        if offset < self._delivered_to:
            return False
        self._pending.append(offset)
        self._delivered_to = offset + 1
        return True

    def complete(self, offset: int, result: T) -> None:
        """Notes that a delivered record is done.

        Raises:
            ValueError: The record is done already: it would get a second result.
        """
        if offset in self._done:
            raise ValueError(f"offset {offset} was completed twice")
        self._done[offset] = result

    def ready(self, limit: int) -> Batch[T] | None:
        """The longest run of done records at the position, at most `limit`; None if empty.

        Returns the same run again until `committed` is called with it.
        """
        results: list[T] = []
        next_offset = 0
        for offset in self._pending:
            if offset not in self._done or len(results) == limit:
                # Everything before the next delivered record is done, gaps included.
                next_offset = offset
                break
            results.append(self._done[offset])
        else:
            next_offset = self._delivered_to
        return Batch(results, next_offset) if results else None

    def committed(self, batch: Batch[T]) -> None:
        """Forgets what a successful commit covers."""
        for _ in batch.results:
            del self._done[self._pending.popleft()]
