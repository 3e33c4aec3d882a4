"""Watches whether requests can be taken, and tells the doors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from penstock.routing import RouteTable
from penstock.telemetry import logger
from penstock_ingest import metrics
from penstock_ingest.desk import Desk

__all__ = ["Readiness"]

log = logger(__name__)

INTERVAL_S = 2.0


class Readiness:
    """Opens the desk while Kafka answers and something is routed; closes it otherwise.

    Args:
        desk: Told why it is closed; empty while it is open.
        routes: The table of routes.
        kafka_answers: Asks Kafka; bounded in time.
        tell: Told of each change, for the gRPC health service.
    """

    def __init__(
        self,
        desk: Desk,
        routes: RouteTable,
        kafka_answers: Callable[[], Awaitable[bool]],
        tell: Callable[[bool], Awaitable[None]],
    ) -> None:
        self._desk = desk
        self._routes = routes
        self._kafka_answers = kafka_answers
        self._tell = tell

    async def run(self) -> None:
        """Looks every two seconds until cancelled; to be started once the readers caught up."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL_S)

    async def look(self) -> None:
        """Looks once."""
        reason = ""
        if not await self._kafka_answers():
            reason = "Kafka does not answer"
        elif not self._routes:
            reason = "no model is routed"
        await self.set(reason)

    async def set(self, reason: str) -> None:
        """Closes the desk for a reason, or opens it for an empty one."""
        if reason == self._desk.closed:
            return
        if reason:
            log.warning("not ready", reason=reason)
        else:
            log.info("ready")
        self._desk.closed = reason
        metrics.READY.set(0 if reason else 1)
        await self._tell(not reason)
