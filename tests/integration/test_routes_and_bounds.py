"""Routes, shadow copies and the tenant's bound on a real Kafka, ingest killed in between."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner, Result

from penstock.cli.app import app
from penstock.codec import decode, encode
from penstock.errors import Code
from penstock.rpc.channel import open_channel
from penstock.rpc.errors import error_of
from penstock.v1 import admitted_pb2, common_pb2, request_pb2, response_pb2
from penstock.v1.inference_service_pb2_grpc import InferenceStub
from penstock_native.kafka import KafkaServer
from tests.integration.ingest_process import Ingest, running

pytestmark = pytest.mark.integration

BOUND = 5


@pytest.fixture
async def ingest(
    kafka: KafkaServer, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Ingest]:
    prefix = f"routes-{request.node.name.replace('_', '-')}"
    bound = BOUND if "bound" in request.node.name else 0
    settings = {"PENSTOCK_INGEST_MAX_QUEUED_PER_TENANT": str(bound)}
    async with running(kafka, prefix, tmp_path / "ingest.log", **settings) as process:
        yield process


async def admitted(ingest: Ingest) -> list[admitted_pb2.AdmittedRequest]:
    return [decode(r, admitted_pb2.AdmittedRequest) for r in await ingest.read("admitted")]


async def several(ingest: Ingest, count: int) -> list[admitted_pb2.AdmittedRequest]:
    give_up = time.monotonic() + 60
    while len(found := await admitted(ingest)) < count:
        assert time.monotonic() < give_up, ingest.log.read_text()[-3000:]
        await asyncio.sleep(0.05)
    return found


async def submit(ingest: Ingest, tenant: str = "acme") -> str:
    async with open_channel(f"127.0.0.1:{ingest.grpc_port}") as channel:
        sent = request_pb2.GenerateRequest(prompt="x", tenant=tenant)
        return (await InferenceStub(channel).Submit(sent, wait_for_ready=True)).request_id


async def test_a_request_and_its_copy_are_there_together_or_not_at_all(ingest: Ingest) -> None:
    await ingest.route(shadow=100)
    await ingest.until_ready()
    total = 600

    kills = 0

    async def produce() -> None:
        for start in range(0, total, 50):
            while kills < min(2, start // 200):  # there is always something left to be killed in
                await asyncio.sleep(0.05)
            await ingest.publish(
                [
                    ingest.request(b'{"prompt": "x", "timeout": "3600s"}', f"key {n}")
                    for n in range(start, start + 50)
                ]
            )
            await asyncio.sleep(0.1)

    producing = asyncio.create_task(produce())
    while True:
        read = await admitted(ingest)
        copies = {a.origin_request_id for a in read if a.purpose}
        requests = {a.request_id for a in read if not a.purpose}
        assert copies == requests  # committed is what both are
        assert len(read) == 2 * len(requests)
        if producing.done() and len(requests) == total:
            break
        if kills < 2 and len(requests) > kills * 200 + 50:
            ingest.kill(signal.SIGKILL)
            ingest.start()
            kills += 1
            await ingest.until_ready()
    await producing
    assert kills == 2
    for copy in (a for a in read if a.purpose):
        assert copy.purpose == common_pb2.PURPOSE_SHADOW
        assert (copy.request_id, copy.variant) == (f"{copy.origin_request_id}~shadow", "shadow")
        assert not copy.request.ordering_key
        assert not copy.HasField("reply_partition")
    keys = Counter(r.key for r in await ingest.read("admitted"))
    assert set(keys.values()) == {2}


async def test_a_lower_version_is_refused_and_a_copy_comes_with_the_grpc_door(
    ingest: Ingest,
) -> None:
    await ingest.route(3, champion="newer", shadow=100)
    await ingest.until_ready()
    await ingest.route(2, champion="older")
    await ingest.route(3, champion="other")
    while ingest.log.read_text().count("route refused: not newer") < 2:
        await asyncio.sleep(0.05)
    request_id = await submit(ingest)
    request, copy = await several(ingest, 2)
    assert (request.variant, request.route_version) == ("newer", 3)
    assert (request.request_id, copy.origin_request_id) == (request_id, request_id)
    assert copy.variant == "shadow"


def command(ingest: Ingest, *arguments: str) -> Result:
    env = {
        "PENSTOCK_KAFKA_BOOTSTRAP": ingest.bootstrap,
        "PENSTOCK_TOPIC_PREFIX": ingest.prefix,
        "COLUMNS": "200",
    }
    return CliRunner().invoke(app, ["routes", *arguments], env=env)


async def test_an_operator_moves_traffic_and_takes_it_back(ingest: Ingest, tmp_path: Path) -> None:
    async def routes(*arguments: str) -> Result:
        return await asyncio.to_thread(command, ingest, *arguments)

    file = tmp_path / "routes.json"
    route = {
        "model": "triage",
        "version": "1",
        "variants": [
            {"name": "base", "base_model": "m", "weight": 100, "stage": "STAGE_CHAMPION"},
            {"name": "new", "base_model": "m", "weight": 0, "stage": "STAGE_CANDIDATE"},
        ],
    }
    file.write_text(json.dumps([route]))
    assert (await routes("apply", str(file))).exit_code == 0
    moved = await routes("set", "triage", "--weight", "base=0", "--weight", "new=100")
    assert moved.stdout == "triage: version 2 written: base 0 %, new 100 %\n"
    lower = await routes("apply", str(file))
    assert lower.exit_code == 1
    assert "version 2 is there and the file has 1" in lower.stderr
    await ingest.until_ready()
    await submit(ingest)
    assert [a.variant for a in await several(ingest, 1)] == ["new"]
    started = time.monotonic()
    back = await routes("rollback", "triage")
    assert back.stdout == "triage: version 3 written: base 100 %, new 0 %\n"
    while '"version": 3' not in (log := ingest.log.read_text()):
        assert time.monotonic() < started + 30, log[-3000:]
        await asyncio.sleep(0.02)
    await submit(ingest)
    both = {(a.variant, a.route_version) for a in await several(ingest, 2)}
    assert both == {("new", 2), ("base", 3)}
    again = await routes("rollback", "triage")
    assert "version 3 says so already; nothing is written" in again.stdout
    assert (await routes("rollback", "triage", "--to", "2")).exit_code == 0
    versions = [
        json.loads(x) for x in (await routes("history", "triage", "--json")).stdout.split("\n") if x
    ]
    assert [v["route"]["version"] for v in versions] == ["1", "2", "3", "4"]
    assert {v["writer"] for v in versions} == {"cli"}
    assert versions[3]["route"]["variants"] == versions[1]["route"]["variants"]
    unknown = await routes("set", "other", "--weight", "base=1")
    assert (unknown.exit_code, "other has no route" in unknown.stderr) == (1, True)
    listed = await routes("list")
    assert "100 %" in listed.stdout


async def test_the_bound_holds_at_every_door_and_outlives_a_restart(ingest: Ingest) -> None:
    await ingest.route(shadow=100)
    await ingest.until_ready()
    body = b'{"prompt": "x", "tenant": "acme", "timeout": "3600s"}'
    await ingest.publish([ingest.request(body, f"k{n}") for n in range(BOUND + 3)])
    found = await several(ingest, 2 * BOUND)
    give_up = time.monotonic() + 30
    while len(read := await ingest.read("responses")) < 3:
        assert time.monotonic() < give_up, ingest.log.read_text()[-3000:]
    refused = [decode(r, response_pb2.GenerateResponse) for r in read]
    assert {r.outcome for r in refused} == {response_pb2.OUTCOME_REJECTED}
    assert {(r.error.code, r.error.retryable) for r in refused} == {
        (Code.ERROR_CODE_OVERLOADED, True)
    }
    await over_the_bound(ingest)
    # Who comes after a crash counts from the log.
    ingest.kill()
    ingest.start()
    await ingest.until_ready()
    await over_the_bound(ingest)
    await submit(ingest, tenant="rival")
    request = next(a for a in found if not a.purpose)
    ended = response_pb2.GenerateResponse(
        request_id=request.request_id, outcome=response_pb2.OUTCOME_ANSWERED, tenant="acme"
    )
    topic = f"{ingest.prefix}.responses"
    await ingest.publish([encode(ended, topic=topic, key="k", source="test")])
    give_up = time.monotonic() + 30
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await submit(ingest)
            break
        assert time.monotonic() < give_up
        await asyncio.sleep(0.05)
    await over_the_bound(ingest)


async def over_the_bound(ingest: Ingest) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await submit(ingest)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"tenant acme has {BOUND} requests queued" in error_of(caught.value).message
    status, retry_after = await asyncio.to_thread(post, ingest.http_port)
    assert (status, retry_after) == (429, "1")


def post(port: int) -> tuple[int, str | None]:
    call = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions",
        b'{"model": "triage", "prompt": "x"}',
        {"content-type": "application/json", "x-penstock-tenant": "acme"},
    )
    try:
        with urllib.request.urlopen(call, timeout=10) as answer:
            return answer.status, None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["retry-after"]
