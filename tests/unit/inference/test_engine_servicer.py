"""The engine's end of the stream, over a real gRPC server: what pumps are told, come what may."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

import grpc
import pytest

from penstock.errors import Code, InvalidRequest
from penstock.rpc.channel import open_channel
from penstock.rpc.server import Server, Service
from penstock.v1 import engine_service_pb2, engine_service_pb2_grpc, response_pb2
from penstock_inference.engines.errors import EngineLost
from penstock_inference.engines.generation import (
    Adapter,
    Completion,
    Delta,
    Engine,
    Finish,
    Generation,
)
from penstock_inference.engines.scripted import ScriptedEngine
from penstock_inference.streams.engine_servicer import READY, EngineServicer


class Iterated:
    """A scripted engine without its quick way, so that tasks iterate it."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine
        self.fail: Exception | None = None
        self.silent = False
        self.seen: list[Generation] = []

    slots = 3

    async def start(self) -> None: ...

    async def check(self) -> None: ...

    async def stop(self) -> None: ...

    def cancel(self, request_id: str) -> None:
        self._engine.cancel(request_id)

    async def generate(self, generation: Generation) -> AsyncIterator[Delta | Completion]:
        self.seen.append(generation)
        if self.fail is not None:
            raise self.fail
        if self.silent:
            return
        async for event in self._engine.generate(generation):
            yield event


def scripted(**options: float) -> ScriptedEngine:
    settings = {"first_token_s": 0.0, "token_s": 0.0, "max_tokens": 4, **options}
    return ScriptedEngine(**settings)  # type: ignore[arg-type]


class Pump:
    """One stream to a servicer."""

    def __init__(self, call: grpc.aio.StreamStreamCall) -> None:
        self.call = call
        self.events: list[engine_service_pb2.WorkEvent] = []
        self.reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for response in self.call:
            self.events.extend(response.events)

    async def send(self, *start: engine_service_pb2.WorkItem, cancel: Sequence[str] = ()) -> None:
        await self.call.write(engine_service_pb2.WorkRequest(start=start, cancel=cancel))

    async def result(self, work_id: str) -> engine_service_pb2.WorkResult:
        def found() -> list[engine_service_pb2.WorkResult]:
            return [e.result for e in self.events if e.work_id == work_id and e.HasField("result")]

        await until(lambda: bool(found()))
        (result,) = found()
        return result


