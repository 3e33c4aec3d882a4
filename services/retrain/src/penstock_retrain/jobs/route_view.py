"""What the log says of routes, as its readers hold them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from penstock.codec import decode
from penstock.errors import InvalidRequest
from penstock.records import Record
from penstock.routing import check_route
from penstock.telemetry import logger
from penstock.v1 import route_pb2

__all__ = ["RouteView"]

log = logger(__name__)

# Of a model, records that are kept to tell who came first.
KEPT = 1000
# SQL counts in 64 bits with a sign; some are left for what follows.
MAX_VERSION = 2**62


class RouteView:
    """Follows `routes`: of each model the route that readers hold, and what lost against it.

    Readers take a route in whose version is higher than theirs: of two records with one version
    the first counts.
    """

    def __init__(self) -> None:
        self._held: dict[str, route_pb2.Route] = {}
        # The newest records of a model, and those of them that readers took in.
        self._seen: dict[str, deque[route_pb2.Route]] = {}
        self._taken: dict[str, deque[route_pb2.Route]] = {}
        self._changed = asyncio.Event()
        self._new: set[str] = set()
        self._ended: set[str] = set()

    def on_record(self, record: Record) -> None:
        """Takes a record of `routes` in; what is no route is passed over, as readers do.

        So is a route that no database takes: it would stop whoever notes what stands.
        """
        if record.value is None:
            model = (record.key or b"").decode("utf-8", "replace")
            if not _can_be_kept(model):
                return
            self._held.pop(model, None)
            self._seen.pop(model, None)
            self._taken.pop(model, None)
            self._ended.add(model)
            self._changed.set()
            return
        try:
            route = decode(record, route_pb2.Route)
            check_route(route)
        except InvalidRequest:
            return
        if not _can_be_kept(route.model, route.version):
            log.error("a route cannot be kept", model=route.model, version=route.version)
            return
        self._seen.setdefault(route.model, deque(maxlen=KEPT)).append(route)
        known = self._held.get(route.model)
        if known is None or route.version > known.version:
            self._held[route.model] = route
            self._taken.setdefault(route.model, deque(maxlen=KEPT)).append(route)
            self._new.add(route.model)
        self._changed.set()

    def held(self, model: str) -> route_pb2.Route | None:
        """The route that readers hold."""
        return self._held.get(model)

    def take_new(self) -> list[route_pb2.Route]:
        """What readers hold of the models that changed since the last call."""
        new, self._new = self._new, set()
        return [self._held[model] for model in sorted(new) if model in self._held]

    def take_ended(self) -> dict[str, route_pb2.Route | None]:
        """The models that a tombstone has ended since the last call, with what they hold again."""
        ended, self._ended = self._ended, set()
        return {model: self._held.get(model) for model in sorted(ended)}

    def put_back(self, routes: Iterable[route_pb2.Route], ended: Iterable[str] = ()) -> None:
        """Has routes and ends taken again that could not be handled."""
        self._new.update(route.model for route in routes)
        self._ended.update(ended)

    def taken(self, model: str, version: int) -> route_pb2.Route | None:
        """The route that readers took in under a version; None where they took none."""
        return next((r for r in self._taken.get(model, ()) if r.version == version), None)

    def has(self, route: route_pb2.Route) -> bool:
        """Whether a record with this very route is on the log, taken in or refused."""
        return route in self._seen.get(route.model, ())

    async def seen(self, route: route_pb2.Route) -> None:
        """Returns once the view has come to a record with this very route."""
        while not self.has(route):
            self._changed.clear()
            await self._changed.wait()

    async def changed(self) -> None:
        """Returns when a model has a new route, or an end, that was not taken yet."""
        while not (self._new or self._ended):
            self._changed.clear()
            await self._changed.wait()


def _can_be_kept(model: str, version: int = 1) -> bool:
    # PostgreSQL holds no text with a NUL in it.
    return version <= MAX_VERSION and "\0" not in model
