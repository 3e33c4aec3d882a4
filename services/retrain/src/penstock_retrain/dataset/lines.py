"""The partitions of one kind, as they come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial

from penstock.kafka.delivery import Delivery
from penstock.records import Outgoing, Record
from penstock_retrain.dataset.partition_files import PartitionFiles

__all__ = ["Lines"]


class Lines:
    """Hands records to their partitions; see `penstock.kafka.delivery.Handler`.

    Args:
        make: Makes what is done with a partition's records, by its number and what ends before.
        failed: Makes the dead letter of a record that cannot be read.
    """

    def __init__(
        self,
        make: Callable[[int, Awaitable[object] | None], PartitionFiles],
        failed: Callable[[Record, Exception], Sequence[Outgoing]],
    ) -> None:
        self._make = make
        self._failed = failed
        self._lines: dict[int, tuple[object, PartitionFiles]] = {}
        self._closing: dict[int, asyncio.Task[None]] = {}

    def accept(self, delivery: Delivery) -> None:
        """Puts a record at the end of its partition's line."""
        number = delivery.record.partition.number
        tenure, line = self._lines.get(number, (None, None))
        if line is None or tenure is not delivery.tenure:
            # The partition was lost and came back: somebody else may have written files since.
            self._close(number)
            line = self._make(number, self._closing.get(number))
            self._lines[number] = delivery.tenure, line
        # Only open deliveries are told of the loss; the line goes with the first of them.
        delivery.on_drop(partial(self._lost, number, line))
        line.put(delivery)

    def failed(self, record: Record, error: Exception) -> Sequence[Outgoing]:
        """See `Handler`."""
        return self._failed(record, error)

    def flush(self, numbers: Collection[int] | None = None) -> None:
        """Has what is there of some partitions, or of all, become files now."""
        for number, (_, line) in self._lines.items():
            if numbers is None or number in numbers:
                line.flush()

    async def close(self) -> None:
        """Lets go of all partitions."""
        for number in list(self._lines):
            self._close(number)
        await asyncio.gather(*self._closing.values())

    def _lost(self, number: int, line: PartitionFiles) -> None:
        if number in self._lines and self._lines[number][1] is line:
            self._close(number)

    def _close(self, number: int) -> None:
        found = self._lines.pop(number, None)
        if found is None:
            return
        before = self._closing.get(number)

        async def closed() -> None:
            if before is not None:
                await before
            await found[1].close()

        self._closing[number] = asyncio.create_task(closed())
