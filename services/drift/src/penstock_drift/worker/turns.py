"""Watches a consumer under faust: whether it reads, and whether its handler comes to an end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from penstock.kafka.consumer import Standing
from penstock.kafka.guard import Handle
from penstock.records import Record

__all__ = ["Turns"]


class Turns:
    """A handler that tells how it is getting on; stands in its place.

    Args:
        handle: The handler.
        read_to: By partition, where the client reads.
    """

    def __init__(self, handle: Handle, read_to: Callable[[], Mapping[int, int]]) -> None:
        self._handle = handle
        self._read_to = read_to
        self._busy = False
        self._ended = 0

    async def __call__(self, records: Sequence[Record]) -> None:
        """See `penstock.kafka.guard.Handle`."""
        self._busy = True
        try:
            await self._handle(records)
        finally:
            self._busy = False
            self._ended += 1

    def standing(self) -> list[Standing]:
        """For `penstock.kafka.watch.ConsumerWatch`.

        While the handler is at work nothing more has to be read, but the work has to end.
        """
        return [
            Standing(
                partition=number,
                position=position,
                read_to=position,
                unread=0,
                flowing=not self._busy,
                held=0,
                open_from=position,
                ready=int(self._busy),
                committed=self._ended,
                halted=False,
            )
            for number, position in self._read_to().items()
        ]
