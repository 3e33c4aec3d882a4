"""Over a tenant's bound every door refuses with the same reason, and others are served."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from asyncio import to_thread
from typing import Any, TypeAlias

import grpc
import pytest

from penstock.errors import Code
from penstock.rpc.errors import error_of
from penstock.v1 import inference_service_pb2_grpc, request_pb2
from penstock_ingest.admission.quota import TenantQuota

Stub: TypeAlias = "inference_service_pb2_grpc.InferenceAsyncStub"
BOUND = 20


def asked(text: str = "hello", **fields: Any) -> request_pb2.GenerateRequest:
    return request_pb2.GenerateRequest(prompt=text, tenant="acme", **fields)


async def fill(stub: Stub, platform: Any) -> None:
    for n in range(BOUND):
        await stub.Submit(asked("silent", idempotency_key=f"k{n}"))
    assert len(platform.quota) == BOUND


def post(port: int, tenant: str) -> tuple[int, dict[str, str], Any]:
    call = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps({"model": "triage", "messages": [{"role": "user", "content": "hi"}]}).encode(),
        {"content-type": "application/json", "x-penstock-tenant": tenant},
    )
    try:
        with urllib.request.urlopen(call, timeout=10) as answer:
            return answer.status, dict(answer.headers), json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), json.load(error)


@pytest.mark.parametrize("method", ["Generate", "Submit", "GenerateStream"])
async def test_grpc_says_resource_exhausted(stub: Stub, platform: Any, method: str) -> None:
    await fill(stub, platform)
    with pytest.raises(grpc.aio.AioRpcError) as caught:  # noqa: PT012 - a stream raises when read
        call = getattr(stub, method)(asked())
        await (call.read() if method == "GenerateStream" else call)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    error = error_of(caught.value)
    assert (error.code, error.retryable, error.field) == (
        Code.ERROR_CODE_OVERLOADED,
        True,
        "tenant",
    )
    assert f"tenant acme has {BOUND} requests queued" in error.message
    assert len(platform.waiters) == 0
    assert len(platform.admitted) == BOUND


async def test_http_says_429_and_when_to_come_back(stub: Stub, port: int, platform: Any) -> None:
    await fill(stub, platform)
    status, headers, body = await to_thread(post, port, "acme")
    assert (status, headers["retry-after"], headers["x-should-retry"]) == (429, "1", "true")
    assert "PENSTOCK_INGEST_MAX_QUEUED_PER_TENANT" in body["error"]["message"]
    assert (await to_thread(post, port, "rival"))[0] == 200


async def test_a_repeat_of_what_is_queued_joins_it(stub: Stub, platform: Any) -> None:
    await fill(stub, platform)
    first = await stub.Submit(asked("silent", idempotency_key="k0"))
    assert first.request_id == platform.admitted[0].request_id
    assert len(platform.admitted) == BOUND


async def test_a_refused_key_can_be_used_once_there_is_room(stub: Stub, platform: Any) -> None:
    await fill(stub, platform)
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Submit(asked(idempotency_key="late"))
    await platform.run(with_text(platform.admitted[0], "done"), b"k")
    response = await stub.Generate(asked(idempotency_key="late"), timeout=5)
    assert response.text.startswith("You said: hello")


async def test_what_ended_or_was_not_written_makes_room(stub: Stub, platform: Any) -> None:
    for _ in range(2 * BOUND):
        await stub.Generate(asked(), timeout=5)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Generate(asked("unwritten"), timeout=5)
    assert isinstance(platform.quota, TenantQuota)
    assert len(platform.quota) == 0


def with_text(admitted: Any, text: str) -> Any:
    changed = type(admitted)()
    changed.CopyFrom(admitted)
    changed.request.prompt = text
    return changed
