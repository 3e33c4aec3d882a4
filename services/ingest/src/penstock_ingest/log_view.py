"""What this instance reads of the log: replies, tokens, responses, admitted ids, routes.

Each function takes one record in and never raises for what a record holds: a reader goes on.
Shadow copies, replays and probes are no client's: nobody may fetch or repeat them, and no tenant
has them queued.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message

from penstock.codec import decode
from penstock.errors import InvalidRequest
from penstock.records import Record
from penstock.routing import RouteTable
from penstock.telemetry import logger
from penstock.v1 import admitted_pb2, alert_pb2, response_pb2, route_pb2
from penstock_ingest import metrics
from penstock_ingest.admission.quota import TenantQuota
from penstock_ingest.health.board import Key
from penstock_ingest.waiting.index import KnownIds, ResponseIndex
from penstock_ingest.waiting.waiters import Waiters

__all__ = ["LogView"]

log = logger(__name__)

M = TypeVar("M", bound=Message)


class LogView:
    """Takes records in on behalf of those who need what they say.

    Args:
        routes: The table of routes.
        waiters: Those who wait.
        index: Requests that ended lately.
        known: Ids that were admitted lately.
        quota: What each tenant has queued.
        clock: The present, UTC.
        probes: Takes a reply if it is to a probe of this instance, and says so.
        answered: Told of variants' answers to real requests, and when they came.
        alerts: Takes in what is on the topic of alerts.
    """

    def __init__(
        self,
        *,
        routes: RouteTable,
        waiters: Waiters,
        index: ResponseIndex,
        known: KnownIds,
        quota: TenantQuota,
        clock: Callable[[], dt.datetime],
        probes: Callable[[response_pb2.GenerateResponse], bool] = lambda _: False,
        answered: Callable[[Key, dt.datetime], None] = lambda _, __: None,
        alerts: Callable[[alert_pb2.Alert], None] = lambda _: None,
    ) -> None:
        self._routes = routes
        self._waiters = waiters
        self._index = index
        self._known = known
        self._quota = quota
        self._clock = clock
        self._probes = probes
        self._answered = answered
        self._alerts = alerts

    def reply(self, record: Record) -> None:
        """A terminal response for a caller who waits here."""
        response = _decoded(record, response_pb2.GenerateResponse)
        if response is not None and not self._probes(response):
            self._waiters.end(response)

    def chunk(self, record: Record) -> None:
        """Text for a caller who waits here."""
        chunk = _decoded(record, response_pb2.TokenChunk)
        if chunk is not None:
            self._waiters.chunk(chunk)

    def response(self, record: Record) -> None:
        """A terminal response, whoever waits for it: also who came back to another instance."""
        response = _decoded(record, response_pb2.GenerateResponse)
        if response is None:
            return
        if not response.purpose:
            at_s, now_s = record.timestamp_ms / 1000, self._now_s()
            self._index.add(response, record.key, at_s, now_s)
            self._known.end(response.request_id, at_s, now_s, keyed=bool(response.idempotency_key))
            self._quota.end(response.request_id, now_s)
        self._waiters.end(response)
        if response.outcome == response_pb2.OUTCOME_ANSWERED and not response.cached:
            at = dt.datetime.fromtimestamp(record.timestamp_ms / 1000, dt.UTC)
            self._answered(Key(response.model, response.variant), at)

    def admitted(self, record: Record) -> None:
        """An admitted request, whoever admitted it."""
        # Decoding takes 2 us for a prompt of 500 bytes, less than the client takes to deliver it.
        admitted = _decoded(record, admitted_pb2.AdmittedRequest)
        if admitted is None or admitted.purpose:
            return
        name, tenant = admitted.request_id, admitted.request.tenant
        deadline_s, now_s = admitted.deadline.seconds, self._now_s()
        keyed = bool(admitted.request.idempotency_key)
        self._known.confirm(name, tenant, deadline_s, now_s, keyed=keyed)
        self._quota.confirm(admitted, now_s)

    def alert(self, record: Record) -> None:
        """An alert, whoever wrote it."""
        alert = _decoded(record, alert_pb2.Alert)
        if alert is not None:
            self._alerts(alert)

    def route(self, record: Record) -> None:
        """A route, or the end of one."""
        if record.value is None:
            self._routes.remove((record.key or b"").decode("utf-8", "replace"))
            return
        route = _decoded(record, route_pb2.Route)
        if route is None:
            return
        what = {"model": route.model, "version": route.version}
        try:
            applied = self._routes.apply(route)
        except InvalidRequest as error:
            metrics.ROUTES_REFUSED.labels("invalid").inc()
            log.error("route refused", field=error.field, reason=error.message, **what)
            return
        if applied:
            log.info("route applied", **what)
        else:
            metrics.ROUTES_REFUSED.labels("not_newer").inc()
            log.warning("route refused: not newer", **what)

    def _now_s(self) -> float:
        return self._clock().timestamp()


def _decoded(record: Record, message: type[M]) -> M | None:
    try:
        return decode(record, message)
    except InvalidRequest as error:
        log.warning(
            "a record is passed over",
            reason=f"no {message.DESCRIPTOR.name} ({error.field})",
            topic=record.partition.topic,
            partition=record.partition.number,
            offset=record.offset,
        )
        return None
