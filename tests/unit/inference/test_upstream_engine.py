"""Hosted models, asked over real HTTP of a server that answers well or badly as it is told."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from penstock.errors import Code, InvalidRequest, PenstockError, Unavailable
from penstock_inference.engines.errors import AdapterUnusable, EngineUnusable
from penstock_inference.engines.generation import (
    Adapter,
    AdapterHost,
    Completion,
    Delta,
    DirectEngine,
    Finish,
    Generation,
    Message,
    Passage,
)
from penstock_inference.engines.models import UpstreamModel
from penstock_inference.engines.upstream_engine import UpstreamEngine

KEY = "sk-very-secret"
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 4},
}
WORK = Generation(
    request_id="r/1",
    messages=(Message("user", "hello"),),
    prompt="",
    passages=(),
    max_tokens=16,
    temperature=0.7,
    top_p=0.9,
    top_k=0,
    presence_penalty=0.0,
    frequency_penalty=0.5,
    stop=("END",),
    seed=11,
    schema=None,
    priority=0,
    stream=False,
)
STREAM = dataclasses.replace(WORK, stream=True)

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Upstream:
    """A server on loopback: `answers` are used up one per request, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [whole()]
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.models_status = 200
        self.keys: set[str | None] = set()
        self.gone = asyncio.Event()  # a client closed its connection before the end
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/{rest:.*}", self._post)
        self._runner = web.AppRunner(app, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _models(self, request: web.Request) -> web.StreamResponse:
        self.keys.add(request.headers.get("authorization"))
        return web.json_response({"data": []}, status=self.models_status)

    async def _post(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.paths.append(request.path)
        self.keys.add(request.headers.get("authorization"))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        try:
            return await answer(request)
        except asyncio.CancelledError:
            self.gone.set()
            raise


def whole(finish: str = "stop", usage: Any = USAGE, text: str = "one two three") -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        drawn = [{"token": "t", "logprob": -float(n)} for n in (1, 3, 2)]
        chat = request.path.endswith("/chat/completions")
        choice = (
            {"message": {"content": text}, "logprobs": {"content": drawn}}
            if chat
            else {"text": text, "logprobs": {"token_logprobs": [-1.0, -3.0, -2.0]}}
        )
        return web.json_response(
            {"choices": [{"index": 0, "finish_reason": finish, **choice}], "usage": usage}
        )

    return answer


def refuses(status: int, error: Any = None, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response({"error": error or {}}, status=status, headers=names)

    return answer


async def hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError("nobody waits for so long")


def chunk(text: str | None = None, *, finish: str | None = None, **rest: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], **rest}


CHUNKS = (chunk(""), chunk("one"), chunk(" two"), chunk(" three", finish="stop"))
LAST = {"choices": [], "usage": USAGE}


def streams(*chunks: Any, done: bool = True, then: str = "", split: bool = False) -> Answer:
    """Events; then the end, a cut connection or silence."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in chunks:
            data = f": still here\r\ndata: {json.dumps(event)}\r\n\r\n".encode()
            pieces = [data[:9], data[9:]] if split else [data]
            for piece in pieces:
                await response.write(piece)
                await asyncio.sleep(0.001)
        if then == "cut":
            assert request.transport is not None
            request.transport.abort()
        elif then == "hang":
            await asyncio.sleep(60)
        elif done:
            await response.write(b"data: [DONE]\n\n")
        return response

    return answer


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    server = Upstream()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def engine_of(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Awaitable[UpstreamEngine]]]:
    made: list[UpstreamEngine] = []
    monkeypatch.setenv("UPSTREAM_KEY", KEY)

    async def make(**fields: Any) -> UpstreamEngine:
        declared = {
            "name": "hosted",
            "base_url": upstream.url,
            "model": "large-2",
            "api_key_env": "UPSTREAM_KEY",
            "retry_s": 0.01,
            **fields,
        }
        engine = UpstreamEngine(UpstreamModel(**declared), draw=lambda: 0.5)
        made.append(engine)
        await engine.start()
        return engine

    yield make
    for engine in made:
        await engine.stop()


EngineOf = Callable[..., Awaitable[UpstreamEngine]]


async def answer_of(engine: UpstreamEngine, work: Generation) -> tuple[list[Delta], Completion]:
    events = [event async for event in engine.generate(work)]
    *deltas, end = events
    assert isinstance(end, Completion)
    return [delta for delta in deltas if isinstance(delta, Delta)], end


async def test_it_is_an_engine_that_needs_no_task_and_hosts_adapters(engine_of: EngineOf) -> None:
    engine = await engine_of(max_running=3)
    assert isinstance(engine, DirectEngine)
    assert isinstance(engine, AdapterHost)
    assert engine.slots == 3


async def test_a_chat_is_asked_and_answered(upstream: Upstream, engine_of: EngineOf) -> None:
    work = dataclasses.replace(
        WORK,
        passages=(Passage("doc", "facts"),),
        system_prompt="Be brief.",
        schema={"type": "object"},
    )
    deltas, end = await answer_of(await engine_of(), work)
    assert deltas == []
    assert upstream.paths == ["/v1/chat/completions"]
    assert upstream.keys == {f"Bearer {KEY}"}
    assert upstream.bodies == [
        {
            "model": "large-2",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "system", "content": "[doc] facts"},
                {"role": "user", "content": "hello"},
            ],
            "max_tokens": 16,
            "temperature": 0.7,
            "top_p": 0.9,
            "frequency_penalty": 0.5,
            "stop": ["END"],
            "seed": 11,
            "stream": False,
            "logprobs": True,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
            },
        }
    ]
    assert end.first_token_s > 0
    assert dataclasses.replace(end, first_token_s=0) == Completion(
        text="one two three",
        finish=Finish.STOP,
        prompt_tokens=9,
        completion_tokens=3,
        cached_prompt_tokens=4,
        log_probabilities=[-1.0, -3.0, -2.0],
        first_token_s=0,
    )


async def test_a_prompt_goes_to_completions(upstream: Upstream, engine_of: EngineOf) -> None:
    work = dataclasses.replace(WORK, messages=(), prompt="go on")
    _, end = await answer_of(await engine_of(), work)
    assert upstream.paths == ["/v1/completions"]
    assert (upstream.bodies[0]["prompt"], upstream.bodies[0]["logprobs"]) == ("go on", 1)
    assert (end.text, end.log_probabilities) == ("one two three", [-1.0, -3.0, -2.0])
    _, end = await answer_of(await engine_of(prompts="chat"), work)
    assert upstream.paths[1] == "/v1/chat/completions"
    assert upstream.bodies[1]["messages"] == [{"role": "user", "content": "go on"}]


async def test_a_stream_is_passed_on_as_it_comes(upstream: Upstream, engine_of: EngineOf) -> None:
    upstream.answers = [streams(*CHUNKS, LAST, split=True)]
    deltas, end = await answer_of(await engine_of(), STREAM)
    assert upstream.bodies[0]["stream_options"] == {"include_usage": True}
    assert deltas == [Delta("one", 1), Delta(" two", 1), Delta(" three", 1)]
    assert (end.text, end.prompt_tokens, end.completion_tokens) == ("one two three", 9, 3)
    assert end.finish == Finish.STOP


@pytest.mark.parametrize(
    ("said", "finish"),
    [("length", Finish.LENGTH), ("max_tokens", Finish.LENGTH), ("eos_token", Finish.STOP)],
)
async def test_reasons_to_finish(
    upstream: Upstream, engine_of: EngineOf, said: str, finish: Finish
) -> None:
    upstream.answers = [whole(finish=said)]
    assert (await answer_of(await engine_of(), WORK))[1].finish == finish


async def test_vllm_knows_more(upstream: Upstream, engine_of: EngineOf) -> None:
    work = dataclasses.replace(STREAM, top_k=5, cache_salt="tenant", temperature=0.0)
    told = [chunk("on", usage={"prompt_tokens": 9, "completion_tokens": 2}), *CHUNKS[-1:], LAST]
    upstream.answers = [streams(*told)]
    deltas, _ = await answer_of(await engine_of(dialect="vllm"), work)
    body = upstream.bodies[0]
    assert (body["top_k"], body["cache_salt"], "seed" in body) == (5, "tenant", False)
    assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert deltas[0] == Delta("on", 2)
    with pytest.raises(InvalidRequest, match="top_k") as raised:
        await answer_of(await engine_of(), work)
    assert raised.value.field == "sampling.top_k"


async def test_what_a_server_refuses_is_left_out(upstream: Upstream, engine_of: EngineOf) -> None:
    engine = await engine_of(
        omit=["temperature", "logprobs", "seed"], max_tokens_field="max_completion_tokens"
    )
    await answer_of(engine, WORK)
    body = upstream.bodies[0]
    assert body.keys().isdisjoint({"temperature", "logprobs", "seed", "max_tokens"})
    assert body["max_completion_tokens"] == 16


async def test_adapters_have_names_of_their_own_there(
    upstream: Upstream, engine_of: EngineOf
) -> None:
    engine = await engine_of(adapters={"triage-v2": "lora-2", "triage-v4": "lora-4"})
    assert list(engine.adapters) == []
    await engine.load_adapter(Adapter("triage-v2", Path(), ""))
    assert list(engine.adapters) == ["triage-v2"]
    assert upstream.bodies[-1]["max_tokens"] == 1  # a probe
    await answer_of(engine, dataclasses.replace(WORK, adapter="triage-v2"))
    assert upstream.bodies[-1]["model"] == "lora-2"
    with pytest.raises(Unavailable, match="triage-v3"):
        await answer_of(engine, dataclasses.replace(WORK, adapter="triage-v3"))
    with pytest.raises(AdapterUnusable, match="declare it"):
        await engine.load_adapter(Adapter("triage-v3", Path(), ""))
    upstream.answers = [refuses(404)]
    with pytest.raises(AdapterUnusable, match="does not answer"):
        await engine.load_adapter(Adapter("triage-v4", Path(), ""))
    await engine.unload_adapter("triage-v2")
    assert list(engine.adapters) == []


@pytest.mark.parametrize(
    ("answer", "code", "field"),
    [
        (
            refuses(400, {"message": "no", "param": "temperature"}),
            Code.ERROR_CODE_INVALID_ARGUMENT,
            "sampling.temperature",
        ),
        (
            refuses(400, {"message": "m", "code": "context_length_exceeded", "param": "messages"}),
            Code.ERROR_CODE_CONTEXT_LENGTH_EXCEEDED,
            "messages",
        ),
        (
            refuses(400, {"message": "This model's maximum context length is 512 tokens."}),
            Code.ERROR_CODE_CONTEXT_LENGTH_EXCEEDED,
            "messages",
        ),
        (refuses(404, {"message": "no model"}), Code.ERROR_CODE_UNKNOWN_MODEL, "model"),
        (refuses(401, {"message": f"bad key {KEY}"}), Code.ERROR_CODE_UNAVAILABLE, ""),
        (refuses(429, {"code": "insufficient_quota"}), Code.ERROR_CODE_UNAVAILABLE, ""),
        (refuses(302), Code.ERROR_CODE_UNAVAILABLE, ""),
        (whole(finish="content_filter"), Code.ERROR_CODE_INVALID_ARGUMENT, ""),
        (whole(finish="tool_calls"), Code.ERROR_CODE_UNAVAILABLE, ""),
    ],
)
async def test_what_would_fail_again_is_not_asked_again(
    upstream: Upstream,
    engine_of: EngineOf,
    answer: Answer,
    code: Code.ValueType,
    field: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    upstream.answers = [answer]
    with pytest.raises(PenstockError) as raised:
        await answer_of(await engine_of(), WORK)
    error = raised.value
    assert (error.code, error.field, error.retryable) == (code, field, False)
    assert len(upstream.bodies) == 1
    assert KEY not in str(error) + caplog.text


@pytest.mark.parametrize("work", [WORK, STREAM])
@pytest.mark.parametrize(
    "fault",
    [
        refuses(500),
        refuses(503, {"message": "loading"}),
        refuses(429, retry_after="0.02"),
        refuses(429, retry_after="Thu, 01 Jan 1970 00:00:00 GMT"),
        streams(then="cut"),
        streams(CHUNKS[0], then="cut"),
        streams(CHUNKS[0], done=False),
        streams({"error": {"code": 500, "message": "crashed"}}),
        streams(CHUNKS[0], ["no object"]),
        hangs,
    ],
)
async def test_a_fault_before_any_text_is_asked_again(
    upstream: Upstream, engine_of: EngineOf, work: Generation, fault: Answer
) -> None:
    good = streams(*CHUNKS, LAST) if work.stream else whole()
    upstream.answers = [fault, fault, good]
    engine = await engine_of(timeout_s=0.3)
    deltas, end = await answer_of(engine, work)
    assert len(upstream.bodies) == 3
    assert (end.text, end.completion_tokens) == ("one two three", 3)
    assert "".join(delta.text for delta in deltas) == ("one two three" if work.stream else "")


@pytest.mark.parametrize(
    "fault", [streams(*CHUNKS[:3], then="cut"), streams(*CHUNKS[:3], then="hang")]
)
async def test_a_fault_after_text_ends_the_request(
    upstream: Upstream, engine_of: EngineOf, fault: Answer
) -> None:
    upstream.answers = [fault]
    engine = await engine_of(idle_s=0.2)
    events: asyncio.Queue[Any] = asyncio.Queue()
    engine.begin(STREAM, events.put_nowait)
    said = [await asyncio.wait_for(events.get(), 5) for _ in range(3)]
    assert said[:2] == [Delta("one", 1), Delta(" two", 1)]
    assert isinstance(said[2], Unavailable)
    assert said[2].retryable
    assert len(upstream.bodies) == 1


async def test_attempts_are_counted_out(upstream: Upstream, engine_of: EngineOf) -> None:
    upstream.answers = [refuses(500)]
    with pytest.raises(Unavailable, match="HTTP 500") as raised:
        await answer_of(await engine_of(retries=2), WORK)
    assert raised.value.retryable
    assert len(upstream.bodies) == 3


async def test_a_wait_beyond_the_bound_is_not_waited(
    upstream: Upstream, engine_of: EngineOf
) -> None:
    upstream.answers = [refuses(429, retry_after="3600")]
    with pytest.raises(Unavailable) as raised:
        await answer_of(await engine_of(retry_max_s=0.05), WORK)
    assert raised.value.code == Code.ERROR_CODE_OVERLOADED
    assert len(upstream.bodies) == 1


async def test_all_wait_when_the_upstream_says_so(upstream: Upstream, engine_of: EngineOf) -> None:
    upstream.answers = [refuses(429, retry_after_ms="300"), whole()]
    engine = await engine_of()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    first = asyncio.create_task(answer_of(engine, WORK))
    while not upstream.bodies:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    await answer_of(engine, dataclasses.replace(WORK, request_id="r/2"))
    assert loop.time() - begun > 0.3
    await first
    assert len(upstream.bodies) == 3


async def test_no_more_at_a_time_than_declared(upstream: Upstream, engine_of: EngineOf) -> None:
    at_once, most = 0, 0

    async def slow(request: web.Request) -> web.StreamResponse:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.05)
        at_once -= 1
        return await whole()(request)

    upstream.answers = [slow]
    engine = await engine_of(max_running=2)
    works = [dataclasses.replace(WORK, request_id=f"r/{n}") for n in range(6)]
    await asyncio.gather(*(answer_of(engine, work) for work in works))
    assert most == 2


async def test_the_own_limit_holds(upstream: Upstream, engine_of: EngineOf) -> None:
    # 1 at once, then one each 0.1 s; two replicas share what is declared.
    engine = await engine_of(requests_per_minute=1200, replicas=2)
    works = [dataclasses.replace(WORK, request_id=f"r/{n}") for n in range(103)]
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await asyncio.gather(*(answer_of(engine, work) for work in works))
    assert loop.time() - begun >= 0.29
    assert len(upstream.bodies) == 103


@pytest.mark.parametrize(
    ("sent", "used"),
    [
        ((), (0, 0)),  # nothing came: nothing is counted
        (CHUNKS[:3], (2, 2)),  # nothing told: 5 bytes of prompt, two events with text
        (
            (chunk("one two", usage={"prompt_tokens": 9, "completion_tokens": 2}),),
            (9, 2),
        ),
    ],
)
async def test_cancelled_work_says_what_was_seen_of_it(
    upstream: Upstream,
    engine_of: EngineOf,
    sent: tuple[dict[str, Any], ...],
    used: tuple[int, int],
) -> None:
    upstream.answers = [streams(*sent, then="hang") if sent else hangs]
    engine = await engine_of()
    events: asyncio.Queue[Any] = asyncio.Queue()
    engine.begin(STREAM, events.put_nowait)
    for _ in [event for event in sent if event["choices"][0]["delta"]["content"]]:
        assert isinstance(await asyncio.wait_for(events.get(), 5), Delta)
    while not upstream.bodies:
        await asyncio.sleep(0.005)
    engine.cancel(STREAM.request_id)
    end = await asyncio.wait_for(events.get(), 1)
    assert (end.finish, end.prompt_tokens, end.completion_tokens) == (Finish.CANCELLED, *used)
    await asyncio.wait_for(upstream.gone.wait(), 1)  # and the upstream may stop


async def test_work_that_is_cancelled_at_once_ends_too(engine_of: EngineOf) -> None:
    engine = await engine_of()
    events: asyncio.Queue[Any] = asyncio.Queue()
    engine.begin(WORK, events.put_nowait)
    engine.cancel(WORK.request_id)
    assert (await asyncio.wait_for(events.get(), 1)).finish == Finish.CANCELLED
    engine.cancel(WORK.request_id)


async def test_without_usage_tokens_are_counted(upstream: Upstream, engine_of: EngineOf) -> None:
    engine = await engine_of(omit=["stream_options", "logprobs"])
    upstream.answers = [streams(*CHUNKS), whole(usage=None)]
    _, end = await answer_of(engine, STREAM)
    assert (end.prompt_tokens, end.completion_tokens) == (2, 3)
    _, end = await answer_of(engine, WORK)
    assert (end.prompt_tokens, end.completion_tokens) == (2, 3)  # by their log-probabilities


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": -1, "completion_tokens": 2**40}, (2, 3, 0)),
        ({"prompt_tokens": "many", "completion_tokens": float("inf")}, (2, 3, 0)),
        ({"prompt_tokens": 4, "prompt_tokens_details": {"cached_tokens": 9}}, (4, 3, 4)),
        ({"prompt_tokens_details": {"cached_tokens": 9}}, (2, 3, 2)),
        ({"prompt_tokens_details": {"cached_tokens": -9}}, (2, 3, 0)),
    ],
)
async def test_usage_that_cannot_be_is_counted_here(
    upstream: Upstream, engine_of: EngineOf, usage: dict[str, Any], counts: tuple[int, int, int]
) -> None:
    engine = await engine_of()
    upstream.answers = [whole(usage=usage)]
    _, end = await answer_of(engine, WORK)
    assert (end.prompt_tokens, end.completion_tokens, end.cached_prompt_tokens) == counts


async def test_a_wrong_key_is_said_at_the_start_and_by_checks(
    upstream: Upstream, engine_of: EngineOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await engine_of()
    await engine.check()
    upstream.models_status = 401
    with pytest.raises(EngineUnusable, match="refuses the key") as raised:
        await engine_of()
    assert KEY not in str(raised.value)
    with pytest.raises(EngineUnusable):
        await engine.check()
    upstream.models_status = 500  # away for a while: a new replica could not reach it either
    await engine.check()
    monkeypatch.setenv("UPSTREAM_KEY", "sk-another")
    upstream.models_status = 200
    await engine.check()
    await answer_of(engine, WORK)
    assert f"Bearer {KEY}" in upstream.keys
    assert "Bearer sk-another" in upstream.keys
    monkeypatch.delenv("UPSTREAM_KEY")
    with pytest.raises(EngineUnusable, match="variable UPSTREAM_KEY holds no key"):
        await engine_of()


async def test_the_start_waits_for_an_upstream_that_is_away(
    upstream: Upstream, engine_of: EngineOf
) -> None:
    upstream.models_status = 503
    starting = asyncio.create_task(engine_of())
    while not upstream.keys:
        await asyncio.sleep(0.005)
    assert not starting.done()
    upstream.models_status = 200
    engine = await asyncio.wait_for(starting, 5)
    assert await answer_of(engine, WORK)
