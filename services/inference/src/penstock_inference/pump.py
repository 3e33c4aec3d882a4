"""The pump's handling of one admitted request: order, bound, deadline, engine, answer."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from opentelemetry import trace

from penstock.codec import decode
from penstock.errors import Code, PenstockError, Unavailable
from penstock.kafka.dlq import dead_letter
from penstock.records import Outgoing, Record
from penstock.telemetry import logger, tracer
from penstock.topics import topic_of
from penstock.v1 import admitted_pb2, engine_service_pb2, response_pb2
from penstock_inference import metrics
from penstock_inference.answers import Answers, outcome_of
from penstock_inference.errors import EngineLost
from penstock_inference.wire import failure_of

__all__ = ["Pump", "Workers"]

log = logger(__name__)


class Workers(Protocol):
    """Where work is done; `EnginePool` is the real one."""

    async def run(
        self,
        request: admitted_pb2.AdmittedRequest,
        attempt: int,
        on_chunk: Callable[[response_pb2.TokenChunk], None],
    ) -> engine_service_pb2.WorkResult:
        """See `EnginePool.run`."""
        ...


class Pump:
    """Handles `admitted` for the transactional consumer.

    Args:
        workers: The engines.
        answers: Makes the records.
        on_chunk: Takes token records for waiting callers; best effort.
        max_in_flight: Requests at engines at a time.
        max_attempts: Times that work is begun after an engine was lost.
        now: The clock, UTC.
    """

    def __init__(
        self,
        workers: Workers,
        answers: Answers,
        *,
        on_chunk: Callable[[Outgoing], None],
        max_in_flight: int,
        max_attempts: int,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._workers = workers
        self._answers = answers
        self._on_chunk = on_chunk
        self._slots = asyncio.Semaphore(max_in_flight)
        self._order = _KeyOrder()
        self._max_attempts = max_attempts
        self._now = now

    async def handle(self, record: Record) -> Sequence[Outgoing]:
        """See `penstock.kafka.consumer.Handler`."""
        admitted = decode(record, admitted_pb2.AdmittedRequest)
        # Names and attributes: OpenTelemetry's conventions for generative AI.
        with tracer(__name__).start_as_current_span(
            f"chat {admitted.request.model}", kind=trace.SpanKind.CONSUMER
        ) as span:
            span.set_attribute("gen_ai.request.model", admitted.request.model)
            span.set_attribute("gen_ai.operation.name", "chat")
            span.set_attribute("penstock.request_id", admitted.request_id)
            return await self._answer(admitted, record.key)

    async def _answer(
        self, admitted: admitted_pb2.AdmittedRequest, key: bytes | None
    ) -> Sequence[Outgoing]:
        started = self._now()
        attempt = 1
        left_s = (admitted.deadline.ToDatetime(dt.UTC) - started).total_seconds()
        try:
            if left_s <= 0:
                # A timeout of zero still lets work begin that does not wait at once.
                raise TimeoutError
            async with asyncio.timeout(left_s):
                async with self._order.turn(admitted.request.ordering_key), self._slots:
                    started = self._now()
                    attempt, result = await self._generate(admitted)
        except TimeoutError:
            result = failure_of(
                PenstockError(
                    "the deadline passed before the answer was complete; allow more time "
                    "or ask for fewer tokens",
                    code=Code.ERROR_CODE_DEADLINE_EXCEEDED,
                    field="deadline",
                )
            )
        return self._finish(admitted, result, key, attempt, started)

    def failed(self, record: Record, error: Exception) -> Sequence[Outgoing]:
        """The dead letter and the failed response of a record that cannot be handled."""
        reason = PenstockError(
            "the request could not be handled; it is kept on the dead letter topic",
            code=Code.ERROR_CODE_INTERNAL,
        )
        letter = dead_letter(
            record,
            dlq_topic=topic_of("dlq").full_name(self._answers.topic_prefix),
            service="inference",
            reason="admitted record could not be handled",
            error=error,
            attempts=1,
        )
        try:
            admitted = decode(record, admitted_pb2.AdmittedRequest)
        except PenstockError:
            request_id = record.header("ce_id") or f"{record.partition.number}-{record.offset}"
            return [letter, self._answers.undecodable(request_id, record.key, reason)]
        finished = self._finish(admitted, failure_of(reason), record.key, 1, self._now())
        return [letter, *finished]

    async def _generate(
        self, admitted: admitted_pb2.AdmittedRequest
    ) -> tuple[int, engine_service_pb2.WorkResult]:
        with metrics.IN_FLIGHT.track_inprogress():
            for attempt in range(1, self._max_attempts + 1):
                try:
                    on_chunk = self._relay(admitted)
                    return attempt, await self._workers.run(admitted, attempt, on_chunk)
                except EngineLost as error:
                    metrics.RESTARTED.inc()
                    log.warning(
                        "work begins again",
                        request_id=admitted.request_id,
                        attempt=attempt,
                        reason=str(error),
                    )
        lost = Unavailable(f"{self._max_attempts} engines were lost while they had this request")
        return self._max_attempts, failure_of(lost)

    def _relay(
        self, admitted: admitted_pb2.AdmittedRequest
    ) -> Callable[[response_pb2.TokenChunk], None]:
        if not (admitted.stream and admitted.HasField("reply_partition")):
            return lambda _: None
        partition = admitted.reply_partition
        return lambda chunk: self._on_chunk(self._answers.chunk(chunk, partition))

    def _finish(
        self,
        admitted: admitted_pb2.AdmittedRequest,
        result: engine_service_pb2.WorkResult,
        key: bytes | None,
        attempt: int,
        started: dt.datetime,
    ) -> Sequence[Outgoing]:
        now = self._now()
        outcome = outcome_of(result)
        metrics.RESPONSES.labels(response_pb2.Outcome.Name(outcome)).inc()
        if outcome == response_pb2.OUTCOME_ANSWERED:
            published = admitted.published_at.ToDatetime(dt.UTC)
            metrics.LATENCY_SECONDS.observe((now - published).total_seconds())
        return self._answers.records(
            admitted, result, key=key, attempt=attempt, started=started, now=now
        )


class _KeyOrder:
    """Turns per ordering key, in the order of asking; no key, no waiting."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._wanted: dict[str, int] = {}

    @contextlib.asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        if not key:
            yield
            return
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._wanted[key] = self._wanted.get(key, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._wanted[key] -= 1
            if not self._wanted[key]:
                del self._locks[key], self._wanted[key]
