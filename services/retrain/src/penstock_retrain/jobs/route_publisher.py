"""Carries routes from the outbox to the log: one writer per model, each version once.

What keeps a process that slept from taking a route back:
1. It writes only what the outbox gives it, and only under a lease per model.
2. Its transactional id, one per model, is taken anew by whoever takes the lease from it: Kafka
   refuses the transaction of the one that slept, wherever in it it slept.
3. A route has the version that it was written to the outbox with, and readers refuse a lower one.
Others write routes too (`penstock routes`, drift's remedies): where one of theirs came first, the
change is made anew from theirs, or not at all (`penstock_retrain.jobs.route_plan.rebased`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from penstock.codec import encode
from penstock.errors import Unavailable
from penstock.kafka.ports import Fenced, LogError
from penstock.records import Outgoing
from penstock.telemetry import logger
from penstock_retrain import metrics
from penstock_retrain.jobs.leases import Lease, Leases
from penstock_retrain.jobs.outbox import Entry, Outbox
from penstock_retrain.jobs.overtaken import undo_promotion
from penstock_retrain.jobs.route_view import RouteView

__all__ = ["FencedPublisher", "RoutePublisher"]

log = logger(__name__)

T = TypeVar("T")

# Short, and prolonged while a route is under way: a rollback must not wait for long for a process
# that sleeps. Two that have it at once do no harm, Kafka lets one write.
LEASE_S = 1.0
POLL_S = 0.5
SEEN_S = 10.0


class FencedPublisher(Protocol):
    """A writer that owns a transactional id, as `TransactionalPublisher` is."""

    async def start(self) -> None:
        """Takes the id, and fences whoever had it."""
        ...

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Writes all in one transaction; raises Fenced or LogError."""
        ...

    async def stop(self) -> None:
        """Disconnects."""
        ...


@dataclasses.dataclass
class _Hold:
    lease: Lease
    publisher: FencedPublisher


class RoutePublisher:
    """Publishes what waits in the outbox.

    Args:
        outbox: Where routes wait.
        leases: Who may publish a model's.
        view: What the log says; read by the caller.
        make: Makes the writer of a model.
        topic: The full name of `routes`.
        moved: Told when somebody else's route came first: a job may have been rolled back.
        lease_s: How long a model's lease lasts.
        clock_us: The time now, microseconds since 1970.
    """

    def __init__(
        self,
        outbox: Outbox,
        leases: Leases,
        view: RouteView,
        make: Callable[[str], FencedPublisher],
        topic: str,
        *,
        moved: Callable[[], None],
        lease_s: float = LEASE_S,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._outbox = outbox
        self._leases = leases
        self._view = view
        self._make = make
        self._topic = topic
        self._moved = moved
        self._lease_us = round(lease_s * 1e6)
        self._clock_us = clock_us
        self._holds: dict[str, _Hold] = {}
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Says that something waits."""
        self._wake.set()

    async def run(self) -> None:
        """Publishes until cancelled, then gives its leases back."""
        try:
            while True:
                self._wake.clear()
                try:
                    models = await asyncio.to_thread(self._outbox.models_waiting)
                    await asyncio.gather(*(self._carry_if_can(model) for model in models))
                except Unavailable as error:
                    log.warning("routes wait for the database", error=str(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._wake.wait()
        finally:
            for model in list(self._holds):
                await self._drop(model)

    async def _carry_if_can(self, model: str) -> None:
        """Publishes what waits of one model; where that fails, the others' goes on."""
        try:
            await self._carry(model)
        except Unavailable as error:
            log.warning("a route waits for the database", model=model, error=str(error))

    async def carry(self, model: str) -> None:
        """Publishes what waits of one model, once."""
        await self._carry(model)

    async def _carry(self, model: str) -> None:
        while entries := await asyncio.to_thread(self._outbox.waiting, model):
            # Before each: what was read before a sleep may be settled by somebody else.
            publisher = await self._hold(model)
            if publisher is None:
                return
            entry = entries[0]
            held = self._view.held(model)
            free = held is None or held.version < entry.version
            if free and not await self._prolonged(model, self._publish(publisher, entry)):
                await self._drop(model)
                return
            await self._settle(entry)

    async def _publish(self, publisher: FencedPublisher, entry: Entry) -> bool:
        record = encode(
            entry.route,
            topic=self._topic,
            key=entry.model,
            source="retrain",
            event_id=f"route:{entry.model}:{entry.version}",
        )
        try:
            await publisher.publish([record])
            async with asyncio.timeout(SEEN_S):
                await self._view.seen(entry.route)
        except Fenced:
            metrics.ROUTES.labels("fenced").inc()
            log.warning("another process publishes the routes", model=entry.model)
            return False
        except (LogError, TimeoutError) as error:
            # It may be on the log: whoever comes next sees that before it writes.
            log.warning("a route waits", model=entry.model, error=repr(error))
            return False
        return True

    async def _settle(self, entry: Entry) -> None:
        """Keeps what became of an entry; readers hold its version by now, or a higher one."""
        now_us = self._clock_us()
        if self._view.taken(entry.model, entry.version) == entry.route:
            await asyncio.to_thread(self._outbox.published, entry, now_us)
            metrics.ROUTES.labels("published").inc()
            metrics.ROUTE_SECONDS.observe(max(0.0, (now_us - entry.created_us) / 1e6))
            log.info(
                "route published",
                model=entry.model,
                version=entry.version,
                change=str(entry.change.kind),
                percent=entry.change.percent,
                job=entry.job_id,
            )
            return
        held = self._view.held(entry.model)
        assert held is not None
        made = await asyncio.to_thread(
            self._outbox.supersede,
            entry,
            held,
            now_us,
            settle=self._view.has(entry.route),
            undo=undo_promotion,
        )
        for old, new in made:
            metrics.ROUTES.labels("superseded").inc()
            log.warning(
                "somebody else's route came first",
                model=old.model,
                version=old.version,
                made_anew=new.version if new is not None else None,
            )
        self._moved()

    async def _hold(self, model: str) -> FencedPublisher | None:
        name = f"routes/{model}"
        lease = await asyncio.to_thread(self._leases.take, name, self._clock_us(), self._lease_us)
        hold = self._holds.get(model)
        if lease is None:
            await self._drop(model, release=False)
            return None
        if hold is not None and lease.after == hold.lease.epoch:
            # Nobody had it in between: nobody has fenced the writer.
            hold.lease = lease
            return hold.publisher
        await self._drop(model, release=False)
        publisher = self._make(model)
        self._holds[model] = _Hold(lease, publisher)
        try:
            await self._prolonged(model, publisher.start())
        except LogError as error:
            log.warning("routes wait for Kafka", model=model, error=str(error))
            await self._drop(model)
            return None
        return publisher

    async def _prolonged(self, model: str, work: Coroutine[Any, Any, T]) -> T:
        """Does some work with the model's lease prolonged: who sleeps cannot."""
        keeping = asyncio.create_task(self._keep(self._holds[model].lease))
        try:
            return await work
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _keep(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(self._lease_us / 3e6)
            with contextlib.suppress(Unavailable):
                await asyncio.to_thread(self._leases.renew, lease, self._clock_us(), self._lease_us)

    async def _drop(self, model: str, *, release: bool = True) -> None:
        hold = self._holds.pop(model, None)
        if hold is None:
            return
        try:
            await hold.publisher.stop()
        except Exception as error:  # noqa: BLE001 - a fenced producer ends as it may
            log.info("a producer did not stop in order", model=model, error=repr(error))
        if release:
            await asyncio.to_thread(self._leases.release, f"routes/{model}")
