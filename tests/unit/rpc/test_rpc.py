"""A server and its channel: errors keep their meaning, nothing of the inside leaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider

from penstock.errors import Code, InvalidRequest, PenstockError, Unavailable
from penstock.rpc.channel import open_channel
from penstock.rpc.errors import (
    FailedPrecondition,
    NotFound,
    error_of,
    status_code_of,
    status_of,
)
from penstock.rpc.metrics import RPC_SECONDS
from penstock.rpc.server import Server, Service
from penstock.v1 import inference_service_pb2, inference_service_pb2_grpc, request_pb2, response_pb2

Context = grpc.aio.ServicerContext
NAME = "penstock.v1.Inference"


class Scripted(inference_service_pb2_grpc.InferenceServicer):
    """Raises what a test put into `error`; otherwise says hello."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.trace = ""

    async def Generate(
        self, request: request_pb2.GenerateRequest, context: Context
    ) -> response_pb2.GenerateResponse:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        self.trace = carrier.get("traceparent", "")
        if self.error:
            raise self.error
        if request.prompt == "abort":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now")
        return response_pb2.GenerateResponse(text="hello")

    async def GenerateStream(
        self, request: request_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_service_pb2.GenerateStreamResponse]:
        yield inference_service_pb2.GenerateStreamResponse()
        if self.error:
            raise self.error


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
async def channel(scripted: Scripted) -> AsyncIterator[grpc.aio.Channel]:
    register = partial(inference_service_pb2_grpc.add_InferenceServicer_to_server, scripted)
    server = Server([Service(NAME, register)], host="127.0.0.1", port=0, max_message_bytes=100_000)
    port = await server.start()
    await server.set_ready(True)
    async with open_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


def stub_of(channel: grpc.aio.Channel) -> inference_service_pb2_grpc.InferenceAsyncStub:
    return inference_service_pb2_grpc.InferenceStub(channel)


async def raised(call: object) -> PenstockError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return error_of(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("must be positive", field="sampling.top_k"),
        Unavailable("no engine"),
        PenstockError("too much", code=Code.ERROR_CODE_OVERLOADED, retryable=True),
        InvalidRequest("unknown", code=Code.ERROR_CODE_UNKNOWN_MODEL, field="model"),
        NotFound("no such response", field="request_id"),
        FailedPrecondition("no price"),
    ],
)
async def test_an_error_arrives_as_it_was_raised(
    channel: grpc.aio.Channel, scripted: Scripted, error: PenstockError
) -> None:
    scripted.error = error
    got = await raised(stub_of(channel).Generate(request_pb2.GenerateRequest()))
    assert (got.message, got.code, got.field, got.retryable) == (
        error.message,
        error.code,
        error.field,
        error.retryable,
    )
    assert isinstance(got, NotFound) == isinstance(error, NotFound)
    assert isinstance(got, FailedPrecondition) == isinstance(error, FailedPrecondition)


async def test_a_stream_ends_with_the_error(channel: grpc.aio.Channel, scripted: Scripted) -> None:
    scripted.error = PenstockError("other text", code=Code.ERROR_CODE_STREAM_DIVERGED)
    events = aiter(stub_of(channel).GenerateStream(request_pb2.GenerateRequest()))
    await anext(events)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(events)
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert error_of(caught.value).code == Code.ERROR_CODE_STREAM_DIVERGED


async def test_the_unforeseen_is_internal_and_says_nothing(
    channel: grpc.aio.Channel, scripted: Scripted
) -> None:
    scripted.error = RuntimeError("password is hunter2")
    call = stub_of(channel).Generate(
        request_pb2.GenerateRequest(), metadata=(("x-request-id", "call-7"),)
    )
    got = await raised(call)
    assert got.code == Code.ERROR_CODE_INTERNAL
    assert "hunter2" not in got.message
    assert "call-7" in got.message


