"""The gRPC door keeps its contract: answers, streams, later fetching, feedback, errors."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable
from typing import Any, TypeAlias

import grpc
import pytest

from penstock.errors import Code, PenstockError
from penstock.rpc.errors import NotFound, error_of
from penstock.v1 import (
    feedback_pb2,
    inference_service_pb2,
    inference_service_pb2_grpc,
    request_pb2,
    response_pb2,
)

Stub: TypeAlias = "inference_service_pb2_grpc.InferenceAsyncStub"
ANSWER = "You said: hello. That is all there is to say."


def said(text: str = "hello", **fields: Any) -> request_pb2.GenerateRequest:
    return request_pb2.GenerateRequest(prompt=text, **fields)


async def refused(call: Awaitable[Any]) -> PenstockError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_of(caught.value)


async def streamed(call: Any) -> tuple[list[response_pb2.TokenChunk], list[Any]]:
    chunks, ends = [], []
    async for event in call:
        kind = event.WhichOneof("event")
        (chunks if kind == "chunk" else ends).append(getattr(event, kind))
        assert kind == "response" or not ends
    return chunks, ends


async def test_a_request_is_answered(stub: Stub, platform: Any) -> None:
    response = await stub.Generate(said(tenant="acme"), timeout=5)
    assert (response.text, response.outcome) == (ANSWER, response_pb2.OUTCOME_ANSWERED)
    (admitted,) = platform.admitted
    assert admitted.request.tenant == "acme"
    assert admitted.reply_partition == 0
    life = admitted.deadline.ToMilliseconds() - admitted.published_at.ToMilliseconds()
    assert 4000 < life <= 5100  # gRPC rounds a deadline up


@pytest.mark.parametrize("text", ["hello", "again", "lossy"])
async def test_a_stream_adds_up_to_the_response(stub: Stub, text: str) -> None:
    chunks, (end,) = await streamed(stub.GenerateStream(said(text)))
    assert "".join(chunk.text for chunk in chunks) == end.text
    assert len(chunks) > 1
    sent = ""
    for chunk in chunks:
        sent += chunk.text
        assert chunk.text_crc32 == zlib.crc32(sent.encode())


async def test_a_stream_that_diverges_ends_and_the_response_stands(
    stub: Stub, platform: Any
) -> None:
    call = stub.GenerateStream(said("diverge"))
    error = await refused(streamed(call))
    assert error.code == Code.ERROR_CODE_STREAM_DIVERGED
    (admitted,) = platform.admitted
    query = inference_service_pb2.GetResponseRequest(request_id=admitted.request_id, wait_s=5)
    assert (await stub.GetResponse(query)).outcome == response_pb2.OUTCOME_ANSWERED


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        ("context", grpc.StatusCode.INVALID_ARGUMENT, Code.ERROR_CODE_CONTEXT_LENGTH_EXCEEDED),
        ("unavailable", grpc.StatusCode.UNAVAILABLE, Code.ERROR_CODE_UNAVAILABLE),
        ("unwritten", grpc.StatusCode.UNAVAILABLE, Code.ERROR_CODE_UNAVAILABLE),
        ("cancelled", grpc.StatusCode.CANCELLED, Code.ERROR_CODE_CANCELLED),
        ("break", grpc.StatusCode.INTERNAL, Code.ERROR_CODE_INTERNAL),
        (" ", grpc.StatusCode.INVALID_ARGUMENT, Code.ERROR_CODE_INVALID_ARGUMENT),
    ],
)
async def test_an_end_without_an_answer_is_a_status(
    stub: Stub, text: str, status: grpc.StatusCode, code: int
) -> None:
    for call in (stub.Generate(said(text)), streamed(stub.GenerateStream(said(text)))):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is status
        assert error_of(caught.value).code == code


async def test_a_refusal_names_the_field(stub: Stub) -> None:
    error = await refused(stub.Generate(said(model="nope")))
    assert (error.code, error.field) == (Code.ERROR_CODE_UNKNOWN_MODEL, "model")
    error = await refused(stub.Submit(said(priority=1000)))
    assert error.field == "priority"


async def test_a_submitted_request_is_fetched_later(stub: Stub, platform: Any) -> None:
    submitted = await stub.Submit(said(tenant="acme"), timeout=1)
    (admitted,) = platform.admitted
    assert not admitted.HasField("reply_partition")
    life = admitted.deadline.ToMilliseconds() - admitted.published_at.ToMilliseconds()
    assert life == 600_000  # nobody waits: the call's deadline says nothing about the request's
    query = inference_service_pb2.GetResponseRequest(
        request_id=submitted.request_id, tenant="acme", wait_s=5
    )
    assert (await stub.GetResponse(query)).text == ANSWER
    query.tenant = "rival"
    query.wait_s = 0.01
    assert isinstance(await refused(stub.GetResponse(query)), NotFound)


async def test_a_response_that_is_not_there_is_not_found(stub: Stub) -> None:
    for wait_s in (0, 0.01):
        query = inference_service_pb2.GetResponseRequest(request_id="req-none", wait_s=wait_s)
        assert isinstance(await refused(stub.GetResponse(query)), NotFound)
    bad = inference_service_pb2.GetResponseRequest(request_id="r", wait_s=float("nan"))
    assert (await refused(stub.GetResponse(bad))).field == "wait_s"
    assert (
        await refused(stub.GetResponse(inference_service_pb2.GetResponseRequest()))
    ).field == "request_id"


async def test_how_a_request_ended_is_fetched_as_it_is(stub: Stub, platform: Any) -> None:
    submitted = await stub.Submit(said("context"))
    query = inference_service_pb2.GetResponseRequest(request_id=submitted.request_id, wait_s=5)
    response = await stub.GetResponse(query)
    assert response.outcome == response_pb2.OUTCOME_REJECTED
    assert response.error.code == Code.ERROR_CODE_CONTEXT_LENGTH_EXCEEDED


async def test_a_repeated_key_joins_what_runs_and_gets_what_ended(
    stub: Stub, platform: Any
) -> None:
    one, two = await asyncio.gather(
        stub.Generate(said(idempotency_key="k")),
        streamed(stub.GenerateStream(said(idempotency_key="k"))),
    )
    assert two[1] == [one]
    while platform.index.find(one.request_id, "default", 0) is None:
        await asyncio.sleep(0.01)
    assert (await stub.Submit(said(idempotency_key="k"))).request_id == one.request_id
    chunks, (end,) = await streamed(stub.GenerateStream(said(idempotency_key="k")))
    assert ("".join(c.text for c in chunks), end) == (one.text, one)
    assert len(platform.admitted) == 1


async def test_a_key_whose_answer_is_held_no_longer_says_so(stub: Stub, platform: Any) -> None:
    one = await stub.Generate(said(idempotency_key="k"))
    while platform.index.find(one.request_id, "default", 0) is None:
        await asyncio.sleep(0.01)
    filler = response_pb2.GenerateResponse(request_id="other", text="x" * (1 << 20))
    platform.index.add(filler, None, 2e9, 0)
    error = await refused(stub.Generate(said(idempotency_key="k"), timeout=5))
    assert isinstance(error, NotFound)
    assert error.field == "idempotency_key"
    assert len(platform.admitted) == 1


async def test_feedback_goes_next_to_the_request(stub: Stub, platform: Any) -> None:
    response = await stub.Generate(said(ordering_key="conversation"))
    # The index may be told a moment after the caller is.
    sent = feedback_pb2.Feedback(request_id=response.request_id, label="billing")
    first = await stub.SendFeedback(sent)
    sent.created_at.GetCurrentTime()  # as one does that stamps each attempt
    again = await stub.SendFeedback(sent)
    assert first.feedback_id == again.feedback_id
    key, kept = platform.feedback[0]
    assert (key, kept.tenant, kept.label) == (b"conversation", "default", "billing")
    assert kept.HasField("created_at")


async def test_what_an_answer_was_worth_goes_along_or_alone(stub: Stub, platform: Any) -> None:
    response = await stub.Generate(said())
    worth = {"business_value": -3.25, "value_unit": "EUR"}
    for opinion in ({"label": "billing"}, {}):
        sent = feedback_pb2.Feedback(request_id=response.request_id, **worth, **opinion)
        await stub.SendFeedback(sent)
    both, alone = (kept for _, kept in platform.feedback)
    assert (both.label, both.business_value, both.value_unit) == ("billing", -3.25, "EUR")
    assert (alone.WhichOneof("value"), alone.business_value) == (None, -3.25)
    assert both.feedback_id != alone.feedback_id


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "value"),
        ({"score": 1.5}, "score"),
        ({"score": float("nan")}, "score"),
        ({"label": " "}, "label"),
        ({"score": 1, "tenant": "rival"}, "request_id"),
        ({"score": 1, "request_id": "req-none"}, "request_id"),
        ({"score": 1, "request_id": ""}, "request_id"),
        ({"business_value": float("inf")}, "business_value"),
        ({"label": "a", "business_value": 1e9 + 1}, "business_value"),
        ({"business_value": 1, "value_unit": "of gold"}, "value_unit"),
        ({"business_value": 1, "value_unit": "u" * 33}, "value_unit"),
        ({"score": 1, "value_unit": "EUR"}, "value_unit"),
    ],
)
async def test_feedback_that_says_nothing_is_refused(
    stub: Stub, platform: Any, fields: dict[str, Any], field: str
) -> None:
    response = await stub.Generate(said())
    sent = feedback_pb2.Feedback(**{"request_id": response.request_id, **fields})
    assert (await refused(stub.SendFeedback(sent))).field == field
    assert platform.feedback == []


async def test_models_are_listed(stub: Stub, platform: Any) -> None:
    platform.route("other", version=4)
    listed = await stub.ListModels(inference_service_pb2.ListModelsRequest())
    assert [(m.name, m.route_version, list(m.variants)) for m in listed.models] == [
        ("other", 4, ["other-base"]),
        ("triage", 1, ["triage-base"]),
    ]


async def test_a_call_that_ends_is_waited_for_no_longer(stub: Stub, platform: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Generate(said("silent"), timeout=0.1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    while len(platform.waiters):
        await asyncio.sleep(0.01)


async def test_a_closed_desk_refuses(stub: Stub, platform: Any) -> None:
    platform.desk.closed = "starting"
    error = await refused(stub.Generate(said()))
    assert (error.code, error.retryable) == (Code.ERROR_CODE_UNAVAILABLE, True)
