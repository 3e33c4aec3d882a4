"""While a measure sheds requests, every door says so and until when, and the others are served."""

from __future__ import annotations

import datetime as dt
import json
import urllib.error
import urllib.request
from asyncio import to_thread
from typing import Any, TypeAlias

import grpc
import pytest

from penstock.errors import Code
from penstock.measures import Kind, Measure, end_record, measure_record
from penstock.records import Outgoing, Partition, Record
from penstock.rpc.errors import error_of
from penstock.v1 import inference_service_pb2_grpc, request_pb2

Stub: TypeAlias = "inference_service_pb2_grpc.InferenceAsyncStub"


def take(platform: Any, out: Outgoing) -> None:
    stamp = round(dt.datetime.now(dt.UTC).timestamp() * 1000)
    platform.measures.take(
        Record(Partition(out.topic, 0), 0, out.key, out.value, out.headers, stamp)
    )


def shed(platform: Any, seconds: float = 30, **more: Any) -> Measure:
    now = dt.datetime.now(dt.UTC)
    until = now + dt.timedelta(seconds=seconds)
    made = Measure("m-1", Kind.SHED, "triage", now, until, **more)
    take(platform, measure_record(made, "penstock.control", "test"))
    return made


def asked(text: str = "hello", **fields: Any) -> request_pb2.GenerateRequest:
    return request_pb2.GenerateRequest(prompt=text, tenant="acme", model="triage", **fields)


def post(port: int, priority: int) -> tuple[int, dict[str, str], Any]:
    call = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(
            {
                "model": "triage",
                "messages": [{"role": "user", "content": "hi"}],
                "priority": priority,
            }
        ).encode(),
        {"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(call, timeout=10) as answer:
            return answer.status, dict(answer.headers), json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), json.load(error)


@pytest.mark.parametrize("method", ["Generate", "Submit", "GenerateStream"])
async def test_grpc_says_resource_exhausted_and_when_to_come_back(
    stub: Stub, platform: Any, method: str
) -> None:
    shed(platform, priority_above=0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:  # noqa: PT012 - a stream raises when read
        call = getattr(stub, method)(asked(priority=1))
        await (call.read() if method == "GenerateStream" else call)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    error = error_of(caught.value)
    assert (error.code, error.retryable) == (Code.ERROR_CODE_OVERLOADED, True)
    assert error.field == "priority"
    assert error.retry_after_s is not None
    assert 20 < error.retry_after_s <= 30
    assert "priority value above 0 for triage are refused until" in error.message
    assert (await stub.Generate(asked(priority=0))).text
    assert (len(platform.waiters), len(platform.admitted)) == (0, 1)


async def test_http_says_429_and_when_to_come_back(port: int, platform: Any) -> None:
    shed(platform, 3000, priority_above=-1)
    status, headers, body = await to_thread(post, port, 0)
    # Not the whole 50 minutes: the measure may be ended before its time.
    assert (status, headers["retry-after"], headers["x-should-retry"]) == (429, "60", "true")
    assert body["error"]["type"] == "rate_limit_exceeded"
    assert "are refused until" in body["error"]["message"]
    assert (await to_thread(post, port, -1))[0] == 200


async def test_what_is_admitted_stays_and_its_repeats_join_it(stub: Stub, platform: Any) -> None:
    first = await stub.Submit(asked("silent", idempotency_key="k"))
    made = shed(platform)
    assert (await stub.Submit(asked("silent", idempotency_key="k"))) == first
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Submit(asked(idempotency_key="new"))
    take(platform, end_record(made, made.until, "ada", "penstock.control", "test"))
    # A refusal does not use the key up.
    assert (await stub.Submit(asked(idempotency_key="new"))).request_id
    assert len(platform.admitted) == 2


async def test_other_models_are_served(stub: Stub, platform: Any) -> None:
    platform.route("other")
    shed(platform)
    request = asked(priority=100)
    request.model = "other"
    assert (await stub.Generate(request)).text


async def test_it_is_over_at_its_time(stub: Stub, platform: Any) -> None:
    now = dt.datetime.now(dt.UTC)
    made = Measure("m-1", Kind.SHED, "triage", now - dt.timedelta(seconds=60), now)
    take(platform, measure_record(made, "penstock.control", "test"))
    assert (await stub.Generate(asked())).text
