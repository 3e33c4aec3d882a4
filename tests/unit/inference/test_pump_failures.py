"""What becomes of requests whose engines fail, die or are busy, and of their neighbours."""

from __future__ import annotations

import asyncio

import pytest

from penstock.errors import Code, PenstockError, Unavailable
from penstock.records import Outgoing
from penstock.v1 import (
    response_pb2,
)
from penstock_inference.caching.answer_cache import AnswerCache
from penstock_inference.caching.exact import ResponseCache
from penstock_inference.pump import pump as pump_module
from penstock_inference.streams.wire import failure_of
from tests.unit.inference.pump_bench import Bench, admitted, answers_of, bench

OUTAGE = Unavailable("the upstream of big answers HTTP 500: try again later")
BUSY = Unavailable("the upstream of big answers HTTP 429", code=Code.ERROR_CODE_OVERLOADED)
BUG = PenstockError("the engine failed: KeyError", retryable=True)


@pytest.fixture(autouse=True)
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump_module, "retry_delay_s", lambda *_: 0.001)


async def fail(b: Bench, error: PenstockError, times: int = 3) -> None:
    for _ in range(times):
        (work,) = await b.running(1)
        b.answer(work, failure_of(error))


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
        (response,) = [r for r in await answers_of(b, 1) if r.request_id in names]
        assert response.outcome == response_pb2.OUTCOME_FAILED
        assert response.request_id != "innocent"
        for work in await b.running(2):
            b.answer(work)
        ended = {r.request_id: r.outcome for r in await answers_of(b, 3)}
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


async def test_what_an_engine_fails_at_is_tried_again_and_then_buried() -> None:
    async with bench() as b:
        b.publish(admitted())
        await fail(b, BUG)
        response = await b.response()
        (letter,) = b.read("dlq")
    assert response.outcome == response_pb2.OUTCOME_FAILED
    assert response.error.code == Code.ERROR_CODE_INTERNAL
    assert letter.header("penstock-reason") == "retries-exhausted"


async def test_what_is_away_for_everybody_is_told_as_it_is_and_halts_nothing() -> None:
    async with bench() as b:
        for number in range(25):
            b.publish(admitted(f"req-{number}"))
            await fail(b, OUTAGE)
        found = await answers_of(b, 25)
        letters = b.read("dlq")
        assert {r.error.code for r in found} == {Code.ERROR_CODE_UNAVAILABLE}
        assert all(r.error.retryable and r.error.message == OUTAGE.message for r in found)
        # They are kept, so that they can be replayed once it is back.
        assert {letter.header("penstock-reason") for letter in letters} == {"retries-exhausted"}
        b.publish(admitted("after"))
        (work,) = await b.running(1)
        b.answer(work)
        await answers_of(b, 26)


async def test_bugs_in_a_row_halt_the_partition() -> None:
    async with bench() as b:
        for number in range(20):
            b.publish(admitted(f"req-{number}"))
            await fail(b, BUG)
        await answers_of(b, 20)
        b.publish(admitted("after"))
        await asyncio.sleep(0.05)
        assert b.engines.running == []


async def test_too_much_at_once_is_waited_out_and_no_attempt_is_counted() -> None:
    async with bench() as b:
        b.publish(admitted())
        await fail(b, BUSY, times=7)
        (work,) = await b.running(1)
        b.answer(work)
        response = await b.response()
        assert b.read("dlq") == []
    assert response.outcome == response_pb2.OUTCOME_ANSWERED


async def test_who_would_only_expire_hears_at_once_when_to_come_again() -> None:
    async with bench() as b:
        b.publish(admitted())
        later = Unavailable(BUSY.message, code=Code.ERROR_CODE_OVERLOADED, retry_after_s=3600)
        await fail(b, later, times=1)
        response = await b.response()
        assert b.read("dlq") == []
    assert (response.error.code, response.error.retry_after_s) == (BUSY.code, 3600)
    assert response.error.retryable


async def test_a_halt_lets_nothing_overtake_what_it_dropped() -> None:
    async with bench(cache=AnswerCache(ResponseCache(2**20, 60.0))) as b:
        b.publish(admitted("known"))
        (work,) = await b.running(1)
        b.answer(work)
        await answers_of(b, 1)
        first = admitted("first", ordering_key="conversation")
        first.request.prompt = "another question"
        # The second has its answer in the cache: it would end at once if it had its turn.
        b.publish(first, admitted("second", ordering_key="conversation"))
        await b.running(1)
        for number in range(20):
            b.broker.append(Outgoing("penstock.admitted", b"k", b"\xff\xff", partition=0))
            await answers_of(b, 2 + number)
        await asyncio.sleep(0.05)
        ended = [r.request_id for r in b.responses()]
    assert "second" not in ended


async def test_a_key_that_is_used_again_later_is_another_request() -> None:
    async with bench() as b:
        for minutes in (0, 2):
            again = admitted()
            again.admitted_at.seconds += minutes * 60
            b.broker.ahead_ms = minutes * 60_000
            b.publish(again)
            (work,) = await b.running(1)
            b.answer(work)
            await answers_of(b, 1 + minutes // 2)
        first, second = b.responses()
        lines = await b.lines()
    assert first.request_id == second.request_id
    # The ledger does not take the one for a copy of the other; feedback finds either by the id.
    assert first.response_id == second.response_id
    assert len({line.line_id for line in lines}) == 2


async def test_what_a_withdrawn_variant_did_not_answer_is_not_kept_under_its_name() -> None:
    async with bench(cache=AnswerCache(ResponseCache(2**20, 60.0))) as b:
        b.route({"v1": 1, "v2": 1}, version=8)
        b.publish(admitted("one"))
        await b.running(1)
        b.route({"v1": 0, "v2": 1}, version=9)
        (work,) = await b.running(1)
        b.answer(work)
        assert (await b.response()).variant == "v2"
        b.route({"v1": 1, "v2": 0}, version=10)
        b.publish(admitted("two"))
        (work,) = await b.running(1)
        b.answer(work)
        found = {r.request_id: r for r in await answers_of(b, 2)}
    assert (found["two"].variant, found["two"].cached) == ("v1", False)
