"""The edge to `drift`: a finding that asks for a retraining opens a job, once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from penstock.codec import decode
from penstock.errors import InvalidRequest, Unavailable
from penstock.kafka.delivery import Delivery
from penstock.kafka.dlq import dead_letter
from penstock.records import Outgoing, Record
from penstock.telemetry import logger
from penstock.v1 import drift_pb2
from penstock_retrain import metrics
from penstock_retrain.errors import ActiveJob
from penstock_retrain.jobs.opening import Opening
from penstock_retrain.jobs.policy import ask_of

__all__ = ["DriftDoor"]

log = logger(__name__)

RETRY_S = 2.0


class DriftDoor:
    """Handles records of `drift`; see `penstock.kafka.delivery.Handler`.

    A job's id comes from its finding: a record that is delivered again opens no second one.

    Args:
        opening: Opens jobs.
        dlq_topic: The full name of `dlq`.
        moved: Told when a job was opened.
        clock_us: The time now, microseconds since 1970.
    """

    def __init__(
        self,
        opening: Opening,
        dlq_topic: str,
        moved: Callable[[], None],
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._opening = opening
        self._dlq = dlq_topic
        self._moved = moved
        self._clock_us = clock_us
        self._working: set[asyncio.Task[None]] = set()
        # Whoever waits longest has it next: of two findings of a model the first opens the job.
        self._turn = asyncio.Lock()

    def accept(self, delivery: Delivery) -> None:
        """Opens the job that the finding asks for, if the policy allows it."""
        event = decode(delivery.record, drift_pb2.DriftEvent)
        if ask_of(event) is None:
            delivery.complete(())
            return
        task = asyncio.create_task(self._open(event, delivery))
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        delivery.on_drop(lambda: _cancel(task))

    def failed(self, record: Record, error: Exception) -> Sequence[Outgoing]:
        """The dead letter of a record that is no event."""
        return [
            dead_letter(
                record,
                dlq_topic=self._dlq,
                service="retrain",
                reason="no drift event; no job was opened",
                error=error,
                attempts=1,
            )
        ]

    async def _open(self, event: drift_pb2.DriftEvent, delivery: Delivery) -> None:
        async with self._turn:
            await self._patiently(event)
        delivery.complete(())

    async def _patiently(self, event: drift_pb2.DriftEvent) -> None:
        while True:
            try:
                await self._try(event)
                return
            except Unavailable as error:
                # The position stays: nothing is lost while the database is away.
                log.warning("a finding waits for the database", error=str(error))
                await asyncio.sleep(RETRY_S)
            except InvalidRequest as error:
                log.error("a finding opens no job", finding=event.event_id, reason=str(error))
                return

    async def _try(self, event: drift_pb2.DriftEvent) -> None:
        ask = ask_of(event)
        assert ask is not None
        try:
            job, why_not = await asyncio.to_thread(self._opening.asked, ask, self._clock_us())
        except ActiveJob as error:
            job, why_not = None, error.message  # another process was quicker
        metrics.ASKS.labels("opened" if job is not None else "refused").inc()
        if job is None:
            log.warning("no job is opened", model=ask.model, finding=event.event_id, reason=why_not)
            return
        log.info("a job is opened", job=job.id, model=job.model, incident=job.cause.id)
        self._moved()


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
