"""The pump's side of the streams: finds live engines, spreads work by load, notices losses."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

import grpc

from penstock.pace import Pace
from penstock.rpc.channel import open_channel
from penstock.telemetry import logger
from penstock.v1 import engine_service_pb2, engine_service_pb2_grpc, response_pb2
from penstock_inference import metrics
from penstock_inference.scaling.directory import Announcement, DirectoryClient
from penstock_inference.streams.engine_servicer import READY
from penstock_inference.streams.wire import MESSAGE_INTERVAL_S

__all__ = ["MAX_MESSAGE_BYTES", "EnginePool", "Lane", "Listener", "Work"]

log = logger(__name__)

REFRESH_S = 0.5
ITEMS_PER_MESSAGE = 64
MAX_MESSAGE_BYTES = 128 * 1024 * 1024  # a batch of requests of 1 MiB each may be one message
# What an engine has beyond its slots keeps it busy while answers and new work travel.
OVERBOOK = 1.25
OVERBOOK_MIN = 4
UNKNOWN_SLOTS = 512

# Which engines can run a piece of work: base model and adapter.
Lane = tuple[str, str]

# Across streams, so that no engine sees an id twice from this pump.
_work_numbers = itertools.count()


class Work:
    """A piece of work at an engine.

    Attributes:
        item: What the engine got.
        tokens: What it may take.
    """

    __slots__ = ("item", "owner", "stream", "tokens")

    def __init__(
        self,
        item: engine_service_pb2.WorkItem,
        owner: object,
        tokens: int,
        stream: _EngineStream,
    ) -> None:
        self.item = item
        self.owner = owner
        self.tokens = tokens
        self.stream = stream

    def cancel(self) -> None:
        """Asks the engine to end it; a result still comes, if the engine lives."""
        self.stream.cancel(self)

    def forget(self) -> None:
        """Ends it without wanting to know how."""
        self.stream.cancel(self)
        self.stream.release(self)


class Listener(Protocol):
    """Hears what becomes of work; called in the event loop, must not raise."""

    def on_chunk(self, work: Work, chunk: response_pb2.TokenChunk) -> None:
        """Text was made."""
        ...

    def on_result(self, work: Work, result: engine_service_pb2.WorkResult) -> None:
        """The work has ended."""
        ...

    def on_lost(self, works: Sequence[Work], *, died: bool) -> None:
        """An engine went away with work; `died` unless it had said that it would go."""
        ...

    def on_room(self) -> None:
        """Some engine may have room now."""
        ...


class EnginePool:
    """Every live engine replica, one long-lived stream each.

    Args:
        directory: Where replicas announce themselves.
    """

    def __init__(self, directory: DirectoryClient) -> None:
        self._directory = directory
        self._engines: dict[str, _EngineStream] = {}
        self._refresher: asyncio.Task[None] | None = None
        self._listener: Listener | None = None

    async def start(self, listener: Listener) -> None:
        """Begins to follow the directory."""
        self._listener = listener
        self._refresher = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Ends the streams, and with them what still runs."""
        if self._refresher is not None:
            self._refresher.cancel()
        await asyncio.gather(*(engine.close() for engine in self._engines.values()))
        self._engines.clear()

    def begin(
        self, lane: Lane, item: engine_service_pb2.WorkItem, owner: object, tokens: int
    ) -> Work | None:
        """Sends work to the engine of a lane with the least ahead of it; None without room."""
        model, adapter = lane
        best: _EngineStream | None = None
        for engine in self._engines.values():
            if engine.has_room(model, adapter) and (
                best is None or engine.load_tokens < best.load_tokens
            ):
                best = engine
        return best.begin(item, owner, tokens) if best is not None else None

    async def _follow(self) -> None:
        while True:
            try:
                self._apply({a.replica_id: a for a in await self._directory.live()})
            except Exception as error:  # noqa: BLE001 - Ray raises many; known streams go on
                log.warning("directory cannot be read", error=repr(error))
            await asyncio.sleep(REFRESH_S)

    def _apply(self, live: dict[str, Announcement]) -> None:
        assert self._listener is not None
        for replica_id, announcement in live.items():
            known = self._engines.get(replica_id)
            if known is None or known.broken:
                self._engines[replica_id] = _EngineStream(announcement, self._listener)
                log.info("engine joined", replica=replica_id, address=announcement.address)
            else:
                known.hear(announcement)
        for replica_id, engine in list(self._engines.items()):
            # One that withdrew may end its work; one that died breaks its stream.
            engine.listed = replica_id in live
            if replica_id not in live and (engine.broken or not engine.busy):
                del self._engines[replica_id]
                engine.discard()
                log.info("engine left", replica=replica_id)
        metrics.LIVE_ENGINES.set(sum(e.accepting for e in self._engines.values()))
        self._listener.on_room()


