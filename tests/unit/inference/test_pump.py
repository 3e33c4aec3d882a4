"""What the pump writes for a request, whatever happens to the engine that had it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from penstock import codec
from penstock.errors import Code, InvalidRequest, Unavailable
from penstock.kafka.consumer import TransactionalConsumer
from penstock.kafka.memory import MemoryBroker
from penstock.records import Outgoing, Partition, Record
from penstock.routing import RouteTable
from penstock.v1 import (
    admitted_pb2,
    common_pb2,
    engine_service_pb2,
    response_pb2,
    route_pb2,
    usage_pb2,
)
from penstock_inference.caching.answer_cache import AnswerCache
from penstock_inference.caching.exact import ResponseCache
from penstock_inference.pump import pump as pump_module
from penstock_inference.pump.answers import Answers
from penstock_inference.pump.pump import Pump
from penstock_inference.streams.wire import failure_of

NOW_S = 1_767_323_045.0
RESULT = engine_service_pb2.WorkResult(
    text="yes",
    finish_reason=response_pb2.FINISH_REASON_STOP,
    usage=common_pb2.Usage(prompt_tokens=3, completion_tokens=1),
)


@dataclasses.dataclass(eq=False)
class FakeWork:
    """Work at an engine that the test plays."""

    item: engine_service_pb2.WorkItem
    owner: object
    tokens: int
    lane: tuple[str, str]
    pool: Engines
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True

    def forget(self) -> None:
        self.cancelled = True
        self.pool.running.remove(self)


class Engines:
    """The pool's side of the seam; the test says what becomes of each piece of work."""

    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.running: list[FakeWork] = []
        self.begun: list[str] = []
        self.attempts: list[int] = []

    def begin(
        self,
        lane: tuple[str, str],
        item: engine_service_pb2.WorkItem,
        owner: object,
        tokens: int,
    ) -> FakeWork | None:
        if len(self.running) >= self.room:
            return None
        copy = engine_service_pb2.WorkItem()
        copy.CopyFrom(item)
        work = FakeWork(copy, owner, tokens, lane, self)
        self.running.append(work)
        self.begun.append(item.request.request_id)
        self.attempts.append(item.attempt)
        return work


class Bench:
    """A pump between a log in memory and engines that the test plays."""

    def __init__(self, room: int = 100, cache: AnswerCache | None = None) -> None:
        self.now_s = NOW_S
        self.broker = MemoryBroker(partitions=1)
        self.engines = Engines(room)
        self.routes = RouteTable()
        self.chunks: list[Outgoing] = []
        self.pump = Pump(
            self.engines,
            Answers("penstock", "g"),
            self.routes,
            on_chunk=self.chunks.append,
            cache=cache,
            now=lambda: self.now_s,
        )
        self.route({"v1": 1})

    def route(self, weights: dict[str, int], version: int = 7, adapter: str = "") -> None:
        variants = [
            route_pb2.Variant(
                name=name,
                base_model="base",
                adapter=adapter,
                weight=weight,
                stage=route_pb2.STAGE_CANDIDATE if index else route_pb2.STAGE_CHAMPION,
            )
            for index, (name, weight) in enumerate(weights.items())
        ]
        self.routes.apply(route_pb2.Route(model="m", version=version, variants=variants))
        self.pump.routes_changed()

    def publish(self, *messages: admitted_pb2.AdmittedRequest) -> None:
        for message in messages:
            self.broker.append(
                codec.encode(message, topic="penstock.admitted", key="k", source="test")
            )

    async def running(self, count: int) -> list[FakeWork]:
        await until(lambda: len(self.engines.running) == count)
        return list(self.engines.running)

    def answer(self, work: FakeWork, result: engine_service_pb2.WorkResult = RESULT) -> None:
        self.engines.running.remove(work)
        self.pump.on_result(work, result)  # type: ignore[arg-type]

    def lose(self, *works: FakeWork, died: bool = True) -> None:
        for work in works:
            self.engines.running.remove(work)
        self.pump.on_lost(works, died=died)  # type: ignore[arg-type]

    def read(self, topic: str = "responses") -> list[Record]:
        return self.broker.read(f"penstock.{topic}")

    def responses(self, topic: str = "responses") -> list[response_pb2.GenerateResponse]:
        return [codec.decode(r, response_pb2.GenerateResponse) for r in self.read(topic)]

    async def response(self) -> response_pb2.GenerateResponse:
        await until(lambda: len(self.read()) >= 1)
        (found,) = self.responses()
        return found

    async def lines(self) -> list[usage_pb2.UsageLine]:
        return [codec.decode(r, usage_pb2.UsageLine) for r in self.read("usage")]


