"""What a client sees of the request plane when something is cut short.

The engine is the scripted one, which can be told to take long, to die and to say something else;
all around it is real.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import pytest

from penstock.v1 import inference_service_pb2, request_pb2, response_pb2
from penstock.v1.inference_service_pb2_grpc import InferenceStub
from penstock_native.processes import marked
from penstock_native.scrape import samples
from penstock_native.stack import Stack
from tests.e2e.support import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

POISON = "this prompt kills engines"
SLOTS = 8
SETTINGS = {
    "PENSTOCK_INFERENCE_ENGINE": "scripted",
    "PENSTOCK_INFERENCE_ENGINE_CPUS": "0.1",
    "PENSTOCK_INFERENCE_SCRIPTED_TOKENS": "5000",
    "PENSTOCK_INFERENCE_SCRIPTED_TOKEN_S": "0.02",
    "PENSTOCK_INFERENCE_SCRIPTED_SLOTS": str(SLOTS),
    "PENSTOCK_INFERENCE_SCRIPTED_POISON": POISON,
    "PENSTOCK_INFERENCE_SCRIPTED_DIVERGE": "1",
}
LONG = 5000  # tokens: a hundred seconds; no command takes as long to start


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    services = ("kafka", "ingest", "inference", "cost")
    with Stack.ephemeral(services=services, env=SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def door(stack: Stack) -> Iterator[InferenceStub]:
    with grpc.insecure_channel(f"127.0.0.1:{stack.env['PENSTOCK_INGEST_GRPC_PORT']}") as channel:
        yield InferenceStub(channel)


def asked(
    prompt: str = "x", *, max_tokens: int = 2, tenant: str = "acme", priority: int = 0
) -> request_pb2.GenerateRequest:
    request = request_pb2.GenerateRequest(
        prompt=prompt, tenant=tenant, no_cache=True, priority=priority
    )
    request.sampling.max_tokens = max_tokens
    request.timeout.FromSeconds(120)
    return request


def running(stack: Stack) -> float:
    """Generations that the engine has now."""
    port = int(stack.env["PENSTOCK_INFERENCE_METRICS_PORT"]) + 10
    (found,) = (each for each in samples(port) if each.name == "penstock_engine_running")
    return float(found.value)


def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, "it did not come about in time"
        time.sleep(0.05)


def response_of(
    door: InferenceStub, request_id: str, tenant: str = "acme"
) -> response_pb2.GenerateResponse:
    wanted = inference_service_pb2.GetResponseRequest(
        request_id=request_id, tenant=tenant, wait_s=60
    )
    return door.GetResponse(wanted, timeout=70)


def engines(stack: Stack) -> Sequence[int]:
    mark = marked("PENSTOCK_NATIVE_STACK", str(stack.state_dir))
    titles = {each.pid: _title(each.pid) for each in mark}
    return [pid for pid, title in titles.items() if "ServeReplica:engine-triage" in title]


def _title(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def test_a_cancelled_call_leaves_the_engine_and_is_billed_for_what_was_made(
    stack: Stack, door: InferenceStub
) -> None:
    call = door.GenerateStream(asked(max_tokens=LONG))
    chunk = next(iter(call)).chunk
    assert running(stack) == 1
    call.cancel()
    until(lambda: running(stack) == 0, 30)
    response = response_of(door, chunk.request_id)
    assert response.outcome == response_pb2.OUTCOME_CANCELLED
    assert 0 < response.usage.completion_tokens < LONG


def test_a_closed_connection_leaves_the_engine(stack: Stack) -> None:
    body = json.dumps({"model": "triage", "prompt": "x", "max_tokens": LONG}).encode()
    port = int(stack.env["PENSTOCK_INGEST_HTTP_PORT"])
    with socket.create_connection(("127.0.0.1", port)) as client:
        head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
        client.sendall(head.encode() + b"content-type: application/json\r\n\r\n" + body)
        until(lambda: running(stack) == 1)
    until(lambda: running(stack) == 0, 30)


def test_a_submitted_request_is_cancelled_by_its_tenant_only(
    stack: Stack, door: InferenceStub
) -> None:
    request_id = door.Submit(asked(max_tokens=LONG)).request_id
    until(lambda: running(stack) == 1)
    with pytest.raises(grpc.RpcError) as refused:
        door.Cancel(inference_service_pb2.CancelRequest(request_id=request_id, tenant="mallory"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert running(stack) == 1
    stack.penstock("cancel", request_id, "--tenant", "acme")
    until(lambda: running(stack) == 0, 30)
    assert response_of(door, request_id).outcome == response_pb2.OUTCOME_CANCELLED


def test_a_single_request_does_not_wait_behind_another_tenants_many(door: InferenceStub) -> None:
    many = [asked(f"many {n}", max_tokens=100, tenant="big") for n in range(200)]
    with ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(lambda request: door.Submit(request).request_id, many))
    # Some are with the engine, the rest is queued: eight at a time, two seconds each.
    answer = door.Generate(asked(tenant="small"), timeout=60)
    assert answer.outcome == response_pb2.OUTCOME_ANSWERED
    for request_id in ids:
        cancel(door, request_id, "big")
    others = [response_of(door, request_id, "big") for request_id in ids]
    sooner = [r for r in others if r.created_at.ToNanoseconds() < answer.created_at.ToNanoseconds()]
    assert len(sooner) < len(others) // 2


def cancel(door: InferenceStub, request_id: str, tenant: str = "acme") -> None:
    door.Cancel(inference_service_pb2.CancelRequest(request_id=request_id, tenant=tenant))


def test_a_rollback_takes_the_traffic_of_what_has_no_text_yet(
    stack: Stack, door: InferenceStub, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (route,) = json.loads((ROOT / "compose/routes.json").read_text())
    version = int(route["version"])
    champion = {**route["variants"][0], "weight": 0}
    bad = {**champion, "name": "bad", "stage": "STAGE_CANDIDATE", "weight": 1}
    file = tmp_path_factory.mktemp("routes") / "routes.json"
    file.write_text(
        json.dumps([{**route, "version": str(version + 1), "variants": [champion, bad]}])
    )
    stack.penstock("routes", "apply", str(file))
    until(lambda: door.Generate(asked(), timeout=60).variant == "bad")
    # Every slot is taken for longer than the command can take: until then none of them ends, and
    # none of those behind them begins. Chosen again, those behind them go first.
    slow = asked(max_tokens=LONG, priority=1)
    stream = door.GenerateStream(slow)
    with_text = next(iter(stream)).chunk.request_id
    begun = [door.Submit(slow).request_id for _ in range(SLOTS - 1)]
    until(lambda: running(stack) == SLOTS)
    time.sleep(0.5)  # had one of them been a probe, the next of these would have its slot now
    queued = [door.Submit(asked(max_tokens=20)).request_id for _ in range(20)]
    stack.penstock("routes", "rollback", "triage")
    answers = [response_of(door, request_id) for request_id in queued]
    assert {r.outcome for r in answers} == {response_pb2.OUTCOME_ANSWERED}
    # Cancelled, they tell who had them.
    for request_id in (with_text, *begun):
        cancel(door, request_id)
    first, *others = [response_of(door, request_id) for request_id in (with_text, *begun)]
    assert {r.outcome for r in (first, *others)} == {response_pb2.OUTCOME_CANCELLED}
    assert {r.variant for r in (*answers, *others)} == {"triage-base"}
    assert first.variant == "bad"


def test_a_request_that_kills_engines_is_given_up_and_the_others_are_answered(
    stack: Stack, door: InferenceStub
) -> None:
    poison = door.Submit(asked(POISON)).request_id
    innocent = [door.Submit(asked(f"innocent {n}", max_tokens=50)).request_id for n in range(20)]
    for request_id in innocent:
        response = _patiently(lambda i=request_id: response_of(door, i))
        assert response.outcome == response_pb2.OUTCOME_ANSWERED
    response = _patiently(lambda: response_of(door, poison))
    assert response.outcome == response_pb2.OUTCOME_FAILED
    listed = stack.penstock("dlq", "list", "--json")
    assert poison in listed
    assert POISON not in listed


def _patiently(
    ask: Callable[[], response_pb2.GenerateResponse],
) -> response_pb2.GenerateResponse:
    for _ in range(3):
        try:
            return ask()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
    return ask()


def test_a_stream_whose_rerun_says_something_else_ends_in_an_error_and_the_record_stands(
    stack: Stack, door: InferenceStub
) -> None:
    until(lambda: door.Generate(asked(), timeout=100).text)
    there = engines(stack)
    assert there
    call = door.GenerateStream(asked(max_tokens=200))
    events = iter(call)
    request_id = next(events).chunk.request_id
    for _ in range(20):
        next(events)
    for pid in there:
        with contextlib.suppress(ProcessLookupError):  # of an earlier engine, ending just then
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(grpc.RpcError) as ended:
        for _ in events:
            pass
    assert "fetch the committed response" in (ended.value.details() or "")
    response = response_of(door, request_id)
    assert response.outcome == response_pb2.OUTCOME_ANSWERED
    assert response.attempt > 1
    assert response.usage.completion_tokens == 200


def test_the_http_door_tells_a_cancelled_caller_why(stack: Stack) -> None:
    key = uuid.uuid4().hex
    url = f"http://127.0.0.1:{stack.env['PENSTOCK_INGEST_HTTP_PORT']}/v1/completions"
    body = {"model": "triage", "prompt": "x", "max_tokens": LONG}
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(
            httpx.post, url, json=body, headers={"idempotency-key": key}, timeout=120
        )
        until(lambda: running(stack) == 1)
        stack.penstock("cancel", "--idempotency-key", key)
        answer = call.result(60)
    assert answer.json()["error"]["code"] == "cancelled"
