"""Two base models side by side: a scripted one here, and a hosted one at a real `vllm serve`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
import yaml

from penstock.errors import Code, PenstockError
from penstock_inference.engines.generation import Completion, Delta, Finish, Generation, Message
from penstock_inference.engines.models import UpstreamModel
from penstock_inference.engines.upstream_engine import UpstreamEngine
from penstock_native.stack import Stack
from tests.e2e.support import TICKET
from tests.e2e.vllm_serve import KEY, MODEL, VllmServe, vllm_serve

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

FIELDS = {"category", "priority", "product"}
WORK = Generation(
    request_id="r/1",
    messages=(Message("user", TICKET),),
    prompt="",
    passages=(),
    max_tokens=64,
    temperature=0.0,
    top_p=1.0,
    top_k=0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    stop=(),
    seed=11,
    schema=None,
    priority=0,
    stream=False,
)
# Its schema keeps the model from ending before max_tokens.
LONG = dataclasses.replace(
    WORK,
    max_tokens=400,
    stream=True,
    schema={"type": "array", "items": {"type": "boolean"}, "minItems": 400},
)
MANY = 32  # so that it takes seconds


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServe]:
    with vllm_serve(tmp_path_factory.mktemp("upstream")) as server:
        yield server


def entry(upstream: VllmServe, **fields: Any) -> dict[str, Any]:
    return {
        "name": "hosted",
        "kind": "upstream",
        "base_url": upstream.base_url,
        "model": MODEL,
        "api_key_env": "HOSTED_KEY",
        **fields,
    }


@pytest_asyncio.fixture
async def engine(
    upstream: VllmServe, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[UpstreamEngine]:
    monkeypatch.setenv("HOSTED_KEY", KEY)
    made = UpstreamEngine(UpstreamModel(**entry(upstream, dialect="vllm")))
    await made.start()
    yield made
    await made.stop()


async def answer_of(engine: UpstreamEngine, work: Generation) -> tuple[list[Delta], Completion]:
    *deltas, end = [event async for event in engine.generate(work)]
    assert isinstance(end, Completion)
    return [delta for delta in deltas if isinstance(delta, Delta)], end


async def test_an_answer_and_a_stream_say_the_same(
    upstream: VllmServe, engine: UpstreamEngine
) -> None:
    before = upstream.tokens()
    _, whole = await answer_of(engine, WORK)
    deltas, streamed = await answer_of(engine, dataclasses.replace(WORK, stream=True))
    after = upstream.tokens()
    assert set(json.loads(whole.text)) == FIELDS
    assert whole.finish == Finish.STOP
    assert streamed.text == whole.text == "".join(delta.text for delta in deltas)
    assert sum(delta.tokens for delta in deltas) <= streamed.completion_tokens
    for end in (whole, streamed):
        assert 2 * end.prompt_tokens == after[0] - before[0]
        assert 2 * end.completion_tokens == after[1] - before[1]
        assert len(end.log_probabilities) == end.completion_tokens
        assert max(end.log_probabilities) <= 0


async def test_bounds_stops_and_schemas_are_kept(engine: UpstreamEngine) -> None:
    _, short = await answer_of(engine, dataclasses.replace(WORK, max_tokens=3))
    assert (short.finish, short.completion_tokens) == (Finish.LENGTH, 3)
    _, stopped = await answer_of(engine, dataclasses.replace(WORK, stop=(":",)))
    assert ":" not in stopped.text
    assert stopped.finish == Finish.STOP
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    _, formed = await answer_of(engine, dataclasses.replace(WORK, schema=schema))
    assert set(json.loads(formed.text)) == {"ok"}


@pytest.mark.parametrize("stream", [False, True])
async def test_too_long_a_prompt_is_the_requests_fault(
    engine: UpstreamEngine, stream: bool
) -> None:
    work = dataclasses.replace(WORK, messages=(Message("user", "word " * 3000),), stream=stream)
    with pytest.raises(PenstockError) as raised:
        await answer_of(engine, work)
    assert raised.value.code == Code.ERROR_CODE_CONTEXT_LENGTH_EXCEEDED
    assert not raised.value.retryable


async def test_a_model_that_is_not_there(
    upstream: VllmServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTED_KEY", KEY)
    engine = UpstreamEngine(UpstreamModel(**entry(upstream, model="nobody")))
    await engine.start()
    with pytest.raises(PenstockError, match="correct `model`") as raised:
        await answer_of(engine, WORK)
    await engine.stop()
    assert raised.value.code == Code.ERROR_CODE_UNKNOWN_MODEL


async def test_cancelled_generations_leave_the_upstream(
    upstream: VllmServe, engine: UpstreamEngine
) -> None:
    before = upstream.tokens()
    events: asyncio.Queue[Any] = asyncio.Queue()
    ids = [f"long/{number}" for number in range(MANY)]
    for name in ids:
        engine.begin(dataclasses.replace(LONG, request_id=name), events.put_nowait)
    for _ in range(3):
        assert isinstance(await asyncio.wait_for(events.get(), 60), Delta)
    for name in ids:
        engine.cancel(name)
    cancelled_at = time.monotonic()
    ends: list[Completion] = []
    while len(ends) < MANY:
        event = await asyncio.wait_for(events.get(), 60)
        if not isinstance(event, Delta):
            ends.append(event)
    # On a busy machine some may have been quicker than their cancellation.
    assert Finish.CANCELLED in {end.finish for end in ends}
    while await asyncio.to_thread(upstream.metric, "vllm:num_requests_running"):
        assert time.monotonic() - cancelled_at < 60
        await asyncio.sleep(0.05)
    prompt, made = (a - b for a, b in zip(upstream.tokens(), before, strict=True))
    # What was on its way when connections closed was made, but never seen.
    assert 3 <= sum(end.completion_tokens for end in ends) <= made < MANY * LONG.max_tokens
    assert 0 < sum(end.prompt_tokens for end in ends) <= prompt


@pytest.fixture(scope="module")
def stack(upstream: VllmServe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("models")
    models = directory / "models.yaml"
    document = {
        "models": [
            {"name": "scripted", "kind": "scripted", "tokens": 4, "cpus": 0.5},
            {"name": "broken", "kind": "vllm", "path": "nowhere", "cpus": 0.5},
            entry(upstream, dialect="vllm"),
        ]
    }
    models.write_text(yaml.safe_dump(document), encoding="utf-8")
    routes = directory / "routes.json"
    routes.write_text(json.dumps([route("own", "scripted"), route("large", "hosted")]))
    env = {
        "PENSTOCK_INFERENCE_MODELS": str(models),
        "PENSTOCK_NATIVE_ROUTES": str(routes),
        "HOSTED_KEY": KEY,
    }
    with Stack.ephemeral(services=("kafka", "ingest", "inference"), env=env) as running:
        yield running


def route(model: str, base_model: str) -> dict[str, Any]:
    champion = {
        "name": f"{model}-base",
        "base_model": base_model,
        "defaults": {"temperature": 0, "max_tokens": 64},
        "weight": 100,
        "stage": "STAGE_CHAMPION",
    }
    return {"model": model, "version": "1", "variants": [champion]}


def generated(stack: Stack, model: str, *options: str) -> dict[str, Any]:
    # A tenant of its own: nobody else's answer is in the cache for it.
    tenant = ("--tenant", uuid.uuid4().hex)
    said = stack.penstock("generate", TICKET, "--model", model, "--json", *tenant, *options)
    response: dict[str, Any] = json.loads(said.splitlines()[-1])
    return dict(response.get("response", response))


def check_same(response: dict[str, Any], asked: dict[str, Any]) -> None:
    """Text and usage are those that the upstream tells whoever asks it."""
    assert response["outcome"] == "OUTCOME_ANSWERED"
    assert response["text"] == asked["choices"][0]["message"]["content"]
    for field in ("prompt_tokens", "completion_tokens"):
        assert int(response["usage"][field]) == asked["usage"][field]


@pytest.mark.parametrize("options", [(), ("--stream",)])
def test_each_base_model_answers_its_own_route(
    stack: Stack, upstream: VllmServe, options: tuple[str, ...]
) -> None:
    own = generated(stack, "own", *options)
    assert own["variant"] == "own-base"
    assert len(own["text"].split()) == own["usage"]["completion_tokens"] == 4
    large = generated(stack, "large", *options)
    assert set(json.loads(large["text"])) == FIELDS
    check_same(large, upstream.chat(TICKET))


def test_requests_on_kafka_are_answered_by_the_hosted_model(
    stack: Stack, upstream: VllmServe
) -> None:
    for text in (f"{TICKET} And hurry.", "My parcel never came."):
        lines = stack.penstock("publish", "-m", text, "--model", "large", "--wait")
        check_same(json.loads(lines.splitlines()[-1]), upstream.chat(text))


def test_a_model_that_cannot_start_says_why(stack: Stack) -> None:
    log = stack.log("inference")
    assert "nowhere is no Hugging Face model directory" in log
    assert KEY not in log