@asynccontextmanager
async def bench(room: int = 100, cache: AnswerCache | None = None) -> AsyncIterator[Bench]:
    made = Bench(room, cache)
    consumer = TransactionalConsumer(
        made.broker, topic="penstock.admitted", group="g", handler=made.pump
    )
    task = asyncio.create_task(consumer.run())
    try:
        yield made
    finally:
        await consumer.stop(0)
        await task


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def admitted(request_id: str = "req-1", **changes: object) -> admitted_pb2.AdmittedRequest:
    message = admitted_pb2.AdmittedRequest(
        request_id=request_id, variant="v1", route_version=7, encoding=admitted_pb2.ENCODING_JSON
    )
    message.request.model = "m"
    message.request.tenant = "acme"
    message.request.prompt = "?"
    message.request.sampling.max_tokens = 16
    message.request.idempotency_key = "order 66"
    message.request.labels["team"] = "blue"
    message.published_at.FromSeconds(int(NOW_S) - 2)
    message.admitted_at.FromSeconds(int(NOW_S) - 1)
    message.deadline.FromSeconds(int(NOW_S) + 60)
    for name, value in changes.items():
        if name in ("tenant", "ordering_key", "priority"):
            setattr(message.request, name, value)
        else:
            setattr(message, name, value)
    return message


async def test_an_answer_carries_what_the_request_brought() -> None:
    async with bench() as b:
        b.publish(admitted())
        (work,) = await b.running(1)
        b.answer(work)
        response = await b.response()
        (record,) = b.read()
    assert response.outcome == response_pb2.OUTCOME_ANSWERED
    assert (response.text, response.tenant, response.variant) == ("yes", "acme", "v1")
    assert (response.idempotency_key, dict(response.labels)) == ("order 66", {"team": "blue"})
    assert response.timings.total_s == pytest.approx(2.0)
    assert (record.key, record.partition.number) == (b"k", 0)
    assert record.header("content-type") == "application/json"


async def test_an_answer_says_through_which_adapter_it_came_and_what_was_not_generated_none() -> (
    None
):
    async with bench(room=1) as b:
        b.publish(admitted("base"))
        (work,) = await b.running(1)
        b.answer(work)
        b.route({"v1": 1}, version=8, adapter="tuned-2")
        b.publish(admitted("tuned"), admitted("waits"))
        (work,) = await b.running(1)
        b.pump.cancel("waits", "acme")
        b.answer(work)
        found = {r.request_id: r for r in await _responses(b, 3)}
    assert found["base"].HasField("adapter")
    assert (found["base"].adapter, found["tuned"].adapter) == ("", "tuned-2")
    assert (found["base"].route_version, found["tuned"].route_version) == (7, 8)
    assert not found["waits"].HasField("adapter")


async def test_answer_usage_and_reply_are_written_together() -> None:
    async with bench() as b:
        b.publish(admitted(reply_partition=0))
        (work,) = await b.running(1)
        b.answer(work)
        await b.response()
        (line,) = await b.lines()
        assert len(b.read("replies")) == 1
    assert (line.line_id, line.tenant) == ("req-1/generation", "acme")
    assert (line.usage.prompt_tokens, line.usage.completion_tokens) == (3, 1)


async def test_a_refusal_is_rejected_at_once_and_costs_nothing() -> None:
    async with bench() as b:
        b.publish(admitted())
        (work,) = await b.running(1)
        b.answer(work, failure_of(InvalidRequest("too long", field="prompt")))
        response = await b.response()
        assert await b.lines() == []
    assert (response.outcome, response.error.field) == (response_pb2.OUTCOME_REJECTED, "prompt")


