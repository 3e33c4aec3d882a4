"""What stands between an at-least-once consumer and its handler: patience, and the dlq.

faust acknowledges an event whose handler raised, and knows neither retries nor dead letters. A
`Guard` gives each error one way out: what is unavailable is tried again, a record that cannot be
handled goes to the dlq, and a log that cannot be written stops the process.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence

from penstock.errors import Code, PenstockError
from penstock.kafka import metrics
from penstock.kafka.dlq import dead_letter
from penstock.kafka.ports import LogError, Publisher
from penstock.records import Record
from penstock.telemetry import logger

__all__ = ["DeadLetters", "Guard", "Handle"]

log = logger(__name__)

ATTEMPTS = 8
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0

# Handles records of one topic; sees some of them again after a fault, so it has to be idempotent.
Handle = Callable[[Sequence[Record]], Awaitable[None]]


@dataclasses.dataclass(frozen=True)
class DeadLetters:
    """Where records go that could not be handled.

    Attributes:
        publisher: Writes them.
        topic: The dlq's full name on the broker.
        service: Who gives them up.
    """

    publisher: Publisher
    topic: str
    service: str

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
        )
        await self.publisher.publish([letter])


class Guard:
    """Runs a handler over batches so that every record ends handled, on the dlq, or in an error.

    Args:
        handle: The handler; idempotent, since a batch that fails is taken again record by record.
        dead_letters: Where the record at fault goes.
        sleep: Waits between attempts, in seconds.
    """

    def __init__(
        self,
        handle: Handle,
        dead_letters: DeadLetters,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._handle = handle
        self._dead_letters = dead_letters
        self._sleep = sleep

    async def handle(self, records: Sequence[Record]) -> None:
        """Returns when each record was handled or lies on the dlq.

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

    async def _patiently(self, records: Sequence[Record]) -> None:
        wait_s = FIRST_WAIT_S
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._handle(records)
                return
            except PenstockError as error:
                if not error.retryable or attempt == ATTEMPTS:
                    raise
                log.warning("trying again", reason=error.message, attempt=attempt, wait_s=wait_s)
            await self._sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)

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


def _reason(error: Exception) -> str:
    # Never the error's own words: a parser quotes what it could not parse, prompts included.
    if isinstance(error, PenstockError):
        where = f" in {error.field}" if error.field else ""
        return f"{Code.Name(error.code)}{where}"
    return "the handler raised"
