"""What stands between an at-least-once consumer and its handler: patience, and the dlq.

faust acknowledges an event whose handler raised, and knows neither retries nor dead letters. A
`Guard` gives each error one way out: what is unavailable is tried again, a record that cannot be
handled goes to the dlq, and a log that cannot be written stops the process. Where the dead letters
are too many to be single bad records it holds everything until a person lets it go on: nothing of
the batch is acknowledged before that.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from penstock.errors import Code, PenstockError
from penstock.failures import retry_delay_s
from penstock.kafka import metrics
from penstock.kafka.dlq import dead_letter
from penstock.kafka.limits import Breach, DeadLetterLimit
from penstock.kafka.ports import LogError, Publisher
from penstock.records import Partition, Record
from penstock.telemetry import logger

__all__ = ["DeadLetters", "Gate", "Guard", "Handle"]

log = logger(__name__)

ATTEMPTS = 8

# Handles records of one topic; sees some of them again after a fault, so it has to be idempotent.
Handle = Callable[[Sequence[Record]], Awaitable[None]]


class Gate(Protocol):
    """Holds a consumer that met its limit; `penstock.kafka.gate.ResumeGate` is the real one."""

    async def hold(self, partition: Partition, breach: Breach) -> None:
        """Tells people, and returns when one of them lets the consumer go on.

        Raises:
            LogError: They could not be told.
        """
        ...


@dataclasses.dataclass(frozen=True)
class DeadLetters:
    """Where records go that could not be handled.

    Attributes:
        publisher: Writes them.
        topic: The dlq's full name on the broker.
        service: Who gives them up.
        group: The consumer group that reads for the service.
        gate: Where the consumer waits when they were too many.
    """

    publisher: Publisher
    topic: str
    service: str
    group: str
    gate: Gate

    async def bury(self, record: Record, error: Exception, attempts: int) -> None:
        """Returns when the record is on the dlq.

        Raises:
            LogError: It could not be written; the record must not count as handled.
        """
        reason = _reason(error)
        log.error(
            "record goes to the dlq",
            topic=record.partition.topic,
            partition=record.partition.number,
            offset=record.offset,
            reason=reason,
        )
        letter = dead_letter(
            record,
            dlq_topic=self.topic,
            service=self.service,
            reason=reason,
            error=error,
            attempts=attempts,
            group=self.group,
        )
        await self.publisher.publish([letter])


class Guard:
    """Runs a handler over batches so that every record ends handled, on the dlq, or in an error.

    Args:
        handle: The handler; idempotent, since a batch that fails is taken again record by record.
        dead_letters: Where the record at fault goes.
        sleep: Waits between attempts, in seconds.
        clock: Seconds that never go back.
        limit: Makes the limit on a partition's dead letters.
    """

    def __init__(
        self,
        handle: Handle,
        dead_letters: DeadLetters,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        limit: Callable[[], DeadLetterLimit] = DeadLetterLimit,
    ) -> None:
        self._handle = handle
        self._dead_letters = dead_letters
        self._sleep = sleep
        self._clock = clock
        self._limits: dict[Partition, DeadLetterLimit] = defaultdict(limit)

    async def handle(self, records: Sequence[Record]) -> None:
        """Returns when each record was handled or lies on the dlq.

        At the limit on dead letters it waits for a person, however long that takes.

        Raises:
            LogError: The log could not be written; the records must not count as handled.
            PenstockError: What the handler needs is still unavailable after all attempts.
        """
        try:
            await self._patiently(records)
        except LogError:
            raise
        except Exception as error:
            if isinstance(error, PenstockError) and error.retryable:
                raise
            await self._divide(records, error)
        else:
            metrics.HANDLED.labels(records[0].partition.topic, "ok").inc(len(records))
            for record in records:
                await self._ended(record, dead=False)

    async def _patiently(self, records: Sequence[Record]) -> None:
        seed = f"{records[0].partition}-{records[0].offset}"
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._handle(records)
                return
            except PenstockError as error:
                if not error.retryable or attempt == ATTEMPTS:
                    raise
                wait_s = retry_delay_s(attempt, seed)
                log.warning("trying again", reason=error.message, attempt=attempt, wait_s=wait_s)
            await self._sleep(wait_s)

    async def _divide(self, records: Sequence[Record], error: Exception) -> None:
        # One record is at fault; its neighbours are not lost with it.
        if len(records) > 1:
            for record in records:
                await self.handle([record])
            return
        if not isinstance(error, PenstockError):
            log.error("the handler raised", exc_info=error)
        await self._dead_letters.bury(records[0], error, attempts=1)
        metrics.HANDLED.labels(records[0].partition.topic, "failed").inc()
        await self._ended(records[0], dead=True)

    async def _ended(self, record: Record, *, dead: bool) -> None:
        breach = self._limits[record.partition].observe(dead, self._clock())
        if breach is not None:
            await self._dead_letters.gate.hold(record.partition, breach)
            # Whoever let it go on has judged what was: the count begins anew.
            del self._limits[record.partition]


def _reason(error: Exception) -> str:
    # Never the error's own words: a parser quotes what it could not parse, prompts included.
    if isinstance(error, PenstockError):
        where = f" in {error.field}" if error.field else ""
        return f"{Code.Name(error.code)}{where}"
    return "the handler raised"