async def test_work_of_a_dead_engine_runs_again_under_the_next_attempt() -> None:
    async with bench() as b:
        b.publish(admitted())
        (work,) = await b.running(1)
        b.lose(work)
        (work,) = await b.running(1)
        b.answer(work)
        response = await b.response()
    assert (b.engines.attempts, response.attempt) == ([1, 2], 2)


async def test_a_request_that_engines_die_of_becomes_a_dead_letter_and_a_failed_answer() -> None:
    async with bench() as b:
        b.publish(admitted())
        for _ in range(3):
            (work,) = await b.running(1)
            b.lose(work)
        response = await b.response()
        (letter,) = b.read("dlq")
    assert response.outcome == response_pb2.OUTCOME_FAILED
    assert letter.header("penstock-reason") == "poison"
    assert letter.header("penstock-request-id") == "req-1"


async def test_suspects_run_one_at_a_time_and_only_they_are_blamed() -> None:
    async with bench() as b:
        b.publish(admitted("bad"), admitted("worse"))
        for _ in range(2):
            b.lose(*await b.running(2))
        b.publish(admitted("innocent"))
        first = await b.running(2)
        names = {work.item.request.request_id for work in first}
        assert "innocent" in names
        b.lose(*first)
        (response,) = [r for r in await _responses(b, 1) if r.request_id in names]
        assert response.outcome == response_pb2.OUTCOME_FAILED
        assert response.request_id != "innocent"
        for work in await b.running(2):
            b.answer(work)
        ended = {r.request_id: r.outcome for r in await _responses(b, 3)}
    assert ended["innocent"] == response_pb2.OUTCOME_ANSWERED


async def test_an_engine_that_said_it_would_go_is_no_death() -> None:
    async with bench() as b:
        b.publish(admitted())
        for _ in range(5):
            (work,) = await b.running(1)
            b.lose(work, died=False)
        (work,) = await b.running(1)
        b.answer(work)
        assert (await b.response()).outcome == response_pb2.OUTCOME_ANSWERED


async def test_what_an_engine_gives_up_is_tried_again_and_then_buried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pump_module, "retry_delay_s", lambda *_: 0.001)
    async with bench() as b:
        b.publish(admitted())
        for _ in range(3):
            (work,) = await b.running(1)
            b.answer(work, failure_of(Unavailable("the engine failed: KeyError")))
        response = await b.response()
        (letter,) = b.read("dlq")
    assert response.outcome == response_pb2.OUTCOME_FAILED
    assert letter.header("penstock-reason") == "retries-exhausted"


async def test_what_is_expired_when_it_comes_never_reaches_an_engine() -> None:
    async with bench() as b:
        late = admitted()
        late.deadline.FromSeconds(int(NOW_S) - 1)
        b.publish(late)
        response = await b.response()
    assert response.outcome == response_pb2.OUTCOME_EXPIRED
    assert b.engines.begun == []


async def test_a_deadline_ends_running_work_and_bills_what_was_seen() -> None:
    async with bench() as b:
        b.publish(admitted())
        (work,) = await b.running(1)
        b.now_s += 61
        await until(lambda: work.cancelled)
        result = failure_of(Unavailable("cancelled"))
        result.usage.completion_tokens = 5
        b.answer(work, result)
        response = await b.response()
        (line,) = await b.lines()
    assert response.outcome == response_pb2.OUTCOME_EXPIRED
    assert line.usage.completion_tokens == 5


async def test_its_tenant_may_cancel_a_request_and_another_may_not() -> None:
    async with bench() as b:
        b.publish(admitted())
        (work,) = await b.running(1)
        b.pump.cancel("req-1", "somebody else")
        assert not work.cancelled
        b.pump.cancel("req-1", "acme")
        assert work.cancelled
        result = failure_of(Unavailable("cancelled"))
        result.usage.completion_tokens = 2
        b.answer(work, result)
        response = await b.response()
    assert response.outcome == response_pb2.OUTCOME_CANCELLED
    assert response.error.code == Code.ERROR_CODE_CANCELLED
    assert response.usage.completion_tokens == 2


