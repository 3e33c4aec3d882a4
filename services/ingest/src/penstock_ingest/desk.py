"""The desk behind the gRPC and HTTP doors: admits, waits, cancels, looks up, takes feedback."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
from collections.abc import Callable
from functools import partial
from typing import Literal

from penstock.codec import encode
from penstock.errors import Code, PenstockError, Unavailable
from penstock.identity import id_of_key, new_id
from penstock.kafka.ports import LogError, Publisher
from penstock.rpc.errors import NotFound
from penstock.telemetry import logger
from penstock.topics import topic_of
from penstock.v1 import admitted_pb2, feedback_pb2, request_pb2, response_pb2, route_pb2
from penstock_ingest import metrics
from penstock_ingest.admission.pipeline import Admission, Arrival, tenant_of, timestamp_of
from penstock_ingest.admission.quota import TenantQuota
from penstock_ingest.admission.records import SOURCE, admitted_records
from penstock_ingest.admission.shedding import Shedding
from penstock_ingest.admission.validation import check_feedback, check_request
from penstock_ingest.cancellations import RETURN_S, Cancellations
from penstock_ingest.errors import unwritten
from penstock_ingest.waiting.index import Ended, KnownIds, ResponseIndex
from penstock_ingest.waiting.settling import settled
from penstock_ingest.waiting.waiters import Caller, Waiters

__all__ = ["SOURCE", "Desk", "Door", "answered", "decision_of"]

log = logger(__name__)

# A response that was committed at the deadline still has to travel here.
GRACE_S = 2.0
MAX_WAIT_S = 600.0

Door = Literal["grpc", "http"]


class Desk:
    """Serves callers who wait at this instance.

    Args:
        admission: Decides about requests.
        waiters: Those who wait.
        index: Requests that ended lately.
        known: Ids that were admitted lately.
        quota: What each tenant has queued.
        publisher: Writes to the log.
        topic_prefix: What stands before the dot in topics' names.
        reply_partition: The partition of `replies` and `tokens` that is read here.
        clock: The present, UTC.
        return_s: How long a request with an idempotency key goes on when its callers have left.
        shedding: Which new requests are refused for now.
    """

    def __init__(
        self,
        *,
        admission: Admission,
        waiters: Waiters,
        index: ResponseIndex,
        known: KnownIds,
        quota: TenantQuota,
        publisher: Publisher,
        topic_prefix: str,
        reply_partition: int,
        clock: Callable[[], dt.datetime],
        return_s: float = RETURN_S,
        shedding: Shedding | None = None,
    ) -> None:
        self._cancellations = Cancellations(
            index=index,
            known=known,
            publisher=publisher,
            topic_prefix=topic_prefix,
            source=SOURCE,
            clock=clock,
            return_s=return_s,
        )
        self._admission = admission
        self._waiters = waiters
        self._index = index
        self._known = known
        self._quota = quota
        self._shedding = shedding or Shedding()
        self._publisher = publisher
        self._admitted = topic_of("admitted").full_name(topic_prefix)
        self._feedback = topic_of("feedback").full_name(topic_prefix)
        self._reply_partition = reply_partition
        self._clock = clock
        self._publishing: set[asyncio.Task[None]] = set()
        self.closed: str = "starting"

    def check_open(self) -> None:
        """Refuses while requests cannot be taken.

        Raises:
            Unavailable: With the reason.
        """
        if self.closed:
            raise Unavailable(f"not ready: {self.closed}; try again in a moment")

    async def open(
        self,
        request: request_pb2.GenerateRequest,
        *,
        door: Door,
        stream: bool,
        call_left_s: float | None = None,
    ) -> Caller:
        """Puts a request on the log, unless it is there already, and waits with the caller.

        Args:
            request: As the client sent it.
            door: Where it came in.
            stream: Whether the caller wants text as it is made.
            call_left_s: How long the call itself still has; None for no bound.

        Raises:
            PenstockError: The request is refused, or the log cannot be written.
        """
        try:
            self.check_open()
            ended = self._ended(request)
            if ended is not None:
                metrics.REQUESTS.labels(door, "repeated").inc()
                return Waiters.ended(ended.response)
            admitted = self._admit(
                request, call_left_s, stream=stream, reply_partition=self._reply_partition
            )
            left_s = (admitted.deadline.ToDatetime(dt.UTC) - self._clock()).total_seconds()
            caller = self._waiters.attach(
                admitted.request_id, max(0.0, left_s) + GRACE_S, model=admitted.request.model
            )
            try:
                repeated = self._repeats(admitted)
                self._watch(caller, admitted, repeated=repeated)
                if not repeated:
                    async with asyncio.timeout(max(0.0, left_s)):
                        await self._write(request, admitted)
            except TimeoutError:
                caller.__exit__()
                # The client's writes have no bound of their own while the broker is away.
                raise unwritten() from None
            except BaseException:
                caller.__exit__()
                raise
        except PenstockError as error:
            metrics.REQUESTS.labels(door, decision_of(error)).inc()
            raise
        metrics.REQUESTS.labels(door, "repeated" if repeated else "admitted").inc()
        return caller

    async def submit(self, request: request_pb2.GenerateRequest) -> str:
        """Puts a request on the log, unless it is there already, and returns its id.

        The call's own deadline does not bound the request: nobody waits for the answer.

        Raises:
            PenstockError: The request is refused, or the log cannot be written.
        """
        try:
            self.check_open()
            ended = self._ended(request)
            if ended is not None:
                metrics.REQUESTS.labels("grpc", "repeated").inc()
                return ended.response.request_id
            admitted = self._admit(request, None, stream=False, reply_partition=None)
            repeated = self._repeats(admitted)
            if repeated:
                # Who submits counts on the answer, whether others wait for it or not.
                self._waiters.keep(admitted.request_id)
                self._cancellations.came_back(admitted.request_id)
            else:
                await self._write(request, admitted)
        except PenstockError as error:
            metrics.REQUESTS.labels("grpc", decision_of(error)).inc()
            raise
        metrics.REQUESTS.labels("grpc", "repeated" if repeated else "admitted").inc()
        return admitted.request_id

    async def cancel(self, request_id: str, tenant: str) -> None:
        """Ends a tenant's request that has not ended; see `Cancellations.cancel`."""
        self.check_open()
        await self._cancellations.cancel(request_id, tenant)

    def stop(self) -> None:
        """This instance ends: callers who are cut off now do not give their requests up."""
        self._cancellations.stop()

    async def response(
        self, request_id: str, tenant: str, *, wait_s: float
    ) -> response_pb2.GenerateResponse:
        """The terminal response of a tenant's request, whatever its outcome.

        Waits up to `wait_s` for one that is not there yet.

        Raises:
            NotFound: There is none within the window; another tenant's counts as none.
        """
        self.check_open()
        wait_s = min(max(wait_s, 0.0), MAX_WAIT_S)
        ended = self._index.find(request_id, tenant, self._now_s())
        if ended is not None:
            return ended.response
        if wait_s > 0:
            with self._waiters.attach(request_id, wait_s) as caller:
                try:
                    response = await caller.response()
                except PenstockError as error:
                    if error.code != Code.ERROR_CODE_DEADLINE_EXCEEDED:
                        raise
                else:
                    if response.tenant == tenant:
                        return response
        raise NotFound(
            "no response of that id and tenant is held here; it has not ended, or not lately",
            field="request_id",
        )

    async def feedback(self, feedback: feedback_pb2.Feedback) -> str:
        """Writes feedback next to the request's records and returns its id.

        Raises:
            InvalidRequest: It says nothing, or a value is not allowed.
            NotFound: The tenant has no such response within the window.
            Unavailable: The log cannot be written.
        """
        self.check_open()
        check_feedback(feedback)
        tenant = tenant_of(feedback)
        # Whoever reads Kafka may know of the response a moment before this instance does.
        ended = await settled(lambda: self._index.find(feedback.request_id, tenant, self._now_s()))
        if ended is None:
            raise NotFound(
                "no response of that id and tenant is held here; it has not ended, or not lately",
                field="request_id",
            )
        kept = feedback_pb2.Feedback()
        kept.CopyFrom(feedback)
        kept.tenant = tenant
        kept.ClearField("created_at")  # ours: one that stamps each attempt says the same
        kept.feedback_id = feedback.feedback_id or _feedback_id(kept)
        kept.created_at.CopyFrom(timestamp_of(self._clock()))
        record = encode(
            kept,
            topic=self._feedback,
            key=ended.key if ended.key is not None else kept.request_id,
            source=SOURCE,
            event_id=kept.feedback_id,
        )
        try:
            await self._publisher.publish([record])
        except LogError as error:
            raise unwritten() from error
        return kept.feedback_id

    def models(self) -> list[route_pb2.Route]:
        """The routes, by model."""
        return self._admission.routes.models()

    def _ended(self, request: request_pb2.GenerateRequest) -> Ended | None:
        if not request.idempotency_key:
            return None
        check_request(request)
        tenant = tenant_of(request)
        request_id = id_of_key(tenant, request.idempotency_key)
        return self._index.find(request_id, tenant, self._now_s())

    def _admit(
        self,
        request: request_pb2.GenerateRequest,
        call_left_s: float | None,
        *,
        stream: bool,
        reply_partition: int | None,
    ) -> admitted_pb2.AdmittedRequest:
        now = self._clock()
        cap = None if call_left_s is None else now + dt.timedelta(seconds=call_left_s)
        return self._admission.admit(
            request,
            Arrival(
                fallback_id=new_id(),
                published_at=now,
                now=now,
                reply_partition=reply_partition,
                stream=stream,
                deadline_cap=cap,
            ),
        )

    def _repeats(self, admitted: admitted_pb2.AdmittedRequest) -> bool:
        """Whether a request is on the log already, or about to be.

        If not, its key is claimed and it counts as queued.

        Raises:
            NotFound: It has ended, and its response is held no longer.
            Overloaded: Its tenant has as many requests queued as it may, or it is shed.
        """
        request_id = admitted.request_id
        if not admitted.request.idempotency_key or self._known.claim(
            request_id, object(), self._now_s()
        ):
            try:
                self._shedding.check(admitted, self._clock())
                self._quota.reserve(admitted, self._now_s())
            except PenstockError:
                self._known.release(request_id)
                raise
            return False
        if self._known.has_ended(request_id):
            raise NotFound(
                "the request of that key has ended and its answer is held here no longer; "
                "read it from the responses topic, or use another key",
                field="idempotency_key",
            )
        return True

    def _watch(
        self, caller: Caller, admitted: admitted_pb2.AdmittedRequest, *, repeated: bool
    ) -> None:
        """Has a request cancelled that only its callers want, when the last of them leaves."""
        # What an earlier use of the key left behind must not cancel this one.
        left = self._cancellations.came_back(admitted.request_id)
        opened = left if repeated else admitted
        if opened is not None:
            caller.opened(partial(self._cancellations.abandoned, opened))

    async def _write(
        self, request: request_pb2.GenerateRequest, admitted: admitted_pb2.AdmittedRequest
    ) -> None:
        # A caller that leaves must not leave it open whether the record is written: whoever
        # repeats the key counts on it.
        task = asyncio.create_task(self._publish(request, admitted))
        self._publishing.add(task)
        task.add_done_callback(self._published)
        await asyncio.shield(task)

    def _published(self, task: asyncio.Task[None]) -> None:
        self._publishing.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have left; the failure is logged where it happens

    async def _publish(
        self, request: request_pb2.GenerateRequest, admitted: admitted_pb2.AdmittedRequest
    ) -> None:
        shed = self._shedding.sheds(admitted.request.model, self._clock())
        records = admitted_records(
            admitted,
            () if shed else self._admission.shadows(request, admitted),
            topic=self._admitted,
            key=admitted.request.ordering_key or admitted.request_id,
            time=self._clock(),
        )
        try:
            await self._publisher.publish(records)
        except LogError as error:
            log.warning("a request could not be written", error=str(error))
            refusal = unwritten()
            self._known.release(admitted.request_id)
            self._quota.release(admitted.request_id)
            self._waiters.fail(admitted.request_id, refusal)
            self._cancellations.came_back(admitted.request_id)  # there is nothing to cancel
            raise refusal from error
        # Without waiting for the log to bring it back: a cancellation may follow at once.
        self._known.confirm(
            admitted.request_id,
            admitted.request.tenant,
            admitted.deadline.seconds,
            self._now_s(),
            keyed=bool(admitted.request.idempotency_key),
        )

    def _now_s(self) -> float:
        return self._clock().timestamp()


def answered(response: response_pb2.GenerateResponse) -> response_pb2.GenerateResponse:
    """The response, if it is an answer.

    Raises:
        PenstockError: Why there is no answer.
    """
    if response.outcome == response_pb2.OUTCOME_ANSWERED:
        return response
    if response.HasField("error"):
        raise PenstockError.from_proto(response.error)
    raise PenstockError("the request ended without an answer and without a reason")


def decision_of(error: PenstockError) -> str:
    """A refusal's code as a metric's label."""
    return Code.Name(error.code).removeprefix("ERROR_CODE_").lower()


def _feedback_id(feedback: feedback_pb2.Feedback) -> str:
    # A retry says the same; another opinion on the same response is other feedback.
    content = feedback.SerializeToString(deterministic=True)
    return "fbk-" + hashlib.blake2b(content, digest_size=16).hexdigest()
