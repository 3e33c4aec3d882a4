"""Ends requests before their time: on a tenant's word, or when the last who waits has left."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from collections.abc import Callable

from penstock.codec import encode
from penstock.kafka.ports import LogError, Publisher
from penstock.rpc.errors import NotFound
from penstock.telemetry import logger
from penstock.topics import topic_of
from penstock.v1 import admitted_pb2, control_pb2
from penstock_ingest import metrics
from penstock_ingest.admission.pipeline import timestamp_of
from penstock_ingest.errors import unwritten
from penstock_ingest.waiting.index import Ended, KnownIds, Open, ResponseIndex
from penstock_ingest.waiting.settling import settled

__all__ = ["RETURN_S", "Cancellations"]

log = logger(__name__)

# So near to its deadline a request ends by itself, sooner than a cancellation would end it; and a
# call whose own deadline passes looks like one that was cancelled.
SOON_S = 0.5
# A caller who named the request may lose the connection and ask again under the same key. Below a
# second, so that an engine does not work much longer for nobody.
RETURN_S = 0.3


@dataclasses.dataclass(slots=True)
class _Orphan:
    request: admitted_pb2.AdmittedRequest
    timer: asyncio.TimerHandle


class Cancellations:
    """Writes cancellations to `control`, where every pump reads them.

    Args:
        index: Requests that ended lately.
        known: Requests under way.
        publisher: Writes to the log.
        topic_prefix: What stands before the dot in topics' names.
        source: Names the writer in records.
        clock: The present, UTC.
        return_s: How long a request with an idempotency key goes on without a caller.
    """

    def __init__(
        self,
        *,
        index: ResponseIndex,
        known: KnownIds,
        publisher: Publisher,
        topic_prefix: str,
        source: str,
        clock: Callable[[], dt.datetime],
        return_s: float = RETURN_S,
    ) -> None:
        self._index = index
        self._known = known
        self._publisher = publisher
        self._control = topic_of("control").full_name(topic_prefix)
        self._source = source
        self._clock = clock
        self._return_s = return_s
        self._orphans: dict[str, _Orphan] = {}
        self._writing: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def cancel(self, request_id: str, tenant: str) -> None:
        """Ends a tenant's request; returns when the cancellation is on the log.

        Does nothing to one that has ended. One that ends meanwhile stays as it ended.

        Raises:
            NotFound: None of that id and tenant is known here; another tenant's counts as none.
            Unavailable: The log cannot be written.
        """
        request = await self._find(request_id, tenant)
        if request is None:
            return
        deadline = dt.datetime.fromtimestamp(request.deadline_s, dt.UTC)
        metrics.CANCELLATIONS.labels("asked").inc()
        try:
            await self._write(request_id, tenant, deadline)
        except LogError as error:
            raise unwritten() from error

    def abandoned(self, request: admitted_pb2.AdmittedRequest) -> None:
        """The last caller left a request that was admitted for those who wait."""
        if self._stopped or self._left_s(request) <= SOON_S:
            return
        if not request.request.idempotency_key:
            self._begin(request)
            return
        timer = asyncio.get_running_loop().call_later(
            self._return_s, self._give_up, request.request_id
        )
        self._orphans[request.request_id] = _Orphan(request, timer)

    def came_back(self, request_id: str) -> admitted_pb2.AdmittedRequest | None:
        """Takes an abandoned request up again: it is not cancelled. None if there is none."""
        orphan = self._orphans.pop(request_id, None)
        if orphan is None:
            return None
        orphan.timer.cancel()
        return orphan.request

    def stop(self) -> None:
        """From now on callers leave because this instance ends, and come back to another."""
        self._stopped = True
        for request_id in list(self._orphans):
            self.came_back(request_id)

    async def _find(self, request_id: str, tenant: str) -> Open | None:
        """The request; None where it has ended."""

        def look() -> Ended | Open | None:
            ended = self._index.find(request_id, tenant, self._clock().timestamp())
            return ended or self._known.under_way(request_id, tenant)

        # Somebody else may just have admitted it.
        found = await settled(look)
        if found is None:
            raise NotFound(
                "no request of that id and tenant is known here; it has not been admitted, "
                "or ended some time ago",
                field="request_id",
            )
        return found if isinstance(found, Open) else None

    def _give_up(self, request_id: str) -> None:
        request = self._orphans.pop(request_id).request
        now_s = self._clock().timestamp()
        if self._index.find(request_id, request.request.tenant, now_s) is None:
            self._begin(request)

    def _begin(self, request: admitted_pb2.AdmittedRequest) -> None:
        metrics.CANCELLATIONS.labels("left").inc()
        task = asyncio.create_task(self._write_left(request))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write_left(self, request: admitted_pb2.AdmittedRequest) -> None:
        deadline = request.deadline.ToDatetime(dt.UTC)
        try:
            # Nobody waits for this: beyond the deadline it means nothing any more.
            async with asyncio.timeout(self._left_s(request)):
                await self._write(request.request_id, request.request.tenant, deadline)
        except (LogError, TimeoutError) as error:
            log.warning(
                "a cancellation could not be written; the request goes on",
                request_id=request.request_id,
                error=repr(error),
            )

    async def _write(self, request_id: str, tenant: str, deadline: dt.datetime) -> None:
        cancellation = admitted_pb2.Cancellation(
            request_id=request_id,
            tenant=tenant,
            requested_at=timestamp_of(self._clock()),
            deadline=timestamp_of(deadline),
        )
        await self._publisher.publish(
            [
                encode(
                    control_pb2.Control(cancel=cancellation),
                    topic=self._control,
                    key=request_id,
                    source=self._source,
                )
            ]
        )

    def _left_s(self, request: admitted_pb2.AdmittedRequest) -> float:
        return (request.deadline.ToDatetime(dt.UTC) - self._clock()).total_seconds()