async def test_a_queued_request_is_cancelled_at_once() -> None:
    async with bench(room=1) as b:
        b.publish(admitted("first"), admitted("second"))
        (work,) = await b.running(1)
        b.pump.cancel("second", "acme")
        (response,) = await _responses(b, 1)
        assert (response.request_id, response.outcome) == ("second", response_pb2.OUTCOME_CANCELLED)
        b.answer(work)
        await _responses(b, 2)
    assert b.engines.begun == ["first"]


async def test_an_answer_that_is_quicker_than_the_cancellation_stands() -> None:
    async with bench() as b:
        b.publish(admitted())
        (work,) = await b.running(1)
        b.pump.cancel("req-1", "acme")
        b.answer(work)
        assert (await b.response()).outcome == response_pb2.OUTCOME_ANSWERED


async def test_an_engine_that_is_silent_about_cancelled_work_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pump_module, "CANCEL_S", 0.01)
    async with bench() as b:
        b.publish(admitted())
        (work,) = await b.running(1)
        chunk = response_pb2.TokenChunk(request_id="req-1", index=3, tokens=1, text="x")
        b.pump.on_chunk(work, chunk)  # type: ignore[arg-type]
        b.pump.cancel("req-1", "acme")
        response = await b.response()
    assert response.outcome == response_pb2.OUTCOME_CANCELLED
    assert response.usage.completion_tokens == 4


async def test_requests_of_one_key_run_one_after_another() -> None:
    async with bench() as b:
        b.publish(*(admitted(f"r{i}", ordering_key="conversation") for i in range(3)))
        b.publish(admitted("other"))
        works = await b.running(2)
        assert [w.item.request.request_id for w in works] == ["r0", "other"]
        b.answer(works[0])
        await until(lambda: "r1" in b.engines.begun)
        assert "r2" not in b.engines.begun


async def test_a_tenant_with_many_requests_does_not_hold_up_anothers_single_one() -> None:
    async with bench(room=4) as b:
        b.publish(*(admitted(f"many-{i}", tenant="big") for i in range(200)))
        b.publish(admitted("single", tenant="small"))
        await until(lambda: len(b.pump._jobs) == 201)
        served = 0
        while "single" not in b.engines.begun:
            b.answer((await b.running(4))[0])
            served += 1
            await asyncio.sleep(0)
    # A round gives each tenant one quantum, about thirty of these requests.
    assert served < 45


async def test_a_lower_priority_value_goes_first() -> None:
    async with bench(room=1) as b:
        b.publish(admitted("first"))
        (work,) = await b.running(1)
        b.publish(admitted("bulk", priority=10), admitted("urgent", priority=-10))
        await until(lambda: len(b.pump._jobs) == 3)
        b.answer(work)
        await until(lambda: len(b.engines.begun) == 2)
    assert b.engines.begun == ["first", "urgent"]


async def test_a_request_that_was_admitted_twice_is_answered_once() -> None:
    async with bench() as b:
        b.publish(admitted(), admitted())
        (work,) = await b.running(1)
        b.answer(work)
        b.publish(admitted())
        await until(lambda: b.broker.position("g", Partition("penstock.admitted", 0)).offset == 3)
        assert len(b.read()) == 1


async def test_a_withdrawn_variants_requests_go_to_another_before_their_first_text() -> None:
    async with bench(room=2) as b:
        b.route({"v1": 0, "v2": 1}, version=8)
        b.route({"v1": 1, "v2": 1}, version=9)
        b.publish(admitted("running"), admitted("streaming", stream=True, reply_partition=0))
        running, streaming = await b.running(2)
        chunk = response_pb2.TokenChunk(request_id="streaming", index=0, tokens=1, text="x")
        b.pump.on_chunk(streaming, chunk)  # type: ignore[arg-type]
        b.publish(admitted("queued"))
        await until(lambda: len(b.pump._jobs) == 3)
        b.route({"v1": 0, "v2": 1}, version=10)
        assert running.cancelled
        assert not streaming.cancelled
        for work in await b.running(2):
            b.answer(work)
        for work in await b.running(1):
            b.answer(work)
        by_id = {r.request_id: r for r in await _responses(b, 3)}
    assert by_id["running"].variant == by_id["queued"].variant == "v2"
    assert by_id["running"].route_version == 10
    assert by_id["streaming"].variant == "v1"


