"""Watches whether requests can be taken and are answered, and tells the doors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from penstock.routing import RouteTable
from penstock.telemetry import logger
from penstock_ingest import metrics
from penstock_ingest.desk import Desk
from penstock_ingest.health.board import Board, ModelHealth, VariantHealth

__all__ = ["Readiness"]

log = logger(__name__)

INTERVAL_S = 2.0
LOOK_S = 0.25


class Readiness:
    """Opens the desk while Kafka answers and something is routed; ready once models answer.

    The desk takes requests before their model answers: they wait on Kafka, within their deadlines.
    Ready, for load balancers and for people, is more: answers come.

    Args:
        desk: Told why it is closed; empty while it is open.
        routes: The table of routes.
        board: What probes found.
        kafka_answers: Asks Kafka; bounded in time.
        tell: Told of each change, for the gRPC health service.
        probed: Whether anything is probed; where not, an open desk is ready.
        timer: The board's clock, in seconds.
    """

    def __init__(
        self,
        desk: Desk,
        routes: RouteTable,
        board: Board,
        kafka_answers: Callable[[], Awaitable[bool]],
        tell: Callable[[bool], Awaitable[None]],
        *,
        probed: bool = True,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk = desk
        self._routes = routes
        self._board = board
        self._kafka_answers = kafka_answers
        self._tell = tell
        self._probed = probed
        self._timer = timer
        self._told = "starting"

    @property
    def reason(self) -> str:
        """Why this instance is not ready; empty where it is."""
        if self._desk.closed or not self._probed:
            return self._desk.closed
        if not self._board.models:  # the prober has not looked yet
            return "no model was probed yet"
        return self._board.not_ready_because(self._timer())

    async def run(self) -> None:
        """Looks until cancelled; to be started once the readers caught up."""
        kafka_due_s = 0.0
        while True:
            if self._timer() >= kafka_due_s:
                await self.look()
                kafka_due_s = self._timer() + INTERVAL_S
            await self.tell()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Looks once whether requests can be taken."""
        reason = ""
        if not await self._kafka_answers():
            reason = "Kafka does not answer"
        elif not self._routes:
            reason = "no model is routed"
        await self.set(reason)

    async def set(self, reason: str) -> None:
        """Closes the desk for a reason, or opens it for an empty one."""
        if reason != self._desk.closed:
            if reason:
                log.warning("requests are refused", reason=reason)
            else:
                log.info("requests are taken")
            self._desk.closed = reason
            metrics.READY.set(0 if reason else 1)
        await self.tell()

    async def tell(self) -> None:
        """Tells of a change of readiness."""
        reason = self.reason
        if reason == self._told:
            return
        if reason:
            log.warning("not ready", reason=reason)
        else:
            log.info("ready")
        if bool(reason) != bool(self._told):
            await self._tell(not reason)
        self._told = reason

    def body(self) -> Mapping[str, Any]:
        """What `/health/ready` says, as JSON: the whole, each model, each variant."""
        reason = self.reason
        models = {name: _model(model) for name, model in sorted(self._board.models.items())}
        failing = [name for name, model in models.items() if not model["ready"]]
        status = "not ready" if reason else "degraded" if failing and self._probed else "ready"
        body: dict[str, Any] = {"status": status}
        if reason or status == "degraded":
            body["reason"] = reason or "no answer from " + ", ".join(failing)
        if self._probed:
            body["models"] = models
        return body


def _model(model: ModelHealth) -> dict[str, Any]:
    return {
        "ready": model.ready,
        "route_version": model.route_version,
        "variants": {name: _variant(each) for name, each in sorted(model.variants.items())},
    }


def _variant(variant: VariantHealth) -> dict[str, Any]:
    success = variant.last_success
    return {
        "ready": variant.ready,
        "stage": variant.stage,
        "last_success": success.isoformat() if success is not None else None,
        "last_error": variant.last_error,
    }
