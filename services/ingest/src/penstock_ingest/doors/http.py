"""The OpenAI-compatible HTTP door: wire to desk and back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from opentelemetry import context as trace_context
from opentelemetry import propagate, trace
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from penstock.errors import Code, InvalidRequest, PenstockError
from penstock.telemetry import logger, tracer
from penstock.v1 import response_pb2
from penstock_ingest import metrics
from penstock_ingest.admission.pipeline import DEFAULT_TENANT
from penstock_ingest.desk import Desk, answered
from penstock_ingest.doors.feedback_bodies import feedback_of
from penstock_ingest.doors.openai_requests import Asked, chat_request, completion_request
from penstock_ingest.doors.openai_responses import (
    DONE,
    Kind,
    Shapes,
    error_body,
    event,
    http_status,
    model_body,
)
from penstock_ingest.errors import TooLarge
from penstock_ingest.waiting.waiters import Caller, Piece

__all__ = ["make_http"]

log = logger(__name__)

MAX_TIMEOUT_S = 86_400.0
TENANT_HEADER = "x-penstock-tenant"
# Half of a character, perhaps: as JSON escapes it.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
T = TypeVar("T")


def make_http(
    desk: Desk, *, max_request_bytes: int, health: Callable[[], Mapping[str, Any]]
) -> FastAPI:
    """The application, to be served by uvicorn.

    Args:
        desk: Serves the callers.
        max_request_bytes: The largest body; a larger one is refused before it is read whole.
        health: What is known of readiness; see `Readiness.body`.
    """
    app = FastAPI(title="penstock", docs_url=None, redoc_url=None, openapi_url=None)
    door = _Door(desk, max_request_bytes, health)
    app.add_api_route("/v1/chat/completions", door.chat, methods=["POST"])
    app.add_api_route("/v1/completions", door.completions, methods=["POST"])
    app.add_api_route("/v1/requests/{request_id}/cancel", door.cancel, methods=["POST"])
    app.add_api_route("/v1/feedback", door.feedback, methods=["POST"])
    app.add_api_route("/v1/models", door.models, methods=["GET"])
    app.add_api_route("/v1/models/{model:path}", door.model, methods=["GET"])
    app.add_api_route("/health/live", door.live, methods=["GET"])
    app.add_api_route("/health/ready", door.ready, methods=["GET"])
    app.add_api_route("/health/ready/{model:path}", door.model_ready, methods=["GET"])
    app.add_exception_handler(PenstockError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_unforeseen)
    return app


class _Door:
    def __init__(
        self, desk: Desk, max_request_bytes: int, health: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._desk = desk
        self._max_request_bytes = max_request_bytes
        self._health = health

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, "chat", chat_request)

    async def completions(self, request: Request) -> Response:
        return await self._answer(request, "text", completion_request)

    async def models(self) -> Response:
        data = [model_body(route) for route in self._desk.models()]
        return JSONResponse({"object": "list", "data": data})

    async def model(self, model: str) -> Response:
        for route in self._desk.models():
            if route.model == model:
                return JSONResponse(model_body(route))
        raise InvalidRequest(
            f"model {model[:100]!r} is not served",
            code=Code.ERROR_CODE_UNKNOWN_MODEL,
            field="model",
        )

    async def cancel(self, request_id: str, request: Request) -> Response:
        tenant = request.headers.get(TENANT_HEADER) or DEFAULT_TENANT
        await self._desk.cancel(request_id, tenant)
        # Accepted: the response tells whether it came in time.
        return JSONResponse({"id": request_id, "object": "request.cancellation"}, 202)

    async def feedback(self, request: Request) -> Response:
        body = await _body(request, self._max_request_bytes)
        feedback = feedback_of(body, request.headers.get(TENANT_HEADER, ""))
        feedback_id = await self._desk.feedback(feedback)
        return JSONResponse({"id": feedback_id, "object": "feedback"})

    async def live(self) -> Response:
        return JSONResponse({"status": "live"})

    async def ready(self) -> Response:
        body = self._health()
        return JSONResponse(body, 503 if body["status"] == "not ready" else 200)

    async def model_ready(self, model: str) -> Response:
        found = self._health().get("models", {}).get(model)
        if found is None:
            return JSONResponse({"ready": False, "reason": "no such model is probed"}, 404)
        return JSONResponse(found, 200 if found["ready"] else 503)

    async def _answer(
        self, request: Request, kind: Kind, parse: Callable[[dict[str, Any]], Asked]
    ) -> Response:
        span = _join_trace(request)
        try:
            return await self._admit_and_wait(request, kind, parse)
        finally:
            span.end()  # of a stream, when its first text is there

    async def _admit_and_wait(
        self, request: Request, kind: Kind, parse: Callable[[dict[str, Any]], Asked]
    ) -> Response:
        started = time.perf_counter()
        asked = parse(await _body(request, self._max_request_bytes))
        call_left_s = _take_headers(request, asked)
        caller = await self._desk.open(
            asked.request, door="http", stream=asked.stream, call_left_s=call_left_s
        )
        with contextlib.ExitStack() as leaving:
            leaving.enter_context(caller)
            if asked.stream:
                # The status can still say what is wrong until the first text is there.
                first = await _unless_gone(request, caller, caller.next())
                if not isinstance(first, Piece):
                    answered(first)
                leaving.pop_all()
                return _EventStream(caller, first, asked, kind, started)
            response = answered(await _unless_gone(request, caller, caller.response()))
        _count(response, started)
        shapes = Shapes(kind, caller.request_id, response.model, int(time.time()))
        return JSONResponse(shapes.whole(response), headers={"x-request-id": caller.request_id})


class _EventStream(StreamingResponse):
    """Server-sent events of one answer; the caller leaves when it ends, however it ends."""

    def __init__(
        self,
        caller: Caller,
        first: Piece | response_pb2.GenerateResponse,
        asked: Asked,
        kind: Kind,
        started: float,
    ) -> None:
        shapes = Shapes(kind, caller.request_id, caller.model, int(time.time()))
        super().__init__(
            _events(caller, first, shapes, asked, started),
            media_type="text/event-stream",
            headers={"x-request-id": caller.request_id, "cache-control": "no-cache"},
        )
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._caller:
            await super().__call__(scope, receive, send)


async def _events(
    caller: Caller,
    current: Piece | response_pb2.GenerateResponse,
    shapes: Shapes,
    asked: Asked,
    started: float,
) -> AsyncIterator[str]:
    try:
        opening = shapes.first()
        if opening is not None:
            yield event(opening)
        while isinstance(current, Piece):
            yield event(shapes.piece(current.text))
            current = await caller.next()
        _count(current, started)
        response = answered(current)
        yield event(shapes.last(response))
        if asked.include_usage:
            yield event(shapes.usage(response))
    except PenstockError as error:
        # The status is sent: the client reads an error from an event.
        yield event(error_body(error))
        return
    yield DONE


async def _unless_gone(request: Request, caller: Caller, waiting: Coroutine[Any, Any, T]) -> T:
    """What is waited for; the waiting ends when the client hangs up."""
    gone = asyncio.create_task(_disconnected(request, caller))
    try:
        return await waiting
    finally:
        gone.cancel()


async def _disconnected(request: Request, caller: Caller) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    caller.cancel()


async def _body(request: Request, limit: int) -> dict[str, Any]:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise _too_large(limit)
    try:
        # Strictly: by itself the parser takes other encodings, and halves of characters as bytes.
        parsed = json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant)
        if _SURROGATE.search(body):
            json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            "a text ends or begins with half of a character, a \\u escape from d800 to dfff "
            "without its other half; cut texts between characters",
            code=Code.ERROR_CODE_MALFORMED,
            field="body",
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"the body is not JSON: {error}", code=Code.ERROR_CODE_MALFORMED, field="body"
        ) from None
    if not isinstance(parsed, dict):
        raise InvalidRequest(
            "the body is not a JSON object", code=Code.ERROR_CODE_MALFORMED, field="body"
        )
    return parsed


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than the {limit} bytes that are admitted", field="body")


def _take_headers(request: Request, asked: Asked) -> float | None:
    """Puts into the request what headers say; returns how long the call lasts, if known."""
    headers = request.headers
    asked.request.idempotency_key = headers.get("idempotency-key", "")
    asked.request.tenant = headers.get(TENANT_HEADER, "")
    asked.request.ordering_key = headers.get("x-penstock-ordering-key", "")
    timeout_s = _seconds(headers.get("x-penstock-timeout"))
    if timeout_s is not None:
        if not 0 < timeout_s <= MAX_TIMEOUT_S:
            raise InvalidRequest(
                f"it must be above 0 and at most {MAX_TIMEOUT_S:g} seconds", field="timeout"
            )
        asked.request.timeout.FromMicroseconds(round(timeout_s * 1e6))
    # What the official client waits for the next byte: without a stream, for the answer.
    patience_s = _seconds(headers.get("x-stainless-read-timeout"))
    if asked.stream or patience_s is None or not 0 < patience_s <= MAX_TIMEOUT_S:
        return None
    return patience_s


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return math.nan


def _join_trace(request: Request) -> trace.Span:
    # Never detached: each request is a task with a context of its own.
    span = tracer(__name__).start_span(
        request.url.path,
        context=propagate.extract(dict(request.headers)),
        kind=trace.SpanKind.SERVER,
    )
    trace_context.attach(trace.set_span_in_context(span))
    return span


def _count(response: response_pb2.GenerateResponse, started: float) -> None:
    outcome = response_pb2.Outcome.Name(response.outcome).removeprefix("OUTCOME_").lower()
    metrics.ANSWERS.labels("http", outcome).inc()
    metrics.WAIT_SECONDS.labels("http").observe(time.perf_counter() - started)


async def _on_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, PenstockError):
        raise error
    # The official client repeats some statuses by itself unless it is told not to.
    headers = {
        "x-request-id": uuid.uuid4().hex,
        "x-should-retry": "true" if error.retryable else "false",
    }
    if error.retryable:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s or 1)))
    return JSONResponse(error_body(error), http_status(error), headers)


async def _on_http_error(request: Request, error: Exception) -> Response:
    # Starlette's own: an unknown path or method.
    if not isinstance(error, HTTPException):
        raise error
    body = {
        "message": f"{request.method} {request.url.path}: {error.detail}",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    return JSONResponse({"error": body}, error.status_code, error.headers)


async def _on_unforeseen(request: Request, error: Exception) -> Response:
    call_id = uuid.uuid4().hex
    log.error("call failed", call_id=call_id, path=request.url.path, exc_info=error)
    hidden = PenstockError(f"the call failed inside; its id in the logs is {call_id}")
    return JSONResponse(error_body(hidden), 500, {"x-request-id": call_id})
