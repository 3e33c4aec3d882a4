"""The desk of the stages, on SQL: see `penstock_retrain.jobs.stages.Desk`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from penstock.v1 import route_pb2
from penstock_retrain.jobs.outbox import Outbox
from penstock_retrain.jobs.route_plan import champion_of, names, percent_of, shadow_of
from penstock_retrain.jobs.route_view import RouteView
from penstock_retrain.jobs.stages import Candidate, RouteChange, Standing
from penstock_retrain.jobs.states import Event, Facts, Job, Trigger
from penstock_retrain.jobs.store import JobStore

__all__ = ["SqlDesk"]


class SqlDesk:
    """Keeps what stages know, and has their routes carried out.

    Args:
        store: Where jobs are.
        outbox: Where routes wait.
        view: What the log says of routes.
        wake: Has what waits carried out now.
        clock_us: The time now, microseconds since 1970.
    """

    def __init__(
        self,
        store: JobStore,
        outbox: Outbox,
        view: RouteView,
        wake: Callable[[], None],
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._view = view
        self._wake = wake
        self._clock_us = clock_us

    async def keep(
        self,
        job: Job,
        facts: Facts,
        *,
        step: int | None = None,
        change: RouteChange | None = None,
    ) -> Job:
        """See the protocol."""
        event = Event(Trigger.STEPPED, self._clock_us(), facts=facts, step=step)
        kept = await asyncio.to_thread(self._store.apply, job, event, change)
        self._wake()
        return kept

    async def note(self, job: Job, facts: Facts) -> Job:
        """See the protocol."""
        return await asyncio.to_thread(self._store.note, job, facts)

    async def standing(self, job: Job, candidate: Candidate) -> Standing:
        """See the protocol."""
        route = await asyncio.to_thread(self._outbox.head, job.model)
        held = self._view.held(job.model)
        if held is not None and (route is None or held.version > route.version):
            route = held  # somebody else's, which SQL has not taken in yet
        if route is None:
            return Standing(0, 0.0, 0.0, published=True)
        return Standing(
            route.version,
            percent_of(route, candidate.name),
            shadow_of(route, candidate),
            published=held is not None and held.version >= route.version,
            champion=champion_of(route),
            champion_percent=percent_of(route, champion_of(route)),
            by_tenant=route.sticky_by == route_pb2.STICKY_BY_TENANT,
            names_candidate=names(route, candidate.name),
        )
