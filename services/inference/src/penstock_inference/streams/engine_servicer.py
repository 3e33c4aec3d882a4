"""The engine's end of the stream: work comes in, events go out, both in batches."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Collection
from typing import Any

import grpc

from penstock.errors import PenstockError, Unavailable
from penstock.pace import Pace
from penstock.telemetry import logger
from penstock.v1 import engine_service_pb2, engine_service_pb2_grpc
from penstock_inference import metrics
from penstock_inference.engines.errors import EngineLost
from penstock_inference.engines.generation import (
    AdapterHost,
    Completion,
    Delta,
    DirectEngine,
    Engine,
    Generation,
)
from penstock_inference.streams.wire import MESSAGE_INTERVAL_S, generation_of, write_result

__all__ = ["READY", "EngineServicer"]

log = logger(__name__)

EVENTS_PER_MESSAGE = 512
READY = "penstock-engine-ready"  # in the stream's initial metadata


class EngineServicer(engine_service_pb2_grpc.EngineServicer):
    """Runs the work of every pump that dialled this replica.

    A stream that ends takes its work with it: the pump runs it again elsewhere, so what goes on
    here would be paid for twice. An engine that is lost ends all streams.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._direct = engine if isinstance(engine, DirectEngine) else None
        self._host = engine if isinstance(engine, AdapterHost) else None
        self._streams: set[_Stream] = set()
        self._load_tokens = 0
        self._running = 0
        self._by_adapter: Counter[str] = Counter()
        self.lost = False
        metrics.RUNNING.set_function(lambda: self._running)

    @property
    def load_tokens(self) -> int:
        """Tokens that the running work may still take, at most."""
        return self._load_tokens

    @property
    def running(self) -> int:
        """Generations that the engine has, running or waiting."""
        return self._running

    @property
    def slots(self) -> int:
        """Generations that the engine runs at a time; 0: as many as come."""
        return self._engine.slots

    @property
    def adapters(self) -> Collection[str]:
        """The adapters that work may be sent for."""
        return self._host.adapters if self._host is not None else ()

    @property
    def adapters_in_use(self) -> Collection[str]:
        """The adapters that running work answers through."""
        return self._by_adapter.keys()

    async def Work(  # noqa: N802 - gRPC names it
        self,
        request_iterator: AsyncIterator[engine_service_pb2.WorkRequest],
        context: grpc.aio.ServicerContext[object, object],
    ) -> AsyncIterator[engine_service_pb2.WorkResponse]:
        """One pump's stream; see the contract."""
        if self.lost:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the engine is lost")
        # Only this tells the pump that work may come: a port that listens says nothing.
        await context.send_initial_metadata(((READY, "1"),))
        stream = _Stream(self)
        self._streams.add(stream)
        reader = asyncio.create_task(stream.read(request_iterator))
        try:
            while (response := await stream.next_response()) is not None:
                yield response
        finally:
            self._streams.discard(stream)
            reader.cancel()
            stream.drop_all()

    def begin(self, work: _Work, item: engine_service_pb2.WorkItem) -> None:
        """Hands work to the engine; whatever goes wrong with it becomes its result."""
        self._running += 1
        self._load_tokens += work.tokens
        if work.adapter:
            self._by_adapter[work.adapter] += 1
        try:
            if work.adapter and work.adapter not in self.adapters:
                raise Unavailable(f"this engine has not loaded the adapter {work.adapter}")
            generation = generation_of(item)
            if self._direct is not None:
                self._direct.begin(generation, work.take)
            else:
                work.task = asyncio.create_task(self._iterate(generation, work))
                work.task.add_done_callback(work.dropped)
        except Exception as error:  # noqa: BLE001 - one item must not end the stream
            work.take(error)

    async def _iterate(self, generation: Generation, work: _Work) -> None:
        try:
            async for event in self._engine.generate(generation):
                work.take(event)
        except Exception as error:  # noqa: BLE001 - told apart where it is taken
            work.take(error)
        else:
            if not work.done:
                work.take(Unavailable("the engine ended the generation without an answer"))

    def ended(self, work: _Work) -> None:
        """Gives back what `begin` counted."""
        self._running -= 1
        self._load_tokens -= work.tokens
        if work.adapter:
            self._by_adapter[work.adapter] -= 1
            if not self._by_adapter[work.adapter]:
                del self._by_adapter[work.adapter]

    def cancel(self, work: _Work) -> None:
        """Ends work by a result that says what it used."""
        self._engine.cancel(work.work_id)

    def lose(self, reason: EngineLost) -> None:
        """Ends all streams, so that pumps run their work again elsewhere."""
        if not self.lost:
            log.error("the engine is lost", reason=str(reason))
        self.lost = True
        for stream in self._streams:
            stream.end()


