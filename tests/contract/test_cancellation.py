"""Requests end before their time when their callers leave or their tenant says so; no others do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, TypeAlias

import grpc
import httpx
import pytest
from openai import AsyncOpenAI

from penstock.errors import Code
from penstock.identity import id_of_key
from penstock.rpc.errors import NotFound, error_of
from penstock.v1 import (
    inference_service_pb2,
    inference_service_pb2_grpc,
    request_pb2,
    response_pb2,
)

Stub: TypeAlias = "inference_service_pb2_grpc.InferenceAsyncStub"
Start: TypeAlias = Callable[..., asyncio.Future[Any]]


@pytest.fixture
def url(port: int) -> str:
    return f"http://127.0.0.1:{port}/v1"


@pytest.fixture
async def doors(stub: Stub, url: str) -> AsyncIterator[dict[str, Start]]:
    """Each way to wait for an answer: begins a call whose task or call can be cancelled."""
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        def ask(text: str, *, stream: bool, **fields: Any) -> asyncio.Future[Any]:
            headers = {
                "X-Penstock-Tenant": fields.get("tenant", ""),
                "Idempotency-Key": fields.get("idempotency_key", ""),
            }

            async def read() -> str:
                answer: Any = await client.chat.completions.create(
                    model="triage",
                    messages=[{"role": "user", "content": text}],
                    stream=stream,
                    extra_headers={k: v for k, v in headers.items() if v},
                )
                if not stream:
                    return str(answer.choices[0].message.content)
                return "".join([e.choices[0].delta.content or "" async for e in answer])

            return asyncio.ensure_future(read())

        async def events(call: Any) -> list[Any]:
            return [event async for event in call]

        yield {
            "grpc": lambda text, **f: asyncio.ensure_future(stub.Generate(said(text, **f))),
            "grpc stream": lambda text, **f: asyncio.ensure_future(
                events(stub.GenerateStream(said(text, **f)))
            ),
            "http": partial(ask, stream=False),
            "http stream": partial(ask, stream=True),
        }


RETURN_S = 0.1  # see conftest
DOORS = pytest.mark.parametrize("door", ["grpc", "grpc stream", "http", "http stream"])


def said(text: str, **fields: Any) -> request_pb2.GenerateRequest:
    return request_pb2.GenerateRequest(prompt=text, **fields)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@DOORS
@pytest.mark.parametrize("text", ["silent", "endless"])
async def test_a_caller_that_leaves_cancels(
    doors: dict[str, Start], platform: Any, door: str, text: str
) -> None:
    call = doors[door](text, tenant="acme")
    await until(lambda: len(platform.admitted))
    await asyncio.sleep(0.05)  # of a stream, some text is on its way
    call.cancel()
    await until(lambda: platform.cancelled)
    (admitted,), (cancel,) = platform.admitted, platform.cancelled
    assert (cancel.request_id, cancel.tenant) == (admitted.request_id, "acme")
    assert cancel.deadline.seconds == admitted.deadline.seconds
    assert admitted.admitted_at.ToMilliseconds() <= cancel.requested_at.ToMilliseconds()
    found = platform.index.find(admitted.request_id, "acme", 0)
    assert found.response.outcome == response_pb2.OUTCOME_CANCELLED
    await until(lambda: not len(platform.waiters))


@DOORS
async def test_the_last_caller_to_leave_cancels(
    doors: dict[str, Start], platform: Any, door: str
) -> None:
    calls = [doors[name]("silent", idempotency_key="k") for name in ("grpc", door)]
    request_id = id_of_key("default", "k")
    await until(lambda: platform.callers(request_id) == 2)
    calls[0].cancel()
    await until(lambda: platform.callers(request_id) == 1)
    await asyncio.sleep(2 * RETURN_S)
    assert platform.cancelled == []
    calls[1].cancel()
    await until(lambda: platform.cancelled)
    assert len(platform.cancelled) == 1


async def test_whoever_comes_back_under_the_key_finds_the_request_running(
    stub: Stub, platform: Any
) -> None:
    for _ in range(2):
        call = stub.Generate(said("silent", idempotency_key="k"))
        await until(lambda: len(platform.waiters))
        call.cancel()
        await until(lambda: not len(platform.waiters))
    call = stub.Generate(said("silent", idempotency_key="k"))
    await until(lambda: len(platform.waiters))
    await asyncio.sleep(2 * RETURN_S)
    assert platform.cancelled == []
    call.cancel()
    await until(lambda: platform.cancelled)  # once nobody comes back
    assert len(platform.admitted) == len(platform.cancelled) == 1


async def test_a_key_whose_first_request_was_not_written_is_free_of_it(
    stub: Stub, platform: Any
) -> None:
    platform.writing.clear()
    call = stub.Generate(said("unwritten", idempotency_key="k"))
    await until(lambda: len(platform.waiters))
    call.cancel()
    await until(lambda: not len(platform.waiters))
    platform.writing.set()
    await until(lambda: not platform.desk._publishing)
    call = stub.Generate(said("silent", idempotency_key="k"))
    await until(lambda: platform.admitted)
    await asyncio.sleep(2 * RETURN_S)
    assert platform.cancelled == []
    call.cancel()


@pytest.mark.parametrize("first", ["submit", "generate"])
async def test_what_was_submitted_goes_on_when_others_leave(
    stub: Stub, platform: Any, first: str
) -> None:
    request = said("silent", idempotency_key="k")
    if first == "submit":
        await stub.Submit(request)
    call = stub.Generate(request)
    await until(lambda: len(platform.waiters))
    if first == "generate":
        await stub.Submit(request)
    query = inference_service_pb2.GetResponseRequest(
        request_id=id_of_key("default", "k"), wait_s=60
    )
    fetch = stub.GetResponse(query)
    await until(lambda: platform.callers(query.request_id) == 2)
    call.cancel()
    fetch.cancel()
    await until(lambda: not len(platform.waiters))
    await asyncio.sleep(2 * RETURN_S)
    assert platform.cancelled == []


@DOORS
@pytest.mark.parametrize("by", ["grpc", "http"])
async def test_the_tenant_ends_a_request_and_its_caller_is_told(
    doors: dict[str, Start], stub: Stub, url: str, platform: Any, door: str, by: str
) -> None:
    call = doors[door]("silent", tenant="acme")
    await until(lambda: platform.admitted)
    request_id = platform.admitted[0].request_id
    for _ in range(2):  # the second finds it ended
        await cancel(stub, url, by, request_id, "acme")
    assert len(platform.cancelled) == 1
    with pytest.raises(Exception, match="it ended: cancelled") as caught:
        await call
    error: Any = caught.value
    if door.startswith("grpc"):
        assert error.code() is grpc.StatusCode.CANCELLED
        assert error_of(error).code == Code.ERROR_CODE_CANCELLED
    else:
        assert (error.status_code, error.code) == (499, "cancelled")
    query = inference_service_pb2.GetResponseRequest(request_id=request_id, tenant="acme")
    response = await stub.GetResponse(query)
    assert response.outcome == response_pb2.OUTCOME_CANCELLED
    assert response.error.message


async def cancel(stub: Stub, url: str, by: str, request_id: str, tenant: str) -> Any:
    if by == "grpc":
        query = inference_service_pb2.CancelRequest(request_id=request_id, tenant=tenant)
        return await stub.Cancel(query)
    async with httpx.AsyncClient() as client:
        address = f"{url}/requests/{request_id}/cancel"
        answer = await client.post(address, headers={"X-Penstock-Tenant": tenant})
        return answer.status_code, json.loads(answer.text)


async def test_what_was_submitted_is_cancelled_by_its_id(stub: Stub, platform: Any) -> None:
    submitted = await stub.Submit(said("silent"))
    await stub.Cancel(inference_service_pb2.CancelRequest(request_id=submitted.request_id))
    query = inference_service_pb2.GetResponseRequest(request_id=submitted.request_id, wait_s=5)
    assert (await stub.GetResponse(query)).outcome == response_pb2.OUTCOME_CANCELLED


async def test_no_other_tenants_request_can_be_cancelled_or_told_from_none(
    stub: Stub, url: str, platform: Any
) -> None:
    submitted = await stub.Submit(said("silent", tenant="acme"))
    messages = set()
    for request_id in (submitted.request_id, "req-none"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await cancel(stub, url, "grpc", request_id, "rival")
        assert isinstance(error_of(caught.value), NotFound)
        messages.add(caught.value.details())
        status, body = await cancel(stub, url, "http", request_id, "rival")
        assert status == 404
        assert set(body["error"]) == {"message", "type", "param", "code"}
        messages.add(body["error"]["message"])
    assert len(messages) == 1
    assert platform.cancelled == []


async def test_a_request_that_ended_stays_as_it_is(stub: Stub, url: str, platform: Any) -> None:
    response = await stub.Generate(said("hello"))
    await until(lambda: platform.index.find(response.request_id, "default", 0))
    assert await cancel(stub, url, "http", response.request_id, "") == (
        202,
        {"id": response.request_id, "object": "request.cancellation"},
    )
    query = inference_service_pb2.GetResponseRequest(request_id=response.request_id)
    assert (await stub.GetResponse(query)).outcome == response_pb2.OUTCOME_ANSWERED
    assert platform.cancelled == []


async def test_a_cancellation_that_comes_too_late_changes_nothing(
    stub: Stub, platform: Any
) -> None:
    submitted = await stub.Submit(said("hello"))
    # The response is committed, but not read here yet.
    await asyncio.gather(
        stub.Cancel(inference_service_pb2.CancelRequest(request_id=submitted.request_id)),
        *platform.running(),
    )
    query = inference_service_pb2.GetResponseRequest(request_id=submitted.request_id)
    assert (await stub.GetResponse(query)).outcome == response_pb2.OUTCOME_ANSWERED


async def test_a_request_that_is_just_being_admitted_is_waited_for(
    stub: Stub, platform: Any
) -> None:
    async def later() -> None:
        await asyncio.sleep(0.1)
        await stub.Submit(said("silent", idempotency_key="k"))

    query = inference_service_pb2.CancelRequest(request_id=id_of_key("default", "k"))
    await asyncio.gather(stub.Cancel(query), later())
    assert len(platform.cancelled) == 1


async def test_without_an_id_nothing_is_cancelled(stub: Stub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Cancel(inference_service_pb2.CancelRequest())
    assert error_of(caught.value).field == "request_id"


async def test_a_deadline_is_no_cancellation(stub: Stub, platform: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Generate(said("silent"), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: not len(platform.waiters))
    await asyncio.sleep(0.05)
    assert platform.cancelled == []


async def test_a_stream_that_diverged_is_not_given_up(stub: Stub, platform: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stub.GenerateStream(said("diverge")):
            pass
    assert caught.value.code() is grpc.StatusCode.ABORTED
    await asyncio.sleep(0.05)
    assert platform.cancelled == []


async def test_callers_that_this_instance_cuts_off_do_not_cancel(stub: Stub, platform: Any) -> None:
    call = stub.Generate(said("silent"))
    await until(lambda: len(platform.waiters))
    platform.desk.stop()
    call.cancel()
    await until(lambda: not len(platform.waiters))
    await asyncio.sleep(0.05)
    assert platform.cancelled == []
