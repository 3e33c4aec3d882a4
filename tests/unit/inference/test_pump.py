"""What the pump writes for a request, whatever happens to the engine that had it."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable

import pytest

from penstock import codec
from penstock.errors import Code, InvalidRequest
from penstock.records import Outgoing, Partition, Record
from penstock.v1 import (
    admitted_pb2,
    common_pb2,
    engine_service_pb2,
    response_pb2,
    usage_pb2,
)
from penstock_inference.answers import Answers
from penstock_inference.errors import EngineLost
from penstock_inference.pump import Pump
from penstock_inference.wire import failure_of

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
RESULT = engine_service_pb2.WorkResult(
    text="yes",
    finish_reason=response_pb2.FINISH_REASON_STOP,
    usage=common_pb2.Usage(prompt_tokens=3, completion_tokens=1),
)


class Script:
    """Engines that do as they are told, one step per call; the last step repeats."""

    def __init__(self, *steps: engine_service_pb2.WorkResult | Exception) -> None:
        self.steps = list(steps)
        self.attempts: list[int] = []
        self.order: list[str] = []
        self.gate: asyncio.Event | None = None
        self.chunks: list[response_pb2.TokenChunk] = []

    async def run(
        self,
        request: admitted_pb2.AdmittedRequest,
        attempt: int,
        on_chunk: Callable[[response_pb2.TokenChunk], None],
    ) -> engine_service_pb2.WorkResult:
        self.attempts.append(attempt)
        self.order.append(request.request_id)
        if self.gate is not None:
            await self.gate.wait()
        for chunk in self.chunks:
            on_chunk(chunk)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        return step


def admitted(request_id: str = "req-1", **changes: object) -> admitted_pb2.AdmittedRequest:
    message = admitted_pb2.AdmittedRequest(
        request_id=request_id, variant="v1", route_version=7, encoding=admitted_pb2.ENCODING_JSON
    )
    message.request.model = "m"
    message.request.tenant = "acme"
    message.request.prompt = "?"
    message.request.idempotency_key = "order 66"
    message.request.labels["team"] = "blue"
    message.published_at.FromDatetime(NOW - dt.timedelta(seconds=2))
    message.deadline.FromDatetime(NOW + dt.timedelta(seconds=60))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def record(message: admitted_pb2.AdmittedRequest) -> Record:
    out = codec.encode(message, topic="penstock.admitted", key="k", source="test")
    return Record(Partition(out.topic, 0), 5, out.key, out.value, out.headers, 0)


def pump(workers: Script, chunks: list[Outgoing] | None = None, **options: int) -> Pump:
    settings = {"max_in_flight": 8, "max_attempts": 3, **options}
    taken = chunks if chunks is not None else []
    return Pump(workers, Answers("penstock"), on_chunk=taken.append, now=lambda: NOW, **settings)


def response_in(records: list[Outgoing]) -> response_pb2.GenerateResponse:
    (found,) = [r for r in records if r.topic == "penstock.responses"]
    return codec.decode(
        Record(Partition(found.topic, 0), 0, found.key, found.value, found.headers, 0),
        response_pb2.GenerateResponse,
    )


async def test_an_answer_carries_what_the_request_brought() -> None:
    records = list(await pump(Script(RESULT)).handle(record(admitted())))
    response = response_in(records)
    assert response.outcome == response_pb2.OUTCOME_ANSWERED
    assert (response.text, response.tenant, response.variant) == ("yes", "acme", "v1")
    assert (response.idempotency_key, dict(response.labels)) == ("order 66", {"team": "blue"})
    assert response.timings.total_s == pytest.approx(2.0)
    assert records[0].key == b"k"
    assert dict(records[0].headers)["content-type"] == b"application/json"


async def test_answer_usage_and_reply_are_written_together() -> None:
    records = await pump(Script(RESULT)).handle(record(admitted(reply_partition=2)))
    assert [(r.topic, r.key, r.partition) for r in records] == [
        ("penstock.responses", b"k", None),
        ("penstock.usage", b"acme", None),
        ("penstock.replies", b"req-1", 2),
    ]
    line = usage_pb2.UsageLine.FromString(records[1].value or b"")
    assert (line.line_id, line.usage.prompt_tokens) == ("req-1/generation", 3)


async def test_two_runs_of_a_request_have_one_response_id_and_one_line_id() -> None:
    first = await pump(Script(RESULT)).handle(record(admitted()))
    second = await pump(Script(RESULT)).handle(record(admitted()))
    assert response_in(list(first)).response_id == response_in(list(second)).response_id
    assert first[1].value == second[1].value


async def test_work_of_a_lost_engine_begins_again() -> None:
    workers = Script(EngineLost("gone"), EngineLost("gone"), RESULT)
    records = await pump(workers).handle(record(admitted()))
    assert workers.attempts == [1, 2, 3]
    assert response_in(list(records)).attempt == 3


async def test_work_that_loses_every_engine_fails_once_and_may_be_retried_by_the_client() -> None:
    records = list(await pump(Script(EngineLost("gone"))).handle(record(admitted())))
    response = response_in(records)
    assert response.outcome == response_pb2.OUTCOME_FAILED
    assert response.error.code == Code.ERROR_CODE_UNAVAILABLE
    assert response.error.retryable
    assert [r.topic for r in records] == ["penstock.responses"]


async def test_a_request_that_the_engine_refuses_is_rejected_and_costs_nothing() -> None:
    refusal = failure_of(InvalidRequest("too long", field="prompt"))
    records = list(await pump(Script(refusal)).handle(record(admitted())))
    response = response_in(records)
    assert response.outcome == response_pb2.OUTCOME_REJECTED
    assert response.error.field == "prompt"
    assert len(records) == 1


@pytest.mark.parametrize("late_s", [0.0, 5.0])
async def test_a_deadline_that_passed_expires_without_work(late_s: float) -> None:
    message = admitted()
    message.deadline.FromDatetime(NOW - dt.timedelta(seconds=late_s))
    workers = Script(RESULT)
    records = list(await pump(workers).handle(record(message)))
    response = response_in(records)
    assert response.outcome == response_pb2.OUTCOME_EXPIRED
    assert response.error.code == Code.ERROR_CODE_DEADLINE_EXCEEDED
    assert workers.attempts == []


async def test_requests_of_one_key_run_one_after_another_and_others_pass() -> None:
    workers = Script(RESULT)
    workers.gate = asyncio.Event()
    subject = pump(workers)
    messages = [admitted("a1"), admitted("a2"), admitted("b1")]
    messages[0].request.ordering_key = messages[1].request.ordering_key = "a"
    messages[2].request.ordering_key = "b"
    tasks = [asyncio.create_task(subject.handle(record(m))) for m in messages]
    for _ in range(20):
        await asyncio.sleep(0)
    assert workers.order == ["a1", "b1"]
    workers.gate.set()
    await asyncio.gather(*tasks)
    assert workers.order == ["a1", "b1", "a2"]


async def test_no_more_than_the_bound_is_at_engines() -> None:
    workers = Script(RESULT)
    workers.gate = asyncio.Event()
    subject = pump(workers, max_in_flight=2)
    tasks = [asyncio.create_task(subject.handle(record(admitted(f"r{n}")))) for n in range(5)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(workers.order) == 2
    workers.gate.set()
    await asyncio.gather(*tasks)
    assert len(workers.order) == 5


async def test_chunks_go_to_the_partition_where_the_caller_waits() -> None:
    workers, sent = Script(RESULT), []
    workers.chunks = [response_pb2.TokenChunk(request_id="req-1", text="y")]
    await pump(workers, sent).handle(record(admitted(reply_partition=1, stream=True)))
    assert [(c.topic, c.partition, c.key) for c in sent] == [("penstock.tokens", 1, b"req-1")]


async def test_nobody_waits_so_no_chunk_is_sent() -> None:
    workers, sent = Script(RESULT), []
    workers.chunks = [response_pb2.TokenChunk(request_id="req-1", text="y")]
    await pump(workers, sent).handle(record(admitted()))
    assert sent == []


def test_a_record_that_cannot_be_read_goes_to_the_dead_letters_with_its_answer() -> None:
    broken = Record(
        Partition("penstock.admitted", 3),
        9,
        b"k",
        b"\xff\xff",
        (("content-type", b"application/protobuf"), ("ce_id", b"req-9")),
        0,
    )
    letter, answer = pump(Script(RESULT)).failed(broken, ValueError("secret prompt"))
    assert letter.value == b"\xff\xff"
    assert dict(letter.headers)["kafka_dlt-original-offset"] == b"9"
    assert not any(b"secret" in value for _, value in letter.headers)
    response = response_pb2.GenerateResponse.FromString(answer.value or b"")
    assert (response.request_id, response.outcome) == ("req-9", response_pb2.OUTCOME_FAILED)
