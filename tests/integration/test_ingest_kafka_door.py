"""Ingest as a process on a real Kafka: each request is answered, also when ingest is killed."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from penstock.codec import decode, encode
from penstock.errors import Code
from penstock.records import Outgoing
from penstock.rpc.channel import open_channel
from penstock.rpc.errors import error_of
from penstock.v1 import admitted_pb2, request_pb2, response_pb2
from penstock.v1.inference_service_pb2_grpc import InferenceStub
from penstock_native.kafka import KafkaServer
from tests.integration.ingest_process import Ingest, running, until

pytestmark = pytest.mark.integration

JSON_TYPE = (("content-type", b"application/json"),)


@pytest.fixture
async def ingest(
    kafka: KafkaServer, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Ingest]:
    prefix = f"ingest-{request.node.name.replace('_', '-')}"
    # Nothing answers in these tests: what is sent stays queued.
    bound = {"PENSTOCK_INGEST_MAX_QUEUED_PER_TENANT": "0"}
    async with running(kafka, prefix, tmp_path / "ingest.log", **bound) as process:
        yield process


async def test_every_record_gets_its_response(ingest: Ingest) -> None:
    await ingest.route()
    await ingest.until_ready()
    proto = request_pb2.GenerateRequest(prompt="hello", tenant="acme").SerializeToString()
    await ingest.publish(
        [
            ingest.request(b'{"prompt": "hel', "malformed", JSON_TYPE),
            ingest.request(b'{"prompt": "hello", "model": "nope"}', "unknown"),
            ingest.request(b'{"prompt": "' + b"x" * 5_000_000 + b'"}', "large"),
            ingest.request(b'{"prompt": "hello"}', "bare"),
            ingest.request(proto, "protobuf"),
            ingest.request(b'{"prompt": "hello"}', "typed", (("content-type", b"text/csv"),)),
        ]
    )
    responses: dict[bytes | None, response_pb2.GenerateResponse] = {}
    admitted: dict[bytes | None, admitted_pb2.AdmittedRequest] = {}
    give_up = time.monotonic() + 30
    while len(responses) + len(admitted) < 6 and time.monotonic() < give_up:
        read = await ingest.read("responses")
        responses = {r.key: decode(r, response_pb2.GenerateResponse) for r in read}
        encodings = {r.key: r.header("content-type") for r in read}
        admitted = {
            r.key: decode(r, admitted_pb2.AdmittedRequest) for r in await ingest.read("admitted")
        }
    assert {key: r.error.code for key, r in responses.items()} == {
        b"malformed": Code.ERROR_CODE_MALFORMED,
        b"unknown": Code.ERROR_CODE_UNKNOWN_MODEL,
        b"large": Code.ERROR_CODE_TOO_LARGE,
        b"typed": Code.ERROR_CODE_MALFORMED,
    }
    assert set(encodings.values()) == {"application/json"}
    assert {key: (a.encoding, a.request.tenant) for key, a in admitted.items()} == {
        b"bare": (admitted_pb2.ENCODING_JSON, "default"),
        b"protobuf": (admitted_pb2.ENCODING_PROTOBUF, "acme"),
    }
    assert sorted(r.key or b"" for r in await ingest.read("dlq")) == [b"malformed", b"typed"]


async def test_killed_again_and_again_it_admits_each_request_once(ingest: Ingest) -> None:
    await ingest.route()
    await ingest.until_ready()
    names: list[str] = []
    killed = asyncio.Event()
    rounds = 0

    async def produce() -> None:
        while not killed.is_set():
            if len(names) >= 500 * rounds:  # a slow start is no reason for more than it can admit
                await asyncio.sleep(0.05)
                continue
            batch = [f"request-{len(names) + n}" for n in range(100)]
            names.extend(batch)
            # Every name twice, under keys that may lie on different partitions.
            await ingest.publish(
                [
                    ingest.request(
                        b'{"prompt": "x", "timeout": "3600s", "idempotency_key": "%s"}'
                        % name.encode(),
                        f"{copy}/{name}",
                    )
                    for name in batch
                    for copy in "ab"
                ]
            )
            await asyncio.sleep(0.2)

    producing = asyncio.create_task(produce())
    for _ in range(3):
        before = len(await ingest.read("admitted"))
        rounds += 1
        while len(await ingest.read("admitted")) <= before:
            assert not producing.done()
        ingest.kill()
        ingest.start()
        await ingest.until_ready()
    killed.set()
    await producing
    counts: Counter[str] = Counter()
    give_up = time.monotonic() + 60
    while len(counts) < len(names) and time.monotonic() < give_up:
        counts = Counter(
            decode(r, admitted_pb2.AdmittedRequest).request.idempotency_key
            for r in await ingest.read("admitted")
        )
    assert sorted(counts) == sorted(names)
    assert set(counts.values()) == {1}
    assert await ingest.read("responses") == []
    assert await ingest.read("dlq") == []


async def test_it_waits_for_a_route_and_stops_when_told(ingest: Ingest) -> None:
    await until(lambda: ingest.status() == 503, lambda: ingest.log.read_text()[-3000:])
    await ingest.publish([ingest.request(b'{"prompt": "early"}', "early")])
    async with open_channel(f"127.0.0.1:{ingest.grpc_port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await InferenceStub(channel).Generate(request_pb2.GenerateRequest(prompt="early"))
        assert error_of(caught.value).code == Code.ERROR_CODE_UNAVAILABLE
    assert await ingest.read("responses") == []
    await ingest.route()
    await ingest.until_ready()
    give_up = time.monotonic() + 30
    while not (admitted := await ingest.read("admitted")) and time.monotonic() < give_up:
        await asyncio.sleep(0.1)
    assert [r.key for r in admitted] == [b"early"]
    assert await asyncio.to_thread(ingest.kill, signal.SIGTERM) == 0


async def test_a_submitted_request_is_written_and_a_reply_reaches_the_caller(
    ingest: Ingest,
) -> None:
    await ingest.route()
    await ingest.until_ready()
    async with open_channel(f"127.0.0.1:{ingest.grpc_port}") as channel:
        call = asyncio.ensure_future(
            InferenceStub(channel).Generate(
                request_pb2.GenerateRequest(prompt="x", idempotency_key="k"), timeout=60
            )
        )
        while not (read := await ingest.read("admitted")):
            assert not call.done(), call
        (admitted,) = [decode(r, admitted_pb2.AdmittedRequest) for r in read]
        answer = response_pb2.GenerateResponse(
            request_id=admitted.request_id,
            outcome=response_pb2.OUTCOME_ANSWERED,
            text="y",
            tenant="default",
        )
        topic = f"{ingest.prefix}.replies"
        partition = admitted.reply_partition
        await ingest.publish(
            [encode(answer, topic=topic, key="k", source="test", partition=partition)]
        )
        assert (await call).text == "y"
        # After a restart nobody here remembers the key: the log does.
        ingest.kill()
        ingest.start()
        await ingest.until_ready()
        again = asyncio.ensure_future(
            InferenceStub(channel).Generate(
                request_pb2.GenerateRequest(prompt="x", idempotency_key="k"),
                timeout=60,
                wait_for_ready=True,
            )
        )
        await asyncio.sleep(1)
        topic = f"{ingest.prefix}.responses"
        await ingest.publish([encode(answer, topic=topic, key="k", source="test")])
        assert (await again).text == "y"
    assert len(await ingest.read("admitted")) == 1


async def test_what_waits_longer_than_the_drain_is_admitted_once_by_the_next_owner(
    ingest: Ingest,
) -> None:
    await ingest.route()
    await ingest.until_ready()
    await ingest.publish([Outgoing(f"{ingest.prefix}.routes", b"triage", None)])
    await until(lambda: ingest.status() == 503, lambda: ingest.log.read_text()[-3000:])
    keys = [f"key-{n % 5}" for n in range(40)]
    await ingest.publish(
        [
            ingest.request(b'{"prompt": "number %d"}' % number, key, JSON_TYPE)
            for number, key in enumerate(keys)
        ]
    )
    await until(lambda: "a partition waits" in ingest.log.read_text(), ingest.log.read_text)
    started = time.monotonic()
    assert await asyncio.to_thread(ingest.kill, signal.SIGTERM) == 0
    assert time.monotonic() - started > 7  # the drain's eight seconds
    assert await ingest.read("admitted") == []
    await ingest.route()
    ingest.start()
    await ingest.until_ready()
    give_up = time.monotonic() + 60
    while len(read := await ingest.read("admitted")) < len(keys) and time.monotonic() < give_up:
        await asyncio.sleep(0.2)
    await asyncio.sleep(1)
    found = [decode(r, admitted_pb2.AdmittedRequest) for r in await ingest.read("admitted")]
    assert len(read) == len(found) == len(keys)
    for key in set(keys):
        prompts = [a.request.prompt for a in found if a.request.ordering_key == key]
        assert prompts == [f"number {n}" for n, k in enumerate(keys) if k == key]
