"""Asks every variant now and then for one token, by the way that requests go."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from collections.abc import Callable
from typing import Protocol

from penstock.codec import encode
from penstock.errors import Code, PenstockError
from penstock.identity import new_id
from penstock.kafka.ports import LogError, Publisher
from penstock.routing import RouteTable
from penstock.telemetry import logger
from penstock.topics import topic_of
from penstock.v1 import admitted_pb2, common_pb2, response_pb2, route_pb2
from penstock_ingest import metrics
from penstock_ingest.admission.pipeline import timestamp_of
from penstock_ingest.desk import SOURCE
from penstock_ingest.health.board import Board, Key

__all__ = ["TENANT", "Incidents", "Prober", "probe_of"]

log = logger(__name__)

TENANT = "penstock-probe"
TEXT = "ready?"
PRIORITY = -100  # the most urgent that there is: a probe is small, and says nothing when late
LOOK_S = 0.5
GRACE_S = 2.0  # a reply that was committed at the deadline still has to travel here


class Incidents(Protocol):
    """Told after each look; `penstock_ingest.health.incidents.ModelIncidents` is the real one."""

    async def tell(self, board: Board, now_s: float) -> None:
        """Writes what people should know of the board; never raises for the log's sake."""
        ...


class Prober:
    """Probes variants as the board says, each at its own pace.

    Args:
        board: Says what is due, and is told how it went.
        routes: The table of routes.
        publisher: Writes the probes.
        incidents: Told after each look.
        topic_prefix: What stands before the dot in topics' names.
        reply_partition: The partition of `replies` that is read here.
        timeout_s: A probe's deadline.
        closed: Why nothing can be asked now; empty where it can. Without a log no variant is at
            fault.
        clock: The present, UTC.
        timer: The board's clock, in seconds.
    """

    def __init__(
        self,
        board: Board,
        routes: RouteTable,
        publisher: Publisher,
        incidents: Incidents,
        *,
        topic_prefix: str,
        reply_partition: int,
        timeout_s: float,
        closed: Callable[[], str],
        clock: Callable[[], dt.datetime],
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board = board
        self._routes = routes
        self._publisher = publisher
        self._incidents = incidents
        self._admitted = topic_of("admitted").full_name(topic_prefix)
        self._reply_partition = reply_partition
        self._timeout_s = timeout_s
        self._closed = closed
        self._clock = clock
        self._timer = timer
        self._waiting: dict[str, asyncio.Future[response_pb2.GenerateResponse]] = {}
        self._as_prompt: set[Key] = set()

    async def run(self) -> None:
        """Probes until cancelled."""
        async with asyncio.TaskGroup() as probes:
            while True:
                await self.look(probes)
                await asyncio.sleep(LOOK_S)

    async def look(self, probes: asyncio.TaskGroup) -> None:
        """Looks once: starts what is due, tells what is to be told."""
        for gone in self._board.follow(self._routes.models(), self._timer()):
            self._as_prompt.discard(gone)
            with contextlib.suppress(KeyError):
                metrics.PROBE_READY.remove(*gone)
        if self._closed():
            return
        for key in self._board.due(self._timer()):
            probes.create_task(self._probe(key))
        await self._incidents.tell(self._board, self._timer())

    def reply(self, response: response_pb2.GenerateResponse) -> bool:
        """Takes a terminal response in if it is a probe's of this instance."""
        waiting = self._waiting.get(response.request_id)
        if waiting is None:
            return False
        if not waiting.done():
            waiting.set_result(response)
        return True

    async def _probe(self, key: Key) -> None:
        started, sent_at = self._timer(), self._clock()
        try:
            error = await self._ask(key)
        except LogError as failure:
            error = f"the log could not be written: {failure}"
        except PenstockError as failure:  # its route ended meanwhile
            error = failure.message
        except TimeoutError:
            error = f"no reply within {self._timeout_s + GRACE_S:g} s"
        if error:
            self._board.failed(key, error, sent_at, self._timer())
            log.warning("a probe failed", model=key.model, variant=key.variant, error=error)
        else:
            self._board.answered(key, self._clock(), self._timer())
            metrics.PROBE_SECONDS.labels(*key).observe(self._timer() - started)
        metrics.PROBES.labels(*key, "failed" if error else "answered").inc()
        model = self._board.models.get(key.model)
        variant = model.variants.get(key.variant) if model else None
        if variant is not None:
            metrics.PROBE_READY.labels(*key).set(variant.ready)

    async def _ask(self, key: Key) -> str:
        """Sends one probe and waits for its reply; why it was no answer, or nothing."""
        route = self._routes.find(key.model).route
        probe = probe_of(
            route,
            key.variant,
            now=self._clock(),
            timeout_s=self._timeout_s,
            reply_partition=self._reply_partition,
            as_prompt=key in self._as_prompt,
        )
        record = encode(
            probe,
            topic=self._admitted,
            key=probe.request_id,
            source=SOURCE,
            event_id=probe.request_id,
        )
        reply = asyncio.get_running_loop().create_future()
        self._waiting[probe.request_id] = reply
        try:
            async with asyncio.timeout(self._timeout_s + GRACE_S):
                await self._publisher.publish([record])
                response = await reply
        finally:
            del self._waiting[probe.request_id]
        if response.outcome == response_pb2.OUTCOME_ANSWERED:
            return ""
        if response.outcome == response_pb2.OUTCOME_REJECTED:
            # Some models know conversations only, others no chat template.
            self._as_prompt ^= {key}
        code = Code.Name(response.error.code).removeprefix("ERROR_CODE_").lower()
        return f"{code}: {response.error.message}"


def probe_of(
    route: route_pb2.Route,
    variant: str,
    *,
    now: dt.datetime,
    timeout_s: float,
    reply_partition: int,
    as_prompt: bool = False,
) -> admitted_pb2.AdmittedRequest:
    """A synthetic request to one variant of a route, as admission would have written it."""
    deadline = timestamp_of(now + dt.timedelta(seconds=timeout_s))
    probe = admitted_pb2.AdmittedRequest(
        request_id=f"probe-{new_id()}",
        variant=variant,
        route_version=route.version,
        deadline=deadline,
        published_at=timestamp_of(now),
        admitted_at=timestamp_of(now),
        encoding=admitted_pb2.ENCODING_PROTOBUF,
        reply_partition=reply_partition,
        purpose=common_pb2.PURPOSE_PROBE,
    )
    request = probe.request
    request.model, request.tenant, request.priority = route.model, TENANT, PRIORITY
    request.no_cache = True
    request.deadline.CopyFrom(deadline)
    if as_prompt:
        request.prompt = TEXT
    else:
        request.messages.add(role="user", content=TEXT)
    request.sampling.max_tokens = 1
    request.sampling.temperature = 0
    request.sampling.top_p = 1
    request.sampling.seed = 0
    return probe