async def test_copies_for_shadows_and_replays_never_reach_the_responses() -> None:
    async with bench() as b:
        b.publish(
            admitted("s", purpose=common_pb2.PURPOSE_SHADOW, origin_request_id="req-1"),
            admitted("p", purpose=common_pb2.PURPOSE_REPLAY, origin_request_id="req-1"),
            admitted("q", purpose=common_pb2.PURPOSE_PROBE, reply_partition=0),
        )
        for work in await b.running(3):
            b.answer(work)
        await until(lambda: len(b.read("usage")) == 3)
        assert [r.request_id for r in b.responses("shadows")] == ["s"]
        assert [r.request_id for r in b.responses("replays")] == ["p"]
        assert [r.request_id for r in b.responses("replies")] == ["q"]
        assert b.read() == []
        kinds = {line.kind for line in await b.lines()}
    assert kinds == {
        usage_pb2.USAGE_KIND_SHADOW,
        usage_pb2.USAGE_KIND_REPLAY,
        usage_pb2.USAGE_KIND_PROBE,
    }


async def test_the_same_question_is_answered_from_the_cache_and_costs_nothing() -> None:
    async with bench(cache=AnswerCache(ResponseCache(2**20, 60.0))) as b:
        b.publish(admitted("one"))
        (work,) = await b.running(1)
        b.answer(work)
        await b.response()
        b.publish(admitted("two"), admitted("three", tenant="other"))
        (work,) = await b.running(1)
        assert work.item.request.request_id == "three"
        b.answer(work)
        by_id = {r.request_id: r for r in await _responses(b, 3)}
        lines = {line.request_id: line for line in await b.lines()}
    assert by_id["two"].cached
    assert not by_id["two"].HasField("adapter")
    assert by_id["two"].text == "yes"
    assert lines["two"].kind == usage_pb2.USAGE_KIND_CACHE_HIT
    assert lines["two"].usage.completion_tokens == 0
    assert lines["two"].avoided.completion_tokens == 1


async def test_a_record_that_is_no_request_becomes_a_dead_letter_with_an_answer() -> None:
    async with bench() as b:
        b.broker.append(Outgoing("penstock.admitted", b"k", b"\xff\xff", partition=0))
        response = await b.response()
        (letter,) = b.read("dlq")
    assert response.outcome == response_pb2.OUTCOME_FAILED
    assert letter.value == b"\xff\xff"
    assert letter.header("penstock-reason") == "undecodable"


async def test_chunks_of_a_streamed_request_go_to_its_reply_partition() -> None:
    async with bench() as b:
        b.publish(admitted(stream=True, reply_partition=3))
        (work,) = await b.running(1)
        chunk = response_pb2.TokenChunk(request_id="req-1", index=0, tokens=1, text="x")
        b.pump.on_chunk(work, chunk)  # type: ignore[arg-type]
    assert [(c.topic, c.partition) for c in b.chunks] == [("penstock.tokens", 3)]


async def _responses(b: Bench, count: int) -> Sequence[response_pb2.GenerateResponse]:
    await until(lambda: len(b.read()) == count)
    return b.responses()


async def test_what_scaling_counts_leaves_out_who_waits_for_a_turn() -> None:
    async with bench(room=2) as b:
        keyed = [admitted(f"req-k{n}", ordering_key="one") for n in range(4)]
        free = [admitted(f"req-f{n}") for n in range(3)]
        b.publish(*keyed, *free)
        await b.running(2)
        await until(lambda: b.pump.runnable()["base"].requests == 4)
        assert b.pump.runnable()["base"].tokens >= 4 * 16
        for ended in range(7):
            assert 1 <= b.pump.runnable()["base"].requests <= 4
            await until(lambda: b.engines.running)
            b.answer(b.engines.running[0])
            await until(lambda done=ended + 1: len(b.read()) == done)
        assert b.pump.runnable() == {}
