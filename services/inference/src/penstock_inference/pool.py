"""The pump's side of the streams: finds live engines, spreads work by tokens, notices losses."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable

import grpc

from penstock.rpc.channel import open_channel
from penstock.telemetry import logger
from penstock.v1 import admitted_pb2, engine_service_pb2, engine_service_pb2_grpc, response_pb2
from penstock_inference import metrics
from penstock_inference.directory import Announcement, DirectoryClient
from penstock_inference.engine_servicer import READY
from penstock_inference.errors import EngineLost

__all__ = ["MAX_MESSAGE_BYTES", "EnginePool"]

log = logger(__name__)

REFRESH_S = 0.5
ITEMS_PER_MESSAGE = 32
MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # a batch of requests of 1 MiB each may be one message

# Across streams, so that no engine sees an id twice from this pump.
_work_numbers = itertools.count()

OnChunk = Callable[[response_pb2.TokenChunk], None]


class EnginePool:
    """Every live engine replica, one long-lived stream each.

    Args:
        directory: Where replicas announce themselves.
        model: The base model whose replicas are wanted.
    """

    def __init__(self, directory: DirectoryClient, model: str) -> None:
        self._directory = directory
        self._model = model
        self._engines: dict[str, _EngineStream] = {}
        self._changed = asyncio.Event()
        self._refresher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to follow the directory."""
        self._refresher = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Ends the streams, and with them what still runs."""
        if self._refresher is not None:
            self._refresher.cancel()
        await asyncio.gather(*(engine.close() for engine in self._engines.values()))
        self._engines.clear()

    async def run(
        self, request: admitted_pb2.AdmittedRequest, attempt: int, on_chunk: OnChunk
    ) -> engine_service_pb2.WorkResult:
        """Does the work on the engine with the fewest tokens ahead; waits while there is none.

        Cancelling it ends the work on the engine too.

        Raises:
            EngineLost: The engine went away; the work may be run again.
        """
        engine = await self._least_loaded()
        return await engine.run(request, attempt, on_chunk)

    async def _least_loaded(self) -> _EngineStream:
        while True:
            open_engines = [engine for engine in self._engines.values() if engine.accepting]
            if open_engines:
                return min(open_engines, key=lambda engine: engine.load_tokens)
            self._changed.clear()
            await self._changed.wait()

    async def _follow(self) -> None:
        while True:
            try:
                self._apply({a.replica_id: a for a in await self._directory.live()})
            except Exception as error:  # noqa: BLE001 - Ray raises many; known streams go on
                log.warning("directory cannot be read", error=repr(error))
            await asyncio.sleep(REFRESH_S)

    def _apply(self, live: dict[str, Announcement]) -> None:
        for replica_id, announcement in live.items():
            if announcement.model != self._model:
                continue
            known = self._engines.get(replica_id)
            if known is None or known.broken:
                self._engines[replica_id] = _EngineStream(announcement, self._changed.set)
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
        self._changed.set()


class _EngineStream:
    """One engine replica as a pump sees it."""

    def __init__(self, announcement: Announcement, on_connected: Callable[[], None]) -> None:
        self.replica_id = announcement.replica_id
        self.listed = True
        self.broken = False
        self._connected = False
        self._on_connected = on_connected
        self._own_tokens = 0
        self._foreign_tokens = 0
        self._work: dict[str, _Work] = {}
        self._outbox: asyncio.Queue[engine_service_pb2.WorkItem | str] = asyncio.Queue()
        self._channel = open_channel(
            announcement.address, max_message_bytes=MAX_MESSAGE_BYTES, traced=False
        )
        self._task = asyncio.create_task(self._exchange())

    @property
    def accepting(self) -> bool:
        """Whether new work may go there: one that died is listed for some seconds more."""
        return self.listed and self._connected and not self.broken

    @property
    def load_tokens(self) -> int:
        """Tokens ahead of new work: ours, and those that other pumps had there lately."""
        return self._own_tokens + self._foreign_tokens

    @property
    def busy(self) -> bool:
        """Whether work of ours is there."""
        return bool(self._work)

    def hear(self, announcement: Announcement) -> None:
        """Takes in what the replica says of its load."""
        self._foreign_tokens = max(0, announcement.load_tokens - self._own_tokens)

    async def run(
        self, request: admitted_pb2.AdmittedRequest, attempt: int, on_chunk: OnChunk
    ) -> engine_service_pb2.WorkResult:
        work_id = f"{request.request_id}/{next(_work_numbers)}"
        tokens = request.request.sampling.max_tokens
        work = self._work[work_id] = _Work(on_chunk)
        self._own_tokens += tokens
        self._outbox.put_nowait(
            engine_service_pb2.WorkItem(request=request, attempt=attempt, work_id=work_id)
        )
        try:
            return await work.result
        except asyncio.CancelledError:
            self._outbox.put_nowait(work_id)
            raise
        finally:
            self._own_tokens -= tokens
            del self._work[work_id]

    async def _exchange(self) -> None:
        stub = engine_service_pb2_grpc.EngineStub(self._channel)
        reason = "the stream ended"
        try:
            await self._channel.channel_ready()
            call = stub.Work(self._messages())
            if READY in dict(await call.initial_metadata() or ()):
                self._connected = True
                self._on_connected()
            async for response in call:
                for event in response.events:
                    self._take(event)
        except grpc.aio.AioRpcError as error:
            reason = f"{error.code().name}: {error.details()}"
        finally:
            self.broken = True
            if self._work:
                log.warning("engine lost", replica=self.replica_id, reason=reason)
            for work in list(self._work.values()):
                if not work.result.done():
                    work.result.set_exception(EngineLost(reason))
            await self._channel.close()

    async def _messages(self) -> AsyncIterator[engine_service_pb2.WorkRequest]:
        # grpc.aio allows one write at a time: what waits meanwhile goes together.
        while True:
            waiting = [await self._outbox.get()]
            while not self._outbox.empty() and len(waiting) < ITEMS_PER_MESSAGE:
                waiting.append(self._outbox.get_nowait())
            yield engine_service_pb2.WorkRequest(
                start=[item for item in waiting if not isinstance(item, str)],
                cancel=[item for item in waiting if isinstance(item, str)],
            )

    def _take(self, event: engine_service_pb2.WorkEvent) -> None:
        work = self._work.get(event.work_id)
        if work is None:  # cancelled meanwhile
            return
        if event.HasField("chunk"):
            work.on_chunk(event.chunk)
        elif not work.result.done():
            work.result.set_result(event.result)

    def discard(self) -> None:
        self._task.cancel()

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


class _Work:
    """A request that is at an engine."""

    def __init__(self, on_chunk: OnChunk) -> None:
        self.on_chunk = on_chunk
        self.result: asyncio.Future[engine_service_pb2.WorkResult] = (
            asyncio.get_running_loop().create_future()
        )