class _Work:
    """One work item, from its start to its result."""

    __slots__ = (
        "_crc",
        "_index",
        "_servicer",
        "_started",
        "_stream",
        "adapter",
        "attempt",
        "done",
        "request_id",
        "task",
        "tokens",
        "work_id",
    )

    def __init__(
        self, item: engine_service_pb2.WorkItem, servicer: EngineServicer, stream: _Stream
    ) -> None:
        request = item.request
        self.request_id = request.request_id
        self.tokens = request.request.sampling.max_tokens
        self.work_id = item.work_id
        self.attempt = item.attempt
        self.adapter = item.adapter
        self.done = False
        self.task: asyncio.Task[None] | None = None
        self._servicer = servicer
        self._stream = stream
        self._started = time.monotonic()
        self._index = 0
        self._crc = 0

    def take(self, event: Delta | Completion | Exception) -> None:
        """Puts what the engine said on the stream."""
        if self.done:
            return
        if isinstance(event, Delta):
            self._write_chunk(event)
            return
        if isinstance(event, EngineLost):
            # No result: the pump runs the work again on an engine that lives.
            self.dropped()
            self._servicer.lose(event)
            return
        self.dropped()
        result = self._stream.add(self).result
        if isinstance(event, Completion):
            metrics.GENERATED_TOKENS.inc(event.completion_tokens)
            try:
                write_result(result, event, time.monotonic() - self._started)
            except (ValueError, TypeError) as error:
                # Half of an answer would be one.
                result.Clear()
                result.error.CopyFrom(self._error_of(error).to_proto())
        else:
            result.error.CopyFrom(self._error_of(event).to_proto())

    def dropped(self, _: Any = None) -> None:
        """Ends the work without a result; also a task's callback."""
        if not self.done:
            self.done = True
            self._stream.forget(self)
            self._servicer.ended(self)

    def _error_of(self, error: Exception) -> PenstockError:
        if isinstance(error, PenstockError):
            return error
        log.error("generation failed", request_id=self.request_id, exc_info=error)
        # The text of an unforeseen error may hold the prompt. Another run may go well.
        return PenstockError(f"the engine failed: {type(error).__name__}", retryable=True)

    def _write_chunk(self, delta: Delta) -> None:
        self._crc = zlib.crc32(delta.text.encode(), self._crc)
        chunk = self._stream.add(self).chunk
        chunk.request_id = self.request_id
        chunk.attempt = self.attempt
        chunk.index = self._index
        chunk.tokens = delta.tokens
        chunk.text = delta.text
        chunk.text_crc32 = self._crc
        self._index += delta.tokens


class _Stream:
    """One pump's work on this replica."""

    def __init__(self, servicer: EngineServicer) -> None:
        self._servicer = servicer
        self._work: dict[str, _Work] = {}
        # Messages are filled in place: to build events apart would copy each of them twice.
        self._outbox: deque[engine_service_pb2.WorkResponse] = deque()
        self._filled = asyncio.Event()
        self._pace = Pace(MESSAGE_INTERVAL_S)
        self._ended = False

    def add(self, work: _Work) -> engine_service_pb2.WorkEvent:
        """An event to fill in before anything else runs."""
        if not self._outbox or len(self._outbox[-1].events) >= EVENTS_PER_MESSAGE:
            self._outbox.append(engine_service_pb2.WorkResponse())
        self._filled.set()
        return self._outbox[-1].events.add(request_id=work.request_id, work_id=work.work_id)

    def end(self) -> None:
        """Ends the stream, which tells the pump that its work here is lost."""
        self._ended = True
        self._filled.set()

    async def read(self, requests: AsyncIterator[engine_service_pb2.WorkRequest]) -> None:
        """Takes in what the pump sends, until it ends the stream."""
        try:
            async for request in requests:
                for item in request.start:
                    work = self._work[item.work_id] = _Work(item, self._servicer, self)
                    self._servicer.begin(work, item)
                for work_id in request.cancel:
                    if found := self._work.get(work_id):
                        self._servicer.cancel(found)
        finally:
            self.end()

    def forget(self, work: _Work) -> None:
        """Work that is done cannot be cancelled any more."""
        self._work.pop(work.work_id, None)

    async def next_response(self) -> engine_service_pb2.WorkResponse | None:
        """What has happened, at least one event; None when the stream ended."""
        await self._filled.wait()
        if len(self._outbox) == 1:
            await self._pace.turn()
        response = self._outbox.popleft() if self._outbox else None
        if not self._outbox and not self._ended:
            self._filled.clear()
        return response

    def drop_all(self) -> None:
        """Ends what still runs; nobody wants to know how far it came."""
        for work in list(self._work.values()):
            if work.task is not None:
                work.task.cancel()
            else:
                self._servicer.cancel(work)
