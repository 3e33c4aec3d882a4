"""The stream between pump and engine, over a real gRPC server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

import pytest

from penstock.errors import Code, InvalidRequest
from penstock.rpc.server import Server, Service
from penstock.v1 import (
    admitted_pb2,
    engine_service_pb2,
    engine_service_pb2_grpc,
    response_pb2,
)
from penstock_inference.engines.errors import EngineLost
from penstock_inference.engines.generation import Completion, Delta, Engine, Finish, Generation
from penstock_inference.scaling.directory import Announcement
from penstock_inference.streams.engine_servicer import EngineServicer
from penstock_inference.streams.pool import EnginePool, Work


class Words:
    """Says three words; `hold` keeps it from ending, `fail` makes it refuse."""

    def __init__(self, fail: Exception | None = None) -> None:
        self.running = 0
        self.hold: asyncio.Event | None = None
        self.fail = fail
        self.served: list[str] = []
        self.cancelled: set[str] = set()

    slots = 0

    async def start(self) -> None: ...

    async def check(self) -> None: ...

    async def stop(self) -> None: ...

    def cancel(self, request_id: str) -> None:
        self.cancelled.add(request_id)

    async def generate(self, generation: Generation) -> AsyncIterator[Delta | Completion]:
        self.running += 1
        self.served.append(generation.request_id.split("/")[0])  # without the run's number
        try:
            if self.fail is not None:
                raise self.fail
            for word in ("one", " two", " three") if generation.stream else ():
                yield Delta(word, 1)
            while self.hold is not None and not self.hold.is_set():
                await asyncio.sleep(0.005)
                if generation.request_id in self.cancelled:
                    yield Completion("one", Finish.CANCELLED, 2, 1, 0, [-1.0], 0.01)
                    return
            yield Completion("one two three", Finish.STOP, 2, 3, 0, [-1.0, -3.0, -2.0], 0.01)
        finally:
            self.running -= 1


class Board:
    """A directory that says what the test wrote on it."""

    def __init__(self) -> None:
        self.announcements: list[Announcement] = []

    async def announce(self, announcement: Announcement) -> str:
        return ""

    async def withdraw(self, replica_id: str) -> None: ...

    async def live(self) -> Sequence[Announcement]:
        return self.announcements


@contextlib.asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[tuple[str, Server]]:
    servicer = EngineServicer(engine)
    add = engine_service_pb2_grpc.add_EngineServicer_to_server
    server = Server(
        [Service("penstock.v1.Engine", partial(add, servicer))], host="127.0.0.1", port=0
    )
    port = await server.start()
    try:
        yield f"127.0.0.1:{port}", server
    finally:
        await server.stop(0)


class Caller:
    """Runs one piece of work after another and waits for it, as no pump does."""

    def __init__(self, board: Board) -> None:
        self.pool = EnginePool(board)
        self._room = asyncio.Event()

    async def run(
        self,
        request: admitted_pb2.AdmittedRequest,
        attempt: int,
        on_chunk: Callable[[response_pb2.TokenChunk], None],
    ) -> engine_service_pb2.WorkResult:
        item = engine_service_pb2.WorkItem(request=request, attempt=attempt)
        run = Run(on_chunk)
        while (work := self.pool.begin(("m", ""), item, run, 10)) is None:
            self._room.clear()
            await self._room.wait()
        try:
            return await run.result
        except asyncio.CancelledError:
            work.forget()
            raise

    def on_chunk(self, work: Work, chunk: response_pb2.TokenChunk) -> None:
        assert isinstance(work.owner, Run)
        work.owner.on_chunk(chunk)

    def on_result(self, work: Work, result: engine_service_pb2.WorkResult) -> None:
        assert isinstance(work.owner, Run)
        if not work.owner.result.done():
            # The message belongs to the stream.
            copy = engine_service_pb2.WorkResult()
            copy.CopyFrom(result)
            work.owner.result.set_result(copy)

    def on_lost(self, works: Sequence[Work], *, died: bool) -> None:
        for work in works:
            assert isinstance(work.owner, Run)
            if not work.owner.result.done():
                work.owner.result.set_exception(EngineLost(f"died: {died}"))

    def on_room(self) -> None:
        self._room.set()


class Run:
    def __init__(self, on_chunk: Callable[[response_pb2.TokenChunk], None]) -> None:
        self.on_chunk = on_chunk
        self.result: asyncio.Future[engine_service_pb2.WorkResult] = (
            asyncio.get_running_loop().create_future()
        )


@contextlib.asynccontextmanager
async def pool_of(board: Board) -> AsyncIterator[Caller]:
    caller = Caller(board)
    await caller.pool.start(caller)
    try:
        yield caller
    finally:
        await caller.pool.stop()


@pytest.fixture(autouse=True)
def quick_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock_inference.streams.pool.REFRESH_S", 0.01)


def request(request_id: str = "r", *, stream: bool = False) -> admitted_pb2.AdmittedRequest:
    message = admitted_pb2.AdmittedRequest(request_id=request_id, stream=stream)
    message.request.prompt = "count"
    message.request.sampling.max_tokens = 10
    return message


def announced(address: str, name: str = "e1") -> Announcement:
    return Announcement(name, address, "m", load_tokens=0)


def ignore(_: response_pb2.TokenChunk) -> None: ...


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_an_answer_comes_back_with_its_figures() -> None:
    board = Board()
    async with serving(Words()) as (address, _), pool_of(board) as pool:
        board.announcements = [announced(address)]
        result = await pool.run(request(), 1, ignore)
    assert (result.text, result.usage.prompt_tokens) == ("one two three", 2)
    summary = result.log_probabilities
    assert (summary.mean, summary.minimum, summary.tokens) == (-2.0, -3.0, 3)


async def test_chunks_come_in_order_with_index_and_checksum() -> None:
    board, chunks = Board(), []
    async with serving(Words()) as (address, _), pool_of(board) as pool:
        board.announcements = [announced(address)]
        await pool.run(request(stream=True), 4, chunks.append)
    assert [(c.index, c.text, c.attempt) for c in chunks] == [
        (0, "one", 4),
        (1, " two", 4),
        (2, " three", 4),
    ]
    assert chunks[-1].text_crc32 == zlib.crc32(b"one two three")


async def test_work_waits_for_an_engine_that_comes_later() -> None:
    board = Board()
    async with serving(Words()) as (address, _), pool_of(board) as pool:
        task = asyncio.create_task(pool.run(request(), 1, ignore))
        await asyncio.sleep(0.03)
        assert not task.done()
        board.announcements = [announced(address)]
        assert (await task).text == "one two three"


async def test_an_engine_of_another_model_is_not_used() -> None:
    board = Board()
    async with serving(Words()) as (address, _), pool_of(board) as pool:
        board.announcements = [Announcement("e0", address, "other", load_tokens=0)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.run(request(), 1, ignore), 0.1)


async def test_a_dead_engine_gives_its_work_back() -> None:
    board, engine = Board(), Words()
    engine.hold = asyncio.Event()
    async with serving(engine) as (address, server), pool_of(board) as pool:
        board.announcements = [announced(address)]
        task = asyncio.create_task(pool.run(request(), 1, ignore))
        await until(lambda: engine.running == 1)
        await server.stop(0)
        with pytest.raises(EngineLost):
            await task


async def test_a_cancelled_request_leaves_the_engine() -> None:
    board, engine = Board(), Words()
    engine.hold = asyncio.Event()
    async with serving(engine) as (address, _), pool_of(board) as pool:
        board.announcements = [announced(address)]
        task = asyncio.create_task(pool.run(request(), 1, ignore))
        await until(lambda: engine.running == 1)
        task.cancel()
        await until(lambda: engine.running == 0)


async def test_a_pump_that_goes_away_takes_its_work_along() -> None:
    board, engine = Board(), Words()
    engine.hold = asyncio.Event()
    async with serving(engine) as (address, _):
        async with pool_of(board) as pool:
            board.announcements = [announced(address)]
            task = asyncio.create_task(pool.run(request(), 1, ignore))
            await until(lambda: engine.running == 1)
        with pytest.raises(EngineLost):
            await task
        await until(lambda: engine.running == 0)


async def test_work_goes_where_fewer_tokens_are_ahead() -> None:
    board, one, two = Board(), Words(), Words()
    one.hold = two.hold = asyncio.Event()
    async with serving(one) as (first, _), serving(two) as (second, _), pool_of(board) as pool:
        board.announcements = [announced(first, "e1"), announced(second, "e2")]
        await until(lambda: sum(each.accepting for each in pool.pool._engines.values()) == 2)
        tasks = [asyncio.create_task(pool.run(request(f"r{n}"), 1, ignore)) for n in range(6)]
        await until(lambda: one.running + two.running == 6)
        assert (one.running, two.running) == (3, 3)
        one.hold.set()
        await asyncio.gather(*tasks)


async def test_a_withdrawn_engine_ends_its_work_and_gets_no_more() -> None:
    board, one, two = Board(), Words(), Words()
    one.hold = asyncio.Event()
    async with serving(one) as (first, _), serving(two) as (second, _), pool_of(board) as pool:
        board.announcements = [announced(first, "e1")]
        old = asyncio.create_task(pool.run(request("old"), 1, ignore))
        await until(lambda: one.running == 1)
        board.announcements = [announced(second, "e2")]
        await until(lambda: not pool.pool._engines["e1"].accepting)
        await pool.run(request("new"), 1, ignore)
        one.hold.set()
        assert (await old).text == "one two three"
    assert (one.served, two.served) == (["old"], ["new"])


async def test_a_refusal_names_its_field_at_the_other_end() -> None:
    board = Board()
    engine = Words(fail=InvalidRequest("too long", field="prompt"))
    async with serving(engine) as (address, _), pool_of(board) as pool:
        board.announcements = [announced(address)]
        result = await pool.run(request(), 1, ignore)
    assert (result.error.field, result.error.code) == (
        "prompt",
        Code.ERROR_CODE_INVALID_ARGUMENT,
    )


async def test_a_fault_of_the_engine_does_not_leak_its_text() -> None:
    board = Board()
    engine = Words(fail=RuntimeError("prompt was X"))
    async with serving(engine) as (address, _), pool_of(board) as pool:
        board.announcements = [announced(address)]
        result = await pool.run(request(), 1, ignore)
    assert result.error.code == Code.ERROR_CODE_INTERNAL
    assert "prompt was X" not in result.error.message


async def test_an_engine_that_is_listed_but_dead_costs_no_attempt() -> None:
    board = Board()
    async with serving(Words()) as (dead, server):
        await server.stop(0)
    async with serving(Words()) as (address, _), pool_of(board) as pool:
        board.announcements = [announced(dead, "e0")]
        task = asyncio.create_task(pool.run(request(), 1, ignore))
        await asyncio.sleep(0.1)  # ten refreshes of the directory
        assert not task.done()
        board.announcements = [announced(dead, "e0"), announced(address, "e1")]
        assert (await task).text == "one two three"


async def test_an_engine_whose_model_died_gives_all_its_work_back() -> None:
    board, engine = Board(), Words()
    engine.hold = asyncio.Event()
    async with serving(engine) as (address, _), pool_of(board) as pool:
        board.announcements = [announced(address)]
        held = asyncio.create_task(pool.run(request("held"), 1, ignore))
        await until(lambda: engine.running == 1)
        engine.fail = EngineLost("the core died")
        for task in (held, asyncio.create_task(pool.run(request("next"), 1, ignore))):
            with pytest.raises(EngineLost):
                await task


async def test_an_engine_whose_model_died_gets_no_work_while_it_is_still_listed() -> None:
    board, engine = Board(), Words(fail=EngineLost("the core died"))
    async with serving(engine) as (address, _), pool_of(board) as pool:
        board.announcements = [announced(address)]
        with pytest.raises(EngineLost):
            await pool.run(request("first"), 1, ignore)
        later = asyncio.create_task(pool.run(request("later"), 1, ignore))
        await asyncio.sleep(0.1)  # ten refreshes of the directory
        assert not later.done()
        assert engine.served == ["first"]
        later.cancel()


async def test_two_runs_of_one_request_do_not_meet() -> None:
    board = Board()
    async with serving(Words()) as (address, _), pool_of(board) as pool:
        board.announcements = [announced(address)]
        runs = [pool.run(request("same"), attempt, ignore) for attempt in (1, 2)]
        async with asyncio.timeout(10):
            assert [r.text for r in await asyncio.gather(*runs)] == ["one two three"] * 2
