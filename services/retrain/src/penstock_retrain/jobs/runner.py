"""Runs jobs: takes one that nobody has, drives its stages, and gives it back.

A claim is a lease with a number. The runner prolongs it while a stage runs, and cancels the stage
when the job has moved on without it: aborted, rolled back by hand, or taken up by another process
because this one slept. Whatever it then still writes is refused by the number.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from penstock.errors import Unavailable
from penstock.telemetry import logger
from penstock_retrain import metrics
from penstock_retrain.jobs.policy import Policy, PolicyError, backoff_s, parse_policy
from penstock_retrain.jobs.stages import (
    JobMoved,
    NotYet,
    Outcome,
    Progress,
    Stage,
    StageBroken,
    StageResult,
    Withdrawn,
)
from penstock_retrain.jobs.states import (
    ACTIVE,
    STAGES,
    Event,
    Job,
    JobState,
    Trigger,
)
from penstock_retrain.jobs.store import JobStore

__all__ = ["Listener", "Runner"]

log = logger(__name__)

LEASE_S = 15.0
POLL_S = 1.0
CLEAN_RETRY_S = 30.0
STOP_S = 10.0
MAX_REASON = 2000

_TRIGGERS = {
    Outcome.DONE: Trigger.DONE,
    Outcome.REFUSED: Trigger.REFUSED,
    Outcome.PROMOTE: Trigger.PROMOTE,
    Outcome.ROLL_BACK: Trigger.ROLL_BACK,
    Outcome.INCONCLUSIVE: Trigger.INCONCLUSIVE,
}


class Listener(Protocol):
    """Told of what the runner does; never blocks, never fails."""

    def moved(self) -> None:
        """A job has changed: there may be news, and routes."""
        ...

    def progressed(self, job: Job, progress: Progress) -> None:
        """A stage tells how far it is; may be called from any thread."""
        ...


class Runner:
    """Runs the jobs of a store.

    Args:
        store: Where jobs are.
        stages: What each state does. A job whose stage is missing fails when it comes to it.
        owner: Names this process, and no other.
        listener: Told of what happens.
        concurrent: Jobs at a time.
        lease_s: How long a claim lasts that is not prolonged.
        poll_s: How often it looks for jobs.
        clean_after_s: What an ended job leaves is removed so long after its end: engines have let
            go of its candidate by then.
        clock_us: The time now, microseconds since 1970.
    """

    def __init__(
        self,
        store: JobStore,
        stages: Mapping[JobState, Stage],
        owner: str,
        listener: Listener,
        *,
        concurrent: int = 2,
        lease_s: float = LEASE_S,
        poll_s: float = POLL_S,
        clean_after_s: float = 0.0,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._store = store
        self._stages = stages
        self._owner = owner
        self._listener = listener
        self._concurrent = concurrent
        self._lease_s = lease_s
        self._poll_s = poll_s
        self._clean_after_us = round(clean_after_s * 1e6)
        self._clock_us = clock_us
        self._wake = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Says that there may be something to run."""
        self._wake.set()

    async def run(self) -> None:
        """Runs jobs until cancelled, then gives back those that it has."""
        taking: asyncio.Task[None] | None = None
        try:
            while True:
                self._wake.clear()
                taking = asyncio.create_task(self._take())
                await asyncio.shield(taking)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_s):
                        await self._wake.wait()
        finally:
            if taking is not None:
                # A claim that is under way in its thread would be nobody's.
                await asyncio.gather(taking, return_exceptions=True)
            for task in self._running:
                task.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await asyncio.gather(*self._running, return_exceptions=True)

    async def _take(self) -> None:
        free = self._concurrent - len(self._running)
        if free <= 0:
            return
        try:
            jobs = await asyncio.to_thread(
                self._store.claim,
                self._owner,
                self._clock_us(),
                self._lease_us,
                free,
                clean_after_us=self._clean_after_us,
            )
        except Unavailable as error:
            log.warning("jobs wait for the database", error=str(error))
            return
        for job in jobs:
            task = asyncio.create_task(self._drive(job))
            self._running.add(task)
            task.add_done_callback(self._ended)
        metrics.CLAIMED.set(len(self._running))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        metrics.CLAIMED.set(len(self._running))

    @property
    def _lease_us(self) -> int:
        return round(self._lease_s * 1e6)

    async def _drive(self, job: Job) -> None:
        """Runs a claimed job until it waits, ends or is somebody else's; then gives it back."""
        back = True
        try:
            if job.state not in ACTIVE:
                await self._clean(job)
                return
            if job.state is JobState.OPENED:
                job = await self._apply(job, Event(Trigger.STARTED, self._clock_us()))
            while job.state in STAGES and job.retry_at_us <= self._clock_us():
                job = await self._stage(job)
            self._wake.set()  # there is room for another
        except JobMoved as error:
            log.info("a job goes on without this process", job=job.id, reason=str(error))
        except Unavailable as error:
            # The claim runs out, or is given back below: the stage is run again.
            log.warning("a job waits for the database", job=job.id, error=str(error))
        except Exception:
            log.exception("a job could not be driven", job=job.id)
            back = False  # until its claim runs out: it would fail in the same way at once
        finally:
            if back:
                with contextlib.suppress(Unavailable):
                    await asyncio.to_thread(self._store.release, job)

    async def _stage(self, job: Job) -> Job:
        began = time.monotonic()
        event = await self._outcome(job)
        metrics.STAGE_SECONDS.labels(str(job.state)).observe(time.monotonic() - began)
        return await self._apply(job, event)

    async def _outcome(self, job: Job) -> Event:
        """Runs the job's stage under its claim; what came of it.

        Raises:
            JobMoved: The job went on without it.
        """
        stage = self._stages.get(job.state)
        if stage is None:
            return self._event(Trigger.BROKEN, f"this service has no stage {job.state}")
        try:
            policy = parse_policy(job.policy)
        except PolicyError as error:
            # It was one when the job was opened: the service is another since.
            return self._event(Trigger.BROKEN, f"the job's policy is none any more: {error}")
        running = asyncio.create_task(stage.run(job, self._report(job)))
        keeping = asyncio.create_task(self._keep_claim(job))
        try:
            await asyncio.wait((running, keeping), return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                keeping.result()
                raise AssertionError("a claim is kept until it is lost")
            return self._of_result(running.result())
        except (JobMoved, asyncio.CancelledError):
            raise
        except Withdrawn as error:
            return self._event(Trigger.ROLL_BACK, str(error))
        except StageBroken as error:
            return self._event(Trigger.BROKEN, str(error))
        except Exception as error:  # noqa: BLE001 - a stage may fail in any way: it is tried again
            log.warning("a stage failed", job=job.id, stage=str(job.state), error=repr(error))
            return self._failed(job, policy, error)
        finally:
            for task in (running, keeping):
                task.cancel()
            await asyncio.gather(running, keeping, return_exceptions=True)

    def _of_result(self, result: StageResult) -> Event:
        reason = _written(result.reason)
        return Event(_TRIGGERS[result.outcome], self._clock_us(), reason, facts=result.facts)

    def _failed(self, job: Job, policy: Policy, error: Exception) -> Event:
        failed = job.attempts.get(job.state, 0) + 1
        wait_s = backoff_s(policy, failed)
        now_us = self._clock_us()
        reason = _written(f"{type(error).__name__}: {error}")
        return Event(
            Trigger.ATTEMPT_FAILED, now_us, reason, retry_at_us=now_us + round(wait_s * 1e6)
        )

    def _event(self, trigger: Trigger, reason: str) -> Event:
        return Event(trigger, self._clock_us(), _written(reason))

    async def _apply(self, job: Job, event: Event) -> Job:
        try:
            changed = await asyncio.to_thread(self._store.apply, job, event)
        except Withdrawn as error:
            # Somebody took the traffic away between the verdict and now.
            event = self._event(Trigger.ROLL_BACK, str(error))
            changed = await asyncio.to_thread(self._store.apply, job, event)
        except StageBroken as error:
            event = self._event(Trigger.BROKEN, str(error))
            changed = await asyncio.to_thread(self._store.apply, job, event)
        log.info(
            "job",
            job=changed.id,
            model=changed.model,
            state=str(changed.state),
            trigger=str(event.trigger),
            reason=changed.reason,
        )
        self._listener.moved()
        return changed

    async def _keep_claim(self, job: Job) -> None:
        """Prolongs the claim until it is lost.

        Raises:
            JobMoved: The job has moved on, or could not be seen for as long as a claim lasts.
        """
        seen = time.monotonic()
        while True:
            await asyncio.sleep(min(self._poll_s, self._lease_s / 3))
            try:
                found = await asyncio.to_thread(
                    self._store.renew, job, self._clock_us(), self._lease_us
                )
            except Unavailable as error:
                if time.monotonic() - seen > self._lease_s:
                    raise JobMoved(f"the claim could not be prolonged: {error}") from error
                continue
            seen = time.monotonic()
            if found is None or found.state is not job.state:
                where = "taken up by another process" if found is None else str(found.state)
                raise JobMoved(f"job {job.id} is {where}")

    def _report(self, job: Job) -> Callable[[Progress], None]:
        def report(progress: Progress) -> None:
            self._listener.progressed(job, progress)

        return report

    async def _clean(self, job: Job) -> None:
        """Has every stage that an ended job came to remove what nobody needs."""
        history = await asyncio.to_thread(self._store.history, job.id)
        came_to = {transition.after for transition in history}
        keeping = asyncio.create_task(self._keep_claim(job))
        try:
            for state in STAGES:
                stage = self._stages.get(state)
                if stage is not None and state in came_to:
                    await stage.clean(job)
            await asyncio.to_thread(self._store.cleaned, job)
        except Unavailable:
            raise
        except NotYet as error:
            log.warning("what a job left has to stay for now", job=job.id, reason=str(error))
            await self._clean_later(job)
        except Exception:
            log.exception("a job could not be cleaned up yet", job=job.id)
            await self._clean_later(job)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _clean_later(self, job: Job) -> None:
        again_us = self._clock_us() + round(CLEAN_RETRY_S * 1e6)
        await asyncio.to_thread(self._store.cleaned, job, retry_at_us=again_us)


def _written(reason: str) -> str:
    """As databases and the log take it, within a bound: errors may quote whatever they were of."""
    whole = reason.encode("utf-8", "replace").decode("utf-8")
    return whole.replace("\0", "?")[:MAX_REASON]
