"""Tells of jobs: transitions, alerts and costs at least once, progress as far as it goes.

Transitions come from SQL, where each waits until it is on the log; a repeat carries the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Sequence

from penstock.codec import encode
from penstock.errors import Unavailable
from penstock.kafka.halts import alert_record
from penstock.kafka.ports import LogError, Publisher
from penstock.records import Outgoing
from penstock.telemetry import logger
from penstock_retrain import metrics
from penstock_retrain.jobs.rows import Transition
from penstock_retrain.jobs.stages import Progress
from penstock_retrain.jobs.states import WAITING, Job, JobState, Trigger
from penstock_retrain.jobs.store import JobStore
from penstock_retrain.jobs.usage import usage_of_training
from penstock_retrain.jobs.wire import alert_of, progress_update, transition_update, untold_alert

__all__ = ["News"]

log = logger(__name__)
_encode = functools.partial(encode, source="retrain")

POLL_S = 2.0
BATCH = 100
PROGRESS_S = 0.5  # between two that are written of one job
MAX_BYTES = 1_000_000  # of a record's value: brokers take 1,048,588 of all of it, unless told


class News:
    """Writes what happens to jobs to `jobs`, `alerts` and `usage`.

    Args:
        store: What is to be told.
        publisher: Writes it.
        topic: A topic's full name.
        clock_us: The time now, microseconds since 1970.
    """

    def __init__(
        self,
        store: JobStore,
        publisher: Publisher,
        topic: Callable[[str], str],
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._jobs, self._alerts, self._usage = topic("jobs"), topic("alerts"), topic("usage")
        self._clock_us = clock_us
        self._wake = asyncio.Event()
        self._progress: dict[str, tuple[Job, Progress]] = {}
        self._told_at: dict[str, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def wake(self) -> None:
        """Says that there is something to tell."""
        self._wake.set()

    def progressed(self, job: Job, progress: Progress) -> None:
        """Takes a stage's progress; of several that come at once the last is told.

        May be called from any thread; never blocks and never fails.
        """
        self._progress[job.id] = (job, progress)
        loop = self._loop
        if loop is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Tells until cancelled."""
        self._loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            wait_s = POLL_S
            try:
                wait_s = await self.tell()
            except (Unavailable, LogError) as error:
                log.warning("news of jobs wait", error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def tell(self) -> float:
        """Tells what there is; returns seconds until there may be more.

        Raises:
            LogError: Something could not be written; it is told the next time.
            Unavailable: The database cannot be read or written.
        """
        while news := await asyncio.to_thread(self._store.news, BATCH):
            records = [record for job, each in news for record in await self._records(job, each)]
            await self._publisher.publish(records)
            await asyncio.to_thread(self._store.told, [each for _, each in news])
            for _, each in news:
                metrics.TRANSITIONS.labels(str(each.after)).inc()
        return await self._tell_progress()

    async def _tell_progress(self) -> float:
        now = time.monotonic()
        due = [
            job_id
            for job_id in list(self._progress)
            if now - self._told_at.get(job_id, 0.0) >= PROGRESS_S
        ]
        records = []
        for job_id in due:
            job, progress = self._progress.pop(job_id)
            self._told_at[job_id] = now
            try:
                update = progress_update(job, progress, self._clock_us())
            except (ValueError, TypeError) as error:
                # A stage may say what the contract cannot: a metric that is no number.
                log.warning("progress cannot be told", job=job_id, error=repr(error))
                metrics.UNTOLD.labels("progress").inc()
                continue
            records.append(_encode(update, topic=self._jobs, key=job_id))
        if records:
            try:
                await self._publisher.publish(records)
            except LogError as error:
                log.info("progress is not told", error=str(error))
        return PROGRESS_S if self._progress else POLL_S

    async def _records(self, job: Job, transition: Transition) -> list[Outgoing]:
        """What is to be written of a transition.

        A part that cannot be made, or that no broker takes, is left out, and people are told: it
        would end or stop every process that comes to it, and nothing after it would ever be told.

        Raises:
            Unavailable: The database cannot be read.
        """
        records: list[Outgoing] = []
        parts = {"change": self._change, "cost": self._cost, "alert": self._alert}
        for part, make in parts.items():
            try:
                made = await make(job, transition)
                _check_sizes(made)
                records += made
            except Unavailable:
                raise
            except Exception as error:
                log.error(
                    "a part of a job's news is left out",
                    job=job.id,
                    revision=transition.revision,
                    part=part,
                    exc_info=error,
                )
                metrics.UNTOLD.labels(part).inc()
                records.append(alert_record(untold_alert(job, transition, part), self._alerts))
        return records

    async def _change(self, job: Job, transition: Transition) -> list[Outgoing]:
        update = transition_update(job, transition)
        event_id = f"job:{job.id}:{transition.revision}"
        return [_encode(update, topic=self._jobs, key=job.id, event_id=event_id)]

    async def _cost(self, job: Job, transition: Transition) -> list[Outgoing]:
        if transition.before is not JobState.TRAINING or transition.trigger != Trigger.DONE:
            return []
        return [
            _encode(line, topic=self._usage, key=line.tenant, event_id=line.line_id)
            for line in usage_of_training(job, transition.at_us)
        ]

    async def _alert(self, job: Job, transition: Transition) -> list[Outgoing]:
        opened_us = transition.at_us
        if transition.before in WAITING:
            history = await asyncio.to_thread(self._store.history, job.id)
            began = [t.at_us for t in history if t.after in WAITING and t.before not in WAITING]
            opened_us = max((at for at in began if at <= transition.at_us), default=opened_us)
        alert = alert_of(job, transition, opened_us)
        return [] if alert is None else [alert_record(alert, self._alerts)]


def _check_sizes(records: Sequence[Outgoing]) -> None:
    for record in records:
        if len(record.value or b"") > MAX_BYTES:
            raise ValueError(f"a record of {len(record.value or b'')} bytes is too large")
