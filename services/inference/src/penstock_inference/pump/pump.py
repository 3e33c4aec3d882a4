"""The pump: takes admitted requests to engines and their answers to the log, one end for each.

Nothing here waits: records, results, losses, cancellations, routes and time come in as calls, and
each moves jobs on. A job waits for the turn of its ordering key, is queued for the engines that
can run it, runs, and ends by completing its delivery, once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from opentelemetry import context as trace_context

from penstock.errors import InvalidRequest, PenstockError, Unavailable
from penstock.failures import (
    MAX_DEATHS,
    SUSPECT_DEATHS,
    Poisoned,
    Way,
    is_outage,
    retry_delay_s,
    way_of,
)
from penstock.kafka.consumer import Delivery
from penstock.records import Outgoing, Record
from penstock.routing import RouteTable, prompt_of, rechoose, variant_of, withdrawn
from penstock.telemetry import logger
from penstock.v1 import (
    admitted_pb2,
    common_pb2,
    engine_service_pb2,
    response_pb2,
    route_pb2,
)
from penstock_inference import metrics
from penstock_inference.caching.answer_cache import AnswerCache
from penstock_inference.caching.keys import cache_salt
from penstock_inference.pump.answers import Answers
from penstock_inference.pump.deadlines import Deadlines
from penstock_inference.pump.endings import cancellation, ending_of, expiry, item_of
from penstock_inference.pump.job import Job, Stage
from penstock_inference.pump.jobs import Jobs
from penstock_inference.pump.ordering import Turns
from penstock_inference.pump.sharing import FairQueue
from penstock_inference.scaling.decision import Load
from penstock_inference.streams.pool import EnginePool, Lane, Work
from penstock_inference.streams.wire import failure_of

__all__ = ["Pump"]

log = logger(__name__)

TICK_S = 0.05
# What an engine may take to say what cancelled work used.
CANCEL_S = 0.8
RETRY_S = 0.5  # for a route, or for the end of another suspect


class Pump:
    """Handles `admitted` for the transactional consumer.

    Args:
        pool: The engines.
        answers: Makes the records.
        routes: The routes, which others keep up to date; say so with `routes_changed`.
        on_chunk: Takes token records for waiting callers; best effort.
        cache: Answers that need not be generated.
        cancelled: Whether a request was cancelled before it came: id, tenant, admitted.
        max_tokens: Tokens at engines at a time, as far as this pump sent them.
        now: The clock, in seconds since 1970.
    """

    def __init__(
        self,
        pool: EnginePool,
        answers: Answers,
        routes: RouteTable,
        *,
        on_chunk: Callable[[Outgoing], None],
        cache: AnswerCache | None = None,
        cancelled: Callable[[admitted_pb2.AdmittedRequest], bool] = lambda _: False,
        max_tokens: int = 1_000_000,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._pool = pool
        self._answers = answers
        self._routes = routes
        self._on_chunk = on_chunk
        self._cache = cache or AnswerCache()
        self._cancelled = cancelled
        self._max_tokens = max_tokens
        self._now = now
        self._jobs = Jobs()
        self._turns: Turns[Job] = Turns()
        self._lanes: dict[Lane, FairQueue[Job]] = {}
        self._deadlines = Deadlines()
        self._tokens = 0
        self._suspect: Job | None = None
        self._dispatching = False
        self._ticking = False

    # --- What the consumer calls

    def accept(self, delivery: Delivery) -> None:
        """See `penstock.kafka.consumer.Handler`."""
        item = item_of(delivery.record)
        request_id = item.request.request_id
        if self._jobs.run_elsewhere(request_id, delivery.record):
            log.info("a request that was admitted twice runs once", request_id=request_id)
            delivery.complete(())
            return
        job = Job(delivery, item)
        self._jobs.add(job)
        delivery.on_drop(lambda: self._drop(job))
        turn = job.order is None or self._turns.enter(job.order, job)
        if job.deadline_s <= self._now():
            self._finish(job, failure_of(expiry()))
        elif self._cancelled(job.admitted):
            self._finish(job, failure_of(cancellation()))
        else:
            self._deadlines.push(job)
            self._tick_later()
            if turn:
                self._queue(job)

    def failed(self, record: Record, error: Exception) -> Sequence[Outgoing]:
        """The dead letter and the failed response of a record that cannot be handled."""
        return self._answers.given_up(record, error, self._now())

    # --- What the doors and the routes bring about

    def cancel(self, request_id: str, tenant: str) -> None:
        """Ends a tenant's request, if it is here; one that has ended stays as it is."""
        job = self._jobs.get(request_id)
        if job is not None and job.admitted.request.tenant == tenant:
            self._take_back(job, cancellation())

    def routes_changed(self) -> None:
        """Chooses again for what has no text yet and whose variant was withdrawn."""
        for job in self._jobs:
            if job.variant is None or job.stage not in (Stage.QUEUED, Stage.RUNNING):
                continue
            route = self._routes.get(job.admitted.request.model)
            gone = route is None or withdrawn(route, job.variant.name)
            if gone and not job.pinned and not job.chunked:
                self._forget_work(job)
                self._queue(job)

    # --- What the pool calls

    def on_chunk(self, work: Work, chunk: response_pb2.TokenChunk) -> None:
        """See `Listener`."""
        job = _job_of(work)
        job.observed_tokens = chunk.index + chunk.tokens
        admitted = job.admitted
        if admitted.stream and admitted.HasField("reply_partition") and job.stage is Stage.RUNNING:
            job.chunked = True
            self._on_chunk(self._answers.chunk(chunk, admitted.reply_partition))

    def on_result(self, work: Work, result: engine_service_pb2.WorkResult) -> None:
        """See `Listener`."""
        job = _job_of(work)
        self._left_engine(job)
        if job.stage is Stage.ENDING:
            self._finish(job, ending_of(job, result))
        elif result.HasField("error") and result.error.retryable:
            self._try_again(job, result)
        else:
            if not result.HasField("error"):
                self._cache.put(job.cache_key, result, time.monotonic())
            self._finish(job, result)
        self._dispatch_later()

    def on_lost(self, works: Sequence[Work], *, died: bool) -> None:
        """See `Listener`."""
        jobs = [_job_of(work) for work in works]
        for job in jobs:
            self._left_engine(job)
        # Where a suspect was at work only it is blamed: what ran beside it is innocent.
        blamed = [job for job in jobs if job.delivery.deaths >= SUSPECT_DEATHS] or jobs
        for job in jobs:
            deaths = job.delivery.died() if died and job in blamed else job.delivery.deaths
            if job.stage is Stage.ENDING:
                self._finish(job, ending_of(job, None))
            elif deaths >= MAX_DEATHS:
                self._bury(job, Poisoned(f"{deaths} engines died while they had this request"))
            else:
                metrics.RESTARTED.inc()
                self._queue(job)

    def on_room(self) -> None:
        """See `Listener`."""
        self._dispatch_later()

    # --- What scaling wants to know

    def runnable(self) -> dict[str, Load]:
        """See `Jobs`."""
        return self._jobs.runnable()

    # --- From stage to stage

    def _queue(self, job: Job) -> None:
        try:
            job.variant = self._choose(job)
        except Unavailable as error:
            log.debug("a request waits", request_id=job.admitted.request_id, reason=error.message)
            self._wait(job, RETRY_S)
            return
        except InvalidRequest as error:
            self._finish(job, failure_of(error))
            return
        # Of the variant that answers now: another one's answer has no place under its name.
        job.cache_key = self._cache.key(job.admitted, job.variant)
        if not job.started_s and self._answer_from_cache(job):
            return
        job.stage = Stage.QUEUED
        lane = self._lanes.get(job.lane)
        if lane is None:
            lane = self._lanes[job.lane] = FairQueue(gone=_not_queued)
        request = job.admitted.request
        # Copies, replays and probes share among themselves: they take no client's turn.
        share = f"\0{job.admitted.purpose}" if job.pinned else request.tenant
        lane.push(share, job, cost=job.tokens, priority=request.priority)
        self._dispatch_later()

    def _choose(self, job: Job) -> route_pb2.Variant:
        admitted = job.admitted
        route = self._routes.find(admitted.request.model)
        variant = variant_of(route, admitted.variant)
        if job.pinned:
            if variant is None:
                raise InvalidRequest(
                    f"{route.model} has no variant {admitted.variant!r} any more", field="variant"
                )
        elif variant is None or withdrawn(route, variant.name):
            variant = rechoose(route, admitted)
        admitted.variant = variant.name
        admitted.route_version = max(admitted.route_version, route.version)
        job.item.adapter = variant.adapter
        job.item.system_prompt = prompt_of(route, variant)
        job.item.cache_salt = cache_salt(admitted.request.tenant, variant.adapter)
        return variant

    def _answer_from_cache(self, job: Job) -> bool:
        hit = self._cache.get(job.cache_key, time.monotonic())
        if hit is None:
            return False
        job.started_s = self._now()
        self._finish(job, hit.result, avoided=hit.avoided, similarity=hit.similarity)
        return True

    def _dispatch_later(self) -> None:
        if not self._dispatching:
            self._dispatching = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatching = False
        for lane, queue in list(self._lanes.items()):
            while (job := queue.peek()) is not None and self._tokens < self._max_tokens:
                if job.lane != lane:
                    queue.pop()  # another variant was chosen meanwhile
                    continue
                suspect = job.delivery.deaths >= SUSPECT_DEATHS
                if suspect and self._suspect not in (None, job):
                    queue.pop()
                    self._wait(job, RETRY_S)
                    continue
                job.item.attempt = job.attempt + 1
                work = self._pool.begin(lane, job.item, job, job.tokens)
                if work is None:
                    break
                queue.pop()
                self._began(job, work, suspect=suspect)
            if queue.peek() is None:
                del self._lanes[lane]

    def _began(self, job: Job, work: Work, *, suspect: bool) -> None:
        job.work = work
        job.stage = Stage.RUNNING
        job.attempt += 1
        job.observed_tokens = 0
        job.started_s = self._now()
        job.delivery.begin()
        self._tokens += job.tokens
        metrics.IN_FLIGHT.inc()
        if suspect:
            self._suspect = job

    def _left_engine(self, job: Job) -> None:
        if job.work is None:
            return
        job.work = None
        self._tokens -= job.tokens
        metrics.IN_FLIGHT.dec()
        if self._suspect is job:
            self._suspect = None

    def _forget_work(self, job: Job) -> None:
        if job.work is not None:
            job.work.forget()
            self._left_engine(job)

    def _try_again(self, job: Job, result: engine_service_pb2.WorkResult) -> None:
        """What an engine could not do now: again later, or its error is the end."""
        error = PenstockError.from_proto(result.error)
        request_id = job.admitted.request_id
        way = way_of(error, attempt=job.failures + 1)
        if way is Way.WAIT:
            job.refusals += 1
            delay_s = retry_delay_s(job.refusals, request_id)
        elif way is Way.RETRY:
            job.failures += 1
            delay_s = retry_delay_s(job.failures, request_id)
        elif way is Way.BURY:
            self._bury(job, error)
            return
        else:
            self._finish(job, result)
            return
        delay_s = max(delay_s, error.retry_after_s or 0)
        if self._now() + delay_s >= job.deadline_s:
            # It would only expire: whoever waits hears the reason, and when to come again.
            self._finish(job, result)
            return
        log.warning(
            "an engine gave up", request_id=request_id, attempt=job.attempt, reason=error.message
        )
        self._wait(job, delay_s)

    def _wait(self, job: Job, delay_s: float) -> None:
        job.stage = Stage.WAITING
        asyncio.get_running_loop().call_later(delay_s, self._again, job)

    def _again(self, job: Job) -> None:
        if job.stage is Stage.WAITING:
            self._queue(job)

    def _take_back(self, job: Job, verdict: PenstockError) -> None:
        """Ends a job before its answer; tokens that were made are still told and billed."""
        if job.stage is Stage.RUNNING and job.work is not None:
            job.stage = Stage.ENDING
            job.verdict = verdict
            job.work.cancel()
            asyncio.get_running_loop().call_later(CANCEL_S, self._give_up_waiting, job)
        elif job.stage in (Stage.WAITING, Stage.QUEUED):
            self._finish(job, failure_of(verdict))

    def _give_up_waiting(self, job: Job) -> None:
        if job.stage is Stage.ENDING:
            self._forget_work(job)
            self._finish(job, ending_of(job, None))

    def _bury(self, job: Job, error: Exception) -> None:
        outputs = self._answers.given_up(
            job.delivery.record, error, self._now(), attempts=max(1, job.attempt)
        )
        log.error("a request is given up", request_id=job.admitted.request_id, error=str(error))
        # What is away for everybody says nothing of the records: no partition halts for it.
        job.delivery.complete(outputs, dead=not is_outage(error))
        self._close(job)

    def _finish(
        self,
        job: Job,
        result: engine_service_pb2.WorkResult,
        *,
        avoided: common_pb2.Usage | None = None,
        similarity: float | None = None,
    ) -> None:
        token = trace_context.attach(job.context) if job.context is not None else None
        try:
            outputs = self._answers.records(
                job.admitted,
                result,
                key=job.delivery.record.key,
                partition=job.delivery.record.partition.number,
                attempt=max(1, job.attempt),
                started_s=job.started_s or self._now(),
                now_s=self._now(),
                avoided=avoided,
                similarity=similarity,
                adapter=job.item.adapter if job.started_s and avoided is None else None,
            )
        finally:
            if token is not None:
                trace_context.detach(token)
        # First, so that who gets the turn of its key now cannot end before it.
        job.delivery.complete(outputs)
        self._close(job)

    def _drop(self, job: Job) -> None:
        """The partition is lost: its next owner runs the request again."""
        self._forget_work(job)
        self._close(job, ended=False)

    def _close(self, job: Job, *, ended: bool = True) -> None:
        job.stage = Stage.DONE
        self._jobs.close(job, ended=ended)
        if job.order is not None:
            following = self._turns.leave(job.order, job)
            # One that is to be dropped as well begins nothing.
            if following is not None and not following.delivery.dropped:
                self._queue(following)

    # --- Time

    def _tick_later(self) -> None:
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        for job in self._deadlines.passed(self._now()):
            self._take_back(job, expiry())
        self._deadlines.trim(len(self._jobs))
        if self._jobs:
            self._tick_later()


def _not_queued(job: Job) -> bool:
    return job.stage is not Stage.QUEUED


def _job_of(work: Work) -> Job:
    assert isinstance(work.owner, Job)
    return work.owner