@contextlib.asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[tuple[EngineServicer, Callable[[], Pump]]]:
    servicer = EngineServicer(engine)
    add = engine_service_pb2_grpc.add_EngineServicer_to_server
    server = Server(
        [Service("penstock.v1.Engine", partial(add, servicer))], host="127.0.0.1", port=0
    )
    port = await server.start()
    channel = open_channel(f"127.0.0.1:{port}", traced=False)
    pumps: list[Pump] = []

    def dial() -> Pump:
        pumps.append(Pump(engine_service_pb2_grpc.EngineStub(channel).Work()))
        return pumps[-1]

    try:
        yield servicer, dial
    finally:
        for pump in pumps:
            pump.reader.cancel()
        await channel.close()
        await server.stop(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def item(work_id: str, *, stream: bool = False, **fields: str) -> engine_service_pb2.WorkItem:
    made = engine_service_pb2.WorkItem(work_id=work_id, attempt=2, **fields)  # type: ignore[arg-type]
    made.request.request_id = f"request-of-{work_id}"
    made.request.stream = stream
    made.request.request.prompt = "count to three"
    made.request.request.sampling.max_tokens = 100
    made.request.request.sampling.seed = 5
    return made


KINDS = pytest.mark.parametrize("kind", [Iterated, lambda engine: engine], ids=["tasks", "direct"])
Kind = Callable[[ScriptedEngine], Engine]


@KINDS
async def test_work_is_answered_and_nothing_is_left(kind: Kind) -> None:
    async with serving(kind(scripted())) as (servicer, dial):
        pump = dial()
        await pump.send(*(item(f"w{n}") for n in range(40)))
        results = [await pump.result(f"w{n}") for n in range(40)]
        assert READY in dict(await pump.call.initial_metadata() or ())
    assert {r.usage.completion_tokens for r in results} == {4}
    assert {len(r.text.split()) for r in results} == {4}
    assert {r.log_probabilities.tokens for r in results} == {4}
    assert (servicer.running, servicer.load_tokens) == (0, 0)


@KINDS
async def test_cancelled_work_answers_with_what_it_used(kind: Kind) -> None:
    engine = kind(scripted(token_s=0.02, max_tokens=100))
    async with serving(engine) as (servicer, dial):
        pump = dial()
        await pump.send(item("long", stream=True), item("other"))
        await until(lambda: len(pump.events) >= 3)
        assert (servicer.running, servicer.load_tokens) == (2, 200)
        await pump.send(cancel=["long", "unknown"])
        result = await pump.result("long")
        chunks = [e.chunk for e in pump.events if e.HasField("chunk")]
        assert servicer.running == 1
        await pump.send(cancel=["long"])  # again: it has ended
    assert (result.error.code, result.text) == (Code.ERROR_CODE_CANCELLED, "")
    assert result.finish_reason == response_pb2.FINISH_REASON_ABORTED
    assert result.usage.prompt_tokens == 3
    assert result.usage.completion_tokens == len(chunks) < 100
    assert [(c.index, c.attempt) for c in chunks] == [(n, 2) for n in range(len(chunks))]


@KINDS
async def test_a_stream_that_breaks_ends_its_work(kind: Kind) -> None:
    async with serving(kind(scripted(first_token_s=60))) as (servicer, dial):
        pump, other = dial(), dial()
        await pump.send(item("a"), item("b", stream=True))
        await other.send(item("c"))
        await until(lambda: servicer.running == 3)
        pump.call.cancel()
        await until(lambda: servicer.running == 1)
        assert servicer.load_tokens == 100
        assert not servicer.lost


@KINDS
async def test_work_for_an_adapter_that_is_not_loaded_may_run_elsewhere(kind: Kind) -> None:
    async with serving(kind(scripted())) as (servicer, dial):
        pump = dial()
        await pump.send(item("w", adapter="triage-7"))
        result = await pump.result("w")
    assert (result.error.code, result.error.retryable) == (Code.ERROR_CODE_UNAVAILABLE, True)
    assert "triage-7" in result.error.message
    assert not servicer.adapters_in_use


async def test_an_adapter_is_in_use_while_work_goes_through_it() -> None:
    # Long enough to be seen on the way, however busy the machine is.
    engine = scripted(first_token_s=1.0)
    await engine.load_adapter(Adapter("v1", Path(), ""))
    async with serving(engine) as (servicer, dial):
        pump = dial()
        await pump.send(item("plain"), item("adapted", adapter="v1"))
        await until(lambda: servicer.running == 2)
        assert list(servicer.adapters) == ["v1"] == list(servicer.adapters_in_use)
        plain, adapted = await pump.result("plain"), await pump.result("adapted")
        assert not servicer.adapters_in_use
    assert plain.text != adapted.text


async def test_the_engine_gets_all_that_the_item_says() -> None:
    engine = Iterated(scripted())
    async with serving(engine) as (servicer, dial):
        pump = dial()
        await pump.send(item("w", system_prompt="Be brief.", cache_salt="acme"))
        await pump.result("w")
        assert servicer.slots == 3
    (seen,) = engine.seen
    assert (seen.request_id, seen.attempt, seen.adapter) == ("w", 2, "")
    assert (seen.system_prompt, seen.cache_salt, seen.seed) == ("Be brief.", "acme", 5)


@pytest.mark.parametrize(
    ("fail", "code", "retryable"),
    [
        (RuntimeError("the prompt was X"), Code.ERROR_CODE_INTERNAL, True),
        (InvalidRequest("too long", field="prompt"), Code.ERROR_CODE_INVALID_ARGUMENT, False),
        (None, Code.ERROR_CODE_UNAVAILABLE, True),  # it ends without an answer
    ],
)
async def test_a_failure_costs_one_item_and_unforeseen_ones_may_be_run_again(
    fail: Exception | None, code: Code.ValueType, retryable: bool
) -> None:
    engine = Iterated(scripted())
    async with serving(engine) as (servicer, dial):
        pump = dial()
        engine.fail, engine.silent = fail, fail is None
        await pump.send(item("bad"))
        result = await pump.result("bad")
        engine.fail, engine.silent = None, False
        await pump.send(item("good"))
        assert (await pump.result("good")).text
        assert not servicer.lost
    assert (result.error.code, result.error.retryable) == (code, retryable)
    assert "X" not in result.error.message


async def test_a_completion_that_the_contract_cannot_carry_is_an_error_and_no_empty_answer() -> (
    None
):
    class Boastful(Iterated):
        async def generate(self, generation: Generation) -> AsyncIterator[Delta | Completion]:
            yield Completion("text", Finish.STOP, prompt_tokens=3, completion_tokens=2**40)

    async with serving(Boastful(scripted())) as (_, dial):
        pump = dial()
        await pump.send(item("w"))
        result = await pump.result("w")
    assert result.error.code == Code.ERROR_CODE_INTERNAL
    assert result.text == ""
    assert not result.HasField("usage")


async def test_a_schema_that_is_no_json_is_the_requests_fault() -> None:
    async with serving(Iterated(scripted())) as (_, dial):
        pump = dial()
        bad = item("w")
        bad.request.request.response_schema["maximum"] = float("inf")
        await pump.send(bad)
        result = await pump.result("w")
    assert result.error.code == Code.ERROR_CODE_INVALID_ARGUMENT
    assert (result.error.field, result.error.retryable) == ("response_schema", False)


async def test_an_engine_that_is_lost_ends_every_stream_without_results() -> None:
    engine = Iterated(scripted(first_token_s=60))
    async with serving(engine) as (servicer, dial):
        one, two = dial(), dial()
        await one.send(item("a"))
        await until(lambda: servicer.running == 1)
        engine.fail = EngineLost("the core died")
        await two.send(item("b"))
        async with asyncio.timeout(10):
            await asyncio.wait([one.reader, two.reader])
        assert servicer.lost
        assert one.events == two.events == []
        assert servicer.running == 0
        late = dial()
        with pytest.raises(grpc.aio.AioRpcError, match="lost"):
            await late.reader


async def test_completions_of_an_engine_after_its_result_are_passed_over() -> None:
    class Twice(Iterated):
        async def generate(self, generation: Generation) -> AsyncIterator[Delta | Completion]:
            for _ in range(2):
                yield Completion("x", Finish.STOP, 1, 1, 0, [], 0.0)

    async with serving(Twice(scripted())) as (servicer, dial):
        pump = dial()
        await pump.send(item("w"))
        await pump.result("w")
        await asyncio.sleep(0.05)
        assert len(pump.events) == 1
        assert servicer.running == 0
