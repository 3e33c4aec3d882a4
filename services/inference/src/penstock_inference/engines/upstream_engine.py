"""Hosted models: any OpenAI-compatible HTTP server behind the engine protocol."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import logging
import os
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any

import httpx

from penstock.errors import PenstockError, Unavailable
from penstock.telemetry import logger
from penstock_inference import metrics
from penstock_inference.engines.errors import AdapterUnusable, EngineUnusable
from penstock_inference.engines.generation import Adapter, Completion, Delta, Generation, Message
from penstock_inference.engines.models import ModelsError, UpstreamModel
from penstock_inference.engines.rates import RateLimits
from penstock_inference.engines.upstream_errors import Refusal, refusal_of
from penstock_inference.engines.upstream_wire import (
    Answer,
    Events,
    estimated_prompt_tokens,
    parsed,
    request_of,
)

__all__ = ["UpstreamEngine"]

log = logger(__name__)

CHECK_S = 10.0
FRESH_S = 60.0  # an answer so lately says more than a check
MAX_ANSWER_BYTES = 32 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024

_PROBE = Generation(
    request_id="",
    messages=(Message("user", "ready?"),),
    prompt="",
    passages=(),
    max_tokens=1,
    temperature=0.0,
    top_p=1.0,
    top_k=0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    stop=(),
    seed=0,
    schema=None,
    priority=0,
    stream=False,
)

OnEvent = Callable[[Delta | Completion | Exception], None]
# What a body that is JSON, but no answer, makes of itself.
_NO_ANSWER = (KeyError, IndexError, TypeError, ValueError, AttributeError)


class UpstreamEngine:
    """Asks a server elsewhere, within its limits and ours.

    An attempt that fails before any text came is made again where that may help; afterwards the
    request fails, and may be sent again. Cancelling closes the connection.

    Args:
        model: The declared model.
        draw: Numbers in [0, 1), for the jitter of waits.
    """

    def __init__(self, model: UpstreamModel, draw: Callable[[], float] = random.random) -> None:
        self._model = model
        self._draw = draw
        share = model.replicas.max  # each replica keeps to its part
        self._limits = _Gate(
            RateLimits(
                model.requests_per_minute and model.requests_per_minute / share,
                model.tokens_per_minute and model.tokens_per_minute / share,
            )
        )
        self._free = asyncio.Semaphore(model.max_running)
        self._runs: dict[str, asyncio.Task[Completion]] = {}
        self._client: httpx.AsyncClient | None = None
        self._adapters: set[str] = set()
        self._answered_at = float("-inf")

    @property
    def slots(self) -> int:
        """See `Engine`."""
        return self._model.max_running

    async def start(self) -> None:
        """See `Engine`. Waits for as long as the upstream cannot be reached."""
        for name in ("httpx", "httpcore"):  # they log an address per request
            logging.getLogger(name).setLevel(logging.WARNING)
        model = self._model
        self._client = httpx.AsyncClient(
            base_url=model.base_url,
            headers=self._headers(),
            timeout=httpx.Timeout(model.idle_s, connect=model.connect_s, pool=None),
            limits=httpx.Limits(max_connections=model.max_running + 1),
        )
        wait_s = 1.0
        while not await self._reach():
            log.warning("upstream cannot be reached", model=model.name, again_in_s=wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, 30.0)
        log.info("upstream answers", model=model.name, base_url=model.base_url)

    async def generate(self, generation: Generation) -> AsyncIterator[Delta | Completion]:
        """See `Engine`."""
        events: asyncio.Queue[Delta | Completion | Exception] = asyncio.Queue()
        self.begin(generation, events.put_nowait)
        try:
            while True:
                event = await events.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, Completion):
                    return
        finally:
            self.cancel(generation.request_id)

    def begin(self, generation: Generation, on_event: OnEvent) -> None:
        """See `DirectEngine`."""
        answer = Answer(estimated_prompt_tokens(generation))
        task = asyncio.create_task(self._run(generation, answer, on_event))
        self._runs[generation.request_id] = task

        def ended(task: asyncio.Task[Completion]) -> None:
            # Here and not in the task: one that is cancelled at once never runs.
            self._runs.pop(generation.request_id, None)
            if task.cancelled():
                on_event(answer.cancelled())
            else:
                error = task.exception()
                on_event(error if isinstance(error, Exception) else task.result())

        task.add_done_callback(ended)

    def cancel(self, request_id: str) -> None:
        """See `Engine`."""
        task = self._runs.get(request_id)
        if task is not None:
            task.cancel()

    @property
    def adapters(self) -> Collection[str]:
        """See `AdapterHost`."""
        return self._adapters

    async def load_adapter(self, adapter: Adapter) -> None:
        """See `AdapterHost`: the upstream has those that are declared, so it is only probed."""
        name = adapter.name
        if name in self._adapters:
            return
        if name not in self._model.adapters:
            raise AdapterUnusable(
                f"{name} is not among the adapters of the hosted model {self._model.name}: "
                "declare it there with its model id at the upstream"
            )
        probe = dataclasses.replace(_PROBE, request_id=f"probe-{uuid.uuid4().hex}", adapter=name)
        try:
            async for _ in self.generate(probe):
                pass
        except PenstockError as error:
            raise AdapterUnusable(f"{name} does not answer: {error.message}") from error
        self._adapters.add(name)

    async def unload_adapter(self, name: str) -> None:
        """See `AdapterHost`: the upstream keeps it."""
        self._adapters.discard(name)

    async def check(self) -> None:
        """See `Engine`: fails where the upstream refuses us, not where it is away for a while.

        A new replica could not reach it either, and this one would take its work along.
        """
        if time.monotonic() - self._answered_at > FRESH_S and not await self._reach():
            log.warning("upstream cannot be reached", model=self._model.name)

    async def stop(self) -> None:
        """See `Engine`."""
        for task in list(self._runs.values()):
            task.cancel()
        if self._client is not None:
            await self._client.aclose()

    def _headers(self) -> dict[str, str]:
        try:
            key = self._model.api_key(os.environ)
        except ModelsError as error:
            raise EngineUnusable(f"{self._model.name}: {error}") from None
        return {"authorization": f"Bearer {key.get_secret_value()}"} if key else {}

    async def _reach(self) -> bool:
        """Whether the upstream answers; reads the key anew, which may have been changed."""
        client = self._connected()
        client.headers.update(self._headers())
        try:
            async with asyncio.timeout(CHECK_S):
                response = await client.get("/models")
        except (httpx.HTTPError, TimeoutError):
            return False
        if response.status_code == 401:  # 403 may only mean that a key may not list models
            raise EngineUnusable(
                f"the upstream of {self._model.name} refuses the key (HTTP 401): "
                "set a valid one where api_key_env or api_key_file says"
            )
        # Not every server lists its models: that it answers is enough.
        return response.status_code < 500

    async def _run(self, generation: Generation, answer: Answer, on_event: OnEvent) -> Completion:
        path, body = request_of(generation, self._model)
        reserved = estimated_prompt_tokens(generation) + generation.max_tokens
        async with self._free:
            for attempt in range(self._model.retries + 1):
                refusal: Refusal | None = None
                await self._limits.enter(reserved)
                try:
                    await self._attempt(path, body, answer, on_event)
                except Refusal as caught:
                    refusal = caught
                finally:
                    self._limits.settle(reserved, answer.used_tokens)
                if refusal is None:
                    metrics.UPSTREAM_ATTEMPTS.labels("answered").inc()
                    self._answered_at = time.monotonic()
                    return answer.completion()
                outcome = "failed" if refusal.again else "refused"
                metrics.UPSTREAM_ATTEMPTS.labels(outcome).inc()
                await self._back_off(refusal, attempt, answer)
        raise AssertionError("the last attempt returns or raises")

    async def _back_off(self, refusal: Refusal, attempt: int, answer: Answer) -> None:
        """Waits before the next attempt.

        Raises:
            PenstockError: There is none to make.
        """
        model = self._model
        wait_s = min(model.retry_s * 2**attempt, model.retry_max_s)
        # Half of it at random: what failed together does not come again together.
        wait_s *= (1 + self._draw()) / 2
        if refusal.after_s is not None:
            wait_s = refusal.after_s * (1 + self._draw() / 10)
        if refusal.limited:
            self._limits.close(min(wait_s, model.retry_max_s))
        if (
            not refusal.again
            or answer.has_text
            or attempt == model.retries
            or (refusal.after_s or 0) > model.retry_max_s
        ):
            raise refusal.error
        log.info("asking again", model=model.name, reason=refusal.error.message, wait_s=wait_s)
        answer.begin_again()
        await asyncio.sleep(wait_s)

    async def _attempt(
        self, path: str, body: Mapping[str, Any], answer: Answer, on_event: OnEvent
    ) -> None:
        """Asks once.

        Raises:
            Refusal: It was not answered.
        """
        name, started = self._model.name, time.monotonic()
        # Without a stream nothing comes until all is done.
        idle_s = self._model.idle_s if body["stream"] else self._model.timeout_s
        timeout = httpx.Timeout(idle_s, connect=self._model.connect_s, pool=None)
        try:
            async with (
                asyncio.timeout(self._model.timeout_s),
                self._connected().stream("POST", path, json=body, timeout=timeout) as response,
            ):
                if response.status_code != 200:
                    raise await self._refusal(response)
                if body["stream"]:
                    await self._read_stream(response, answer, on_event, started)
                else:
                    answer.add_whole(parsed(await _body(response, MAX_ANSWER_BYTES)))
                    answer.first_token_s = time.monotonic() - started
        except (httpx.TimeoutException, TimeoutError):
            raise _lost(f"the upstream of {name} did not answer in time") from None
        except httpx.HTTPError as error:
            # Its text may hold more than the kind of fault.
            reason = f"the connection to the upstream of {name} failed ({type(error).__name__})"
            raise _lost(reason) from None
        except PenstockError as error:
            raise Refusal(error, again=True) from None
        except _NO_ANSWER as error:
            raise _lost(f"the upstream of {name} sent no answer ({type(error).__name__})") from None

    async def _read_stream(
        self, response: httpx.Response, answer: Answer, on_event: OnEvent, started: float
    ) -> None:
        events, received = Events(), 0
        async for piece in response.aiter_bytes():
            received += len(piece)
            if received > MAX_ANSWER_BYTES:
                raise Unavailable(f"the upstream of {self._model.name} sent too long an answer")
            for data in events.feed(piece):
                if data == "[DONE]":
                    answer.end()
                    return
                chunk = parsed(data)
                if chunk.get("error"):
                    raise self._failure(_status_of(chunk["error"]), chunk, response.headers)
                text, tokens = answer.add_chunk(chunk)
                if tokens and not answer.first_token_s:
                    answer.first_token_s = time.monotonic() - started
                if text:
                    on_event(Delta(text, tokens))
        if not answer.finished:
            raise Unavailable(f"the upstream of {self._model.name} broke its answer off")

    async def _refusal(self, response: httpx.Response) -> Refusal:
        body: Mapping[str, Any] = {}
        with contextlib.suppress(PenstockError):
            body = parsed(await _body(response, MAX_ERROR_BYTES))
        return self._failure(response.status_code, body, response.headers)

    def _failure(self, status: int, body: Any, headers: Mapping[str, str]) -> Refusal:
        refusal = refusal_of(self._model.name, status, body, headers, dt.datetime.now(dt.UTC))
        if status == 401:
            self._answered_at = float("-inf")  # the next check looks, with the key as it is then
        return refusal

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            raise EngineUnusable(f"{self._model.name} was not started")
        return self._client


class _Gate:
    """Lets requests through in the order they came, as the limits allow."""

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    async def enter(self, tokens: float) -> None:
        """Waits for room for so many tokens, and takes it."""
        async with self._turn:
            while (wait_s := self._limits.wait_s(tokens, time.monotonic())) > 0:
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._changed.wait()
            self._limits.take(tokens, time.monotonic())

    def settle(self, taken: float, used: float) -> None:
        """See `RateLimits.settle`."""
        self._limits.settle(taken, used, time.monotonic())
        self._changed.set()

    def close(self, for_s: float) -> None:
        """See `RateLimits.close`."""
        self._limits.close(for_s, time.monotonic())


def _lost(reason: str) -> Refusal:
    return Refusal(Unavailable(f"{reason}: try again later"), again=True)


def _status_of(error: Any) -> int:
    """The HTTP status of an error within a stream; 500 where it names none."""
    code = error.get("code") if isinstance(error, Mapping) else None
    return code if isinstance(code, int) and 400 <= code < 600 else 500


async def _body(response: httpx.Response, limit: int) -> bytes:
    """The body.

    Raises:
        Unavailable: It is longer than the limit.
    """
    received = bytearray()
    async for piece in response.aiter_bytes():
        received += piece
        if len(received) > limit:
            raise Unavailable("the upstream sent too long an answer")
    return bytes(received)
