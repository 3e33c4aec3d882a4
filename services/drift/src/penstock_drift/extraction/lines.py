"""Handles the records of a topic one after another per partition, each with time to wait.

The kit's consumer hands records over as they come; a line keeps those of one partition in their
order while the one at its head waits for a join.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from penstock.kafka.delivery import Delivery
from penstock.kafka.dlq import dead_letter
from penstock.records import Outgoing, Record
from penstock.telemetry import logger
from penstock_drift.extraction.source_clock import SourceClock

__all__ = ["Line", "Lines", "Step"]

log = logger(__name__)


class Step(Protocol):
    """What is done with one partition's records, in their order."""

    @property
    def clock(self) -> SourceClock:
        """The partition's event time."""
        ...

    @property
    def held_bytes(self) -> int:
        """What is kept of other records, in bytes."""
        ...

    async def outputs(self, record: Record, arrived_s: float) -> Sequence[Outgoing]:
        """What a record writes; waits as long as it has to.

        Args:
            record: The record.
            arrived_s: When it was delivered, by `time.monotonic`.

        Raises:
            Exception: The record cannot be handled.
        """
        ...

    async def close(self) -> None:
        """The partition is lost, or begins anew."""
        ...


class Line:
    """One partition's records, from the first delivery until the partition is lost.

    Args:
        step: What is done with them.
        failed: What is written for one that cannot be handled.
    """

    def __init__(
        self, step: Step, failed: Callable[[Record, Exception], Sequence[Outgoing]]
    ) -> None:
        self.step = step
        self.next_offset = 0
        self.handled = 0
        self._failed = failed
        self._waiting: deque[tuple[Delivery, float]] = deque()
        self._arrived = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def put(self, delivery: Delivery) -> None:
        """Adds a record at the end."""
        self.next_offset = delivery.record.offset + 1
        self._waiting.append((delivery, time.monotonic()))
        self._arrived.set()

    def close(self) -> asyncio.Task[None]:
        """Ends the work; what waits is not handled."""
        self._task.cancel()
        self._waiting.clear()
        return asyncio.create_task(self._closed())

    async def _closed(self) -> None:
        await asyncio.gather(self._task, return_exceptions=True)
        await self.step.close()

    async def _run(self) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            delivery, arrived_s = self._waiting.popleft()
            if not delivery.dropped:
                await self._handle(delivery, arrived_s)
            # Records that need not wait would otherwise keep the consumer from polling.
            await asyncio.sleep(0)

    async def _handle(self, delivery: Delivery, arrived_s: float) -> None:
        try:
            outputs = await self.step.outputs(delivery.record, arrived_s)
        except Exception as error:  # noqa: BLE001 - becomes the record's dead letter
            log.error(
                "a record cannot be drawn from",
                error=type(error).__name__,
                **delivery.record.where(),
            )
            delivery.complete(self._failed(delivery.record, error), dead=True)
        else:
            delivery.complete(outputs)
        self.handled += 1


class Lines:
    """The lines of one consumer; see `penstock.kafka.delivery.Handler`.

    Args:
        make_step: Makes what is done with a partition's records, by its number.
        dlq: The full name of `dlq`.
        group: The consumer group.
        service: Who gives records up.
    """

    def __init__(
        self, make_step: Callable[[int], Step], *, dlq: str, group: str, service: str = "drift"
    ) -> None:
        self._make_step = make_step
        self._dlq = dlq
        self._group = group
        self._service = service
        self._lines: dict[int, Line] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def accept(self, delivery: Delivery) -> None:
        """Puts a record at the end of its partition's line."""
        number, offset = delivery.record.partition.number, delivery.record.offset
        line = self._lines.get(number)
        if line is not None and offset < line.next_offset:
            # The partition was lost and came back: what was joined meanwhile was not committed.
            self._close(number)
            line = None
        if line is None:
            line = self._lines[number] = Line(self._make_step(number), self.failed)
        # Only an open delivery is told of the loss; the line goes with the first of them.
        delivery.on_drop(lambda: self._lost(number, line))
        line.put(delivery)

    def failed(self, record: Record, error: Exception) -> Sequence[Outgoing]:
        """The dead letter of a record that cannot be handled."""
        letter = dead_letter(
            record,
            dlq_topic=self._dlq,
            service=self._service,
            reason="nothing can be drawn from the record",
            error=error,
            attempts=1,
            group=self._group,
        )
        return [letter]

    def handled(self, number: int) -> int:
        """How many records of a partition were handled; rises while anything comes."""
        line = self._lines.get(number)
        return line.handled if line is not None else 0

    def step(self, number: int) -> Step:
        """What is done with a partition's records, though none may have come yet."""
        line = self._lines.get(number)
        if line is None:
            line = self._lines[number] = Line(self._make_step(number), self.failed)
        return line.step

    @property
    def held_bytes(self) -> int:
        """What the partitions' steps keep of other records."""
        return sum(line.step.held_bytes for line in self._lines.values())

    def keep(self, numbers: frozenset[int]) -> None:
        """Lets go of all partitions but these."""
        for number in [n for n in self._lines if n not in numbers]:
            self._close(number)

    async def close(self) -> None:
        """Lets go of all partitions."""
        self.keep(frozenset())
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _lost(self, number: int, line: Line) -> None:
        if self._lines.get(number) is line:
            self._close(number)

    def _close(self, number: int) -> None:
        closing = self._lines.pop(number).close()
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