async def test_a_handlers_own_abort_passes(channel: grpc.aio.Channel) -> None:
    got = await raised(stub_of(channel).Generate(request_pb2.GenerateRequest(prompt="abort")))
    assert isinstance(got, FailedPrecondition)
    assert got.message == "not now"


async def test_an_over_long_message_is_refused_by_the_server(scripted: Scripted) -> None:
    register = partial(inference_service_pb2_grpc.add_InferenceServicer_to_server, scripted)
    server = Server([Service(NAME, register)], host="127.0.0.1", port=0, max_message_bytes=1000)
    port = await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        request = request_pb2.GenerateRequest(prompt="x" * 5000)
        got = await raised(stub_of(channel).Generate(request))
    await server.stop(0)
    assert got.code == Code.ERROR_CODE_OVERLOADED  # gRPC's own RESOURCE_EXHAUSTED


async def test_calls_are_counted_by_method_and_status(
    channel: grpc.aio.Channel, scripted: Scripted
) -> None:
    def count(code: str) -> float:
        samples = next(iter(RPC_SECONDS.collect())).samples
        return sum(
            s.value
            for s in samples
            if s.name.endswith("_count")
            and s.labels == {"method": f"{NAME}/Generate", "code": code}
        )

    before = count("OK"), count("NOT_FOUND"), count("FAILED_PRECONDITION")
    stub = stub_of(channel)
    await stub.Generate(request_pb2.GenerateRequest())
    await raised(stub.Generate(request_pb2.GenerateRequest(prompt="abort")))
    scripted.error = NotFound("gone")
    await raised(stub.Generate(request_pb2.GenerateRequest()))
    after = count("OK"), count("NOT_FOUND"), count("FAILED_PRECONDITION")
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 1]


async def test_the_trace_goes_on(channel: grpc.aio.Channel, scripted: Scripted) -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("client") as span:
        await stub_of(channel).Generate(request_pb2.GenerateRequest())
    assert format(span.get_span_context().trace_id, "032x") in scripted.trace
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_health_follows_readiness(scripted: Scripted) -> None:
    register = partial(inference_service_pb2_grpc.add_InferenceServicer_to_server, scripted)
    server = Server([Service(NAME, register)], host="127.0.0.1", port=0)
    port = await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        seen = []
        async for answer in health.Watch(health_pb2.HealthCheckRequest(service=NAME)):
            seen.append(answer.status)
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                break
            await server.set_ready(True)
    await server.stop(0)
    assert seen == [2, 1]


async def test_reflection_lists_the_service(channel: grpc.aio.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    async for answer in call:
        names = [service.name for service in answer.list_services_response.service]
        assert NAME in names
        break


async def test_a_taken_port_is_an_error(scripted: Scripted) -> None:
    register = partial(inference_service_pb2_grpc.add_InferenceServicer_to_server, scripted)
    first = Server([Service(NAME, register)], host="127.0.0.1", port=0)
    port = await first.start()
    second = Server([Service(NAME, register)], host="127.0.0.1", port=port)
    with pytest.raises(OSError, match=str(port)):
        await second.start()
    await first.stop(0)


async def test_stop_lets_calls_end_within_the_grace(scripted: Scripted) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    class Slow(inference_service_pb2_grpc.InferenceServicer):
        async def Generate(self, request: Message, context: Context) -> Message:
            entered.set()
            await release.wait()
            return response_pb2.GenerateResponse(text="late")

    register = partial(inference_service_pb2_grpc.add_InferenceServicer_to_server, Slow())
    server = Server([Service(NAME, register)], host="127.0.0.1", port=0)
    port = await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        call = stub_of(channel).Generate(request_pb2.GenerateRequest())
        await entered.wait()
        stop = asyncio.create_task(server.stop(5))
        await asyncio.sleep(0)
        release.set()
        assert (await call).text == "late"
        await stop


def test_every_code_has_a_status() -> None:
    for number in Code.values():
        if number:
            error = PenstockError("x", code=number)
            assert status_code_of(error) is not grpc.StatusCode.UNKNOWN
            assert status_of(error).code == status_code_of(error).value[0]