class _EngineStream:
    """One engine replica as a pump sees it."""

    def __init__(self, announcement: Announcement, listener: Listener) -> None:
        self.replica_id = announcement.replica_id
        self.listed = True
        self.broken = False
        self.load_tokens = 0
        self._model = announcement.model
        self._adapters: Collection[str] = frozenset(announcement.adapters)
        self._room = 0
        self._foreign = 0
        self._foreign_tokens = 0
        self._own_tokens = 0
        self._connected = False
        self._listener = listener
        self._work: dict[str, Work] = {}
        self._outbox: list[engine_service_pb2.WorkItem | str] = []
        self._filled = asyncio.Event()
        self._channel = open_channel(
            announcement.address, max_message_bytes=MAX_MESSAGE_BYTES, traced=False
        )
        self.hear(announcement)
        self._task = asyncio.create_task(self._exchange())

    @property
    def accepting(self) -> bool:
        """Whether new work may go there: one that died is listed for some seconds more."""
        return self.listed and self._connected and not self.broken

    @property
    def busy(self) -> bool:
        """Whether work of ours is there."""
        return bool(self._work)

    def has_room(self, model: str, adapter: str) -> bool:
        """Whether it may take one more piece of such work."""
        return (
            self._model == model
            and len(self._work) + self._foreign < self._room
            and self.accepting
            and (not adapter or adapter in self._adapters)
        )

    def hear(self, announcement: Announcement) -> None:
        """Takes in what the replica says of itself; others' load is as of a second ago."""
        slots = announcement.slots or UNKNOWN_SLOTS
        self._room = max(int(slots * OVERBOOK), slots + OVERBOOK_MIN)
        self._adapters = frozenset(announcement.adapters)
        self._foreign = max(0, announcement.running - len(self._work))
        self._foreign_tokens = max(0, announcement.load_tokens - self._own_tokens)
        self.load_tokens = self._own_tokens + self._foreign_tokens

    def begin(self, item: engine_service_pb2.WorkItem, owner: object, tokens: int) -> Work:
        item.work_id = f"{item.request.request_id}/{next(_work_numbers)}"
        work = self._work[item.work_id] = Work(item, owner, tokens, self)
        self._own_tokens += tokens
        self.load_tokens += tokens
        self._put(item)
        return work

    def cancel(self, work: Work) -> None:
        if work.item.work_id in self._work:
            self._put(work.item.work_id)

    def release(self, work: Work) -> None:
        if self._work.pop(work.item.work_id, None) is not None:
            self._own_tokens -= work.tokens
            self.load_tokens -= work.tokens

    def _put(self, entry: engine_service_pb2.WorkItem | str) -> None:
        self._outbox.append(entry)
        self._filled.set()

    async def _exchange(self) -> None:
        stub = engine_service_pb2_grpc.EngineStub(self._channel)
        reason = "the stream ended"
        try:
            await self._channel.channel_ready()
            call = stub.Work(self._messages())
            if READY in dict(await call.initial_metadata() or ()):
                self._connected = True
                self._listener.on_room()
            async for response in call:
                for event in response.events:
                    self._take(event)
        except grpc.aio.AioRpcError as error:
            reason = f"{error.code().name}: {error.details()}"
        finally:
            self.broken = True
            self._lose(reason)
            await self._channel.close()

    def _lose(self, reason: str) -> None:
        lost = list(self._work.values())
        for work in lost:
            self.release(work)
        if lost:
            log.warning("engine lost", replica=self.replica_id, reason=reason, work=len(lost))
            self._listener.on_lost(lost, died=self.listed)

    async def _messages(self) -> AsyncIterator[engine_service_pb2.WorkRequest]:
        # grpc.aio allows one write at a time: what waits meanwhile goes together.
        pace = Pace(MESSAGE_INTERVAL_S)
        while True:
            await self._filled.wait()
            if len(self._outbox) < ITEMS_PER_MESSAGE:
                await pace.turn()
            waiting = self._outbox[:ITEMS_PER_MESSAGE]
            del self._outbox[:ITEMS_PER_MESSAGE]
            if not self._outbox:
                self._filled.clear()
            yield engine_service_pb2.WorkRequest(
                start=[entry for entry in waiting if not isinstance(entry, str)],
                cancel=[entry for entry in waiting if isinstance(entry, str)],
            )

    def _take(self, event: engine_service_pb2.WorkEvent) -> None:
        work = self._work.get(event.work_id)
        if work is None:  # forgotten meanwhile
            return
        if event.HasField("chunk"):
            self._listener.on_chunk(work, event.chunk)
        else:
            self.release(work)
            self._listener.on_result(work, event.result)

    def discard(self) -> None:
        self._task.cancel()

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
