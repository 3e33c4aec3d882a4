"""What the pump writes for a request, whatever happens to the engine that had it."""

from __future__ import annotations

import asyncio

import pytest

from penstock.errors import Code, InvalidRequest, Unavailable
from penstock.records import Outgoing, Partition
from penstock.v1 import (
    common_pb2,
    response_pb2,
    usage_pb2,
)
from penstock_inference.caching.answer_cache import AnswerCache
from penstock_inference.caching.exact import ResponseCache
from penstock_inference.pump import pump as pump_module
from penstock_inference.streams.wire import failure_of
from tests.unit.inference.pump_bench import NOW_S, admitted, answers_of, bench, until


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
        found = {r.request_id: r for r in await answers_of(b, 3)}
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
    assert (line.line_id, line.tenant) == (f"req-1@{(int(NOW_S) - 1) // 60}/generation", "acme")
    assert (line.usage.prompt_tokens, line.usage.completion_tokens) == (3, 1)


async def test_a_refusal_is_rejected_at_once_and_costs_nothing() -> None:
    async with bench() as b:
        b.publish(admitted())
        (work,) = await b.running(1)
        b.answer(work, failure_of(InvalidRequest("too long", field="prompt")))
        response = await b.response()
        assert await b.lines() == []
    assert (response.outcome, response.error.field) == (response_pb2.OUTCOME_REJECTED, "prompt")


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
        (response,) = await answers_of(b, 1)
        assert (response.request_id, response.outcome) == ("second", response_pb2.OUTCOME_CANCELLED)
        b.answer(work)
        await answers_of(b, 2)
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
        by_id = {r.request_id: r for r in await answers_of(b, 3)}
    assert by_id["running"].variant == by_id["queued"].variant == "v2"
    assert by_id["running"].route_version == 10
    assert by_id["streaming"].variant == "v1"


async def test_copies_for_shadows_and_replays_never_reach_theanswers_of() -> None:
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
        by_id = {r.request_id: r for r in await answers_of(b, 3)}
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
