"""What every served call gets: trace context, metrics, and errors mapped in one place."""

from __future__ import annotations

import asyncio
import inspect
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import structlog
from grpc_status import rpc_status
from opentelemetry import context as trace_context
from opentelemetry import propagate, trace

from penstock.errors import Code, PenstockError
from penstock.rpc.errors import status_of
from penstock.rpc.metrics import RPC_SECONDS
from penstock.telemetry import logger, tracer

__all__ = ["ErrorInterceptor", "TraceUnaryStream", "TraceUnaryUnary"]

log = logger(__name__)

# Messages of any contract pass through here unread.
Behaviour: TypeAlias = Callable[[Any, Any], Any]
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
ServicerContext: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Maps errors to statuses, for handlers of all four kinds.

    A `PenstockError` becomes a `google.rpc.Status` with details. `context.abort` passes as it is.
    Anything else is logged under an id that the caller gets too, and becomes INTERNAL without
    a word about the inside. Each call runs in a server span that goes on the caller's trace.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MethodHandler | None:
        """See `grpc.aio.ServerInterceptor`."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:  # no such method: gRPC answers UNIMPLEMENTED
            return handler
        method = handler_call_details.method.lstrip("/")
        kind = (
            f"{'stream' if handler.request_streaming else 'unary'}_"
            f"{'stream' if handler.response_streaming else 'unary'}"
        )
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        wrapped: MethodHandler = make(
            _guarded(getattr(handler, kind), method),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return wrapped


def _guarded(behaviour: Behaviour, method: str) -> Behaviour:
    if inspect.isasyncgenfunction(behaviour):

        async def generate(request: Any, context: ServicerContext) -> AsyncIterator[Any]:
            call = _Call(method, context)
            try:
                async for response in behaviour(request, context):
                    yield response
            except BaseException as error:  # noqa: BLE001 - mapped or raised again
                await call.fail(error)
            finally:
                call.end()

        return generate

    async def answer(request: Any, context: ServicerContext) -> Any:
        call = _Call(method, context)
        try:
            return await behaviour(request, context)
        except BaseException as error:  # noqa: BLE001 - mapped or raised again
            await call.fail(error)
        finally:
            call.end()

    return answer


class _Call:
    """One call from its start to its end."""

    def __init__(self, method: str, context: ServicerContext) -> None:
        metadata = {k: v for k, v in context.invocation_metadata() or () if isinstance(v, str)}
        self.id = metadata.get("x-request-id") or uuid.uuid4().hex
        self._method = method
        self._context = context
        self._started = time.perf_counter()
        self._code = grpc.StatusCode.OK
        self._span = tracer(__name__).start_span(
            method, context=propagate.extract(metadata), kind=trace.SpanKind.SERVER
        )
        # Never detached: gRPC runs each call in a context of its own.
        trace_context.attach(trace.set_span_in_context(self._span))
        structlog.contextvars.bind_contextvars(rpc=method, call_id=self.id)

    async def fail(self, error: BaseException) -> None:
        """Ends the call with the error's status; never returns."""
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._code = grpc.StatusCode.CANCELLED
            raise error
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if isinstance(error, PenstockError):
            status = status_of(error, call_id=self.id)
        else:
            log.error("call failed", exc_info=error)
            self._span.record_exception(error)
            hidden = PenstockError(
                f"the call failed inside; its id in the logs is {self.id}",
                code=Code.ERROR_CODE_INTERNAL,
            )
            status = status_of(hidden, call_id=self.id)
        await self._context.abort_with_status(rpc_status.to_status(status))

    def end(self) -> None:
        code = self._code
        if code is grpc.StatusCode.OK:
            code = _status_set(self._context)
        self._span.set_attribute("rpc.grpc.status_code", code.value[0])
        self._span.end()
        RPC_SECONDS.labels(self._method, code.name).observe(time.perf_counter() - self._started)


def _status_set(context: ServicerContext) -> grpc.StatusCode:
    # A handler sets its own by abort or set_code; grpc.aio keeps the number, and 0 is none.
    number: Any = context.code()
    for code in grpc.StatusCode:
        if number is code or number == code.value[0]:
            return code
    return grpc.StatusCode.OK


def _with_trace(details: Any) -> Any:
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    for name, value in carrier.items():
        metadata.add(name, value)
    return details._replace(metadata=metadata)


class TraceUnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    """Sends the current trace context with calls that have one answer."""

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """See `grpc.aio.UnaryUnaryClientInterceptor`."""
        return await continuation(_with_trace(details), request)


class TraceUnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    """Sends the current trace context with calls that have many answers.

    Calls that stream both ways carry the context of each piece of work in their messages.
    """

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        """See `grpc.aio.UnaryStreamClientInterceptor`."""
        return await continuation(_with_trace(details), request)
