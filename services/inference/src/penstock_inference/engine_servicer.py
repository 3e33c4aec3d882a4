"""The engine's end of the stream: work comes in, events go out, both in batches."""

from __future__ import annotations

import asyncio
import dataclasses
import time
import zlib
from collections.abc import AsyncIterator

import grpc

from penstock.errors import PenstockError, Unavailable
from penstock.telemetry import logger
from penstock.v1 import engine_service_pb2, engine_service_pb2_grpc, response_pb2
from penstock_inference import metrics
from penstock_inference.errors import EngineLost
from penstock_inference.generation import Delta, Engine
from penstock_inference.wire import failure_of, generation_of, result_of

__all__ = ["READY", "EngineServicer"]

log = logger(__name__)

EVENTS_PER_MESSAGE = 512
READY = "penstock-engine-ready"  # in the stream's initial metadata


class EngineServicer(engine_service_pb2_grpc.EngineServicer):
    """Runs the work of every pump that dialled this replica.

    A stream that ends takes its work with it: the pump runs it again elsewhere, so what goes on
    here would be paid for twice.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._load_tokens = 0
        self.lost = False

    @property
    def load_tokens(self) -> int:
        """Tokens that the running work may still take, at most."""
        return self._load_tokens

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
        reader = asyncio.create_task(stream.read(request_iterator))
        try:
            while (events := await stream.next_events()) is not None:
                yield engine_service_pb2.WorkResponse(events=events)
        finally:
            reader.cancel()
            stream.cancel_all()

    async def run(self, item: engine_service_pb2.WorkItem, stream: _Stream) -> None:
        """Does one piece of work and puts its events on the stream."""
        request_id = item.request.request_id
        tokens = item.request.request.sampling.max_tokens
        self._load_tokens += tokens
        metrics.RUNNING.inc()
        started = time.monotonic()
        try:
            result = await self._generate(item, stream, started)
        except EngineLost as error:
            # No result: the pump runs the work again on an engine that lives.
            log.error("the engine is lost", reason=str(error))
            self.lost = True
            stream.end()
            return
        except PenstockError as error:
            result = failure_of(error)
        except Exception as error:
            log.exception("generation failed", request_id=request_id)
            result = failure_of(Unavailable(f"the engine failed: {type(error).__name__}"))
        finally:
            self._load_tokens -= tokens
            metrics.RUNNING.dec()
        stream.put(
            engine_service_pb2.WorkEvent(request_id=request_id, work_id=item.work_id, result=result)
        )

    async def _generate(
        self, item: engine_service_pb2.WorkItem, stream: _Stream, started: float
    ) -> engine_service_pb2.WorkResult:
        request_id = item.request.request_id
        index, crc = 0, 0
        # Under the work's own id: another run of the request may still be leaving the engine.
        generation = dataclasses.replace(generation_of(item.request), request_id=item.work_id)
        async for event in self._engine.generate(generation):
            if isinstance(event, Delta):
                crc = zlib.crc32(event.text.encode(), crc)
                chunk = response_pb2.TokenChunk(
                    request_id=request_id,
                    attempt=item.attempt,
                    index=index,
                    tokens=event.tokens,
                    text=event.text,
                    text_crc32=crc,
                )
                index += event.tokens
                stream.put(
                    engine_service_pb2.WorkEvent(
                        request_id=request_id, work_id=item.work_id, chunk=chunk
                    )
                )
            else:
                metrics.GENERATED_TOKENS.inc(event.completion_tokens)
                return result_of(event, time.monotonic() - started)
        raise Unavailable("the engine ended the generation without an answer")


class _Stream:
    """One pump's work on this replica."""

    def __init__(self, servicer: EngineServicer) -> None:
        self._servicer = servicer
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._events: asyncio.Queue[engine_service_pb2.WorkEvent | None] = asyncio.Queue()

    def put(self, event: engine_service_pb2.WorkEvent) -> None:
        self._events.put_nowait(event)

    def end(self) -> None:
        """Ends the stream, which tells the pump that its work here is lost."""
        self._events.put_nowait(None)

    async def read(self, requests: AsyncIterator[engine_service_pb2.WorkRequest]) -> None:
        try:
            async for request in requests:
                for item in request.start:
                    self._start(item)
                for work_id in request.cancel:
                    if task := self._tasks.get(work_id):
                        task.cancel()
        finally:
            self._events.put_nowait(None)

    def _start(self, item: engine_service_pb2.WorkItem) -> None:
        task = self._tasks[item.work_id] = asyncio.create_task(self._servicer.run(item, self))
        task.add_done_callback(lambda _: self._tasks.pop(item.work_id, None))

    async def next_events(self) -> list[engine_service_pb2.WorkEvent] | None:
        """What has happened, at least one event; None when the pump ended the stream."""
        event = await self._events.get()
        events = []
        while event is not None:
            events.append(event)
            if self._events.empty() or len(events) == EVENTS_PER_MESSAGE:
                return events
            event = self._events.get_nowait()
        return None

    def cancel_all(self) -> None:
        for task in self._tasks.values():
            task.cancel()
