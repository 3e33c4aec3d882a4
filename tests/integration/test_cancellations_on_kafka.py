"""Cancellations go through the log: from ingest's doors to whoever reads `control`."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from penstock.codec import decode
from penstock.identity import id_of_key
from penstock.kafka.ports import LogError
from penstock.rpc.channel import open_channel
from penstock.v1 import admitted_pb2, request_pb2
from penstock.v1.inference_service_pb2 import CancelRequest
from penstock.v1.inference_service_pb2_grpc import InferenceStub
from penstock_inference.pump.control import CancelledIds, Commands, ControlReader
from penstock_native.kafka import KafkaServer
from tests.integration.ingest_process import Ingest, running, until

pytestmark = pytest.mark.integration


@pytest.fixture
async def ingest(kafka: KafkaServer, tmp_path: Path) -> AsyncIterator[Ingest]:
    async with running(kafka, "cancellations", tmp_path / "ingest.log") as process:
        yield process


async def test_who_leaves_and_who_asks_cancel_through_the_log(ingest: Ingest) -> None:
    await ingest.route()
    await ingest.until_ready()
    heard: list[tuple[str, str]] = []
    commands = Commands(
        CancelledIds(), on_cancel=lambda *who: heard.append(who), on_resume=lambda _: None
    )
    reader = ControlReader(ingest.bootstrap, ingest.prefix, commands)
    reading = asyncio.create_task(reader.run())
    await reader.caught_up(30)
    async with open_channel(f"127.0.0.1:{ingest.grpc_port}") as channel:
        stub = InferenceStub(channel)
        call = stub.Generate(request_pb2.GenerateRequest(prompt="x", tenant="acme"), timeout=60)
        while not (read := await ingest.read("admitted")):
            assert not call.done()
        call.cancel()
        (waited,) = [decode(r, admitted_pb2.AdmittedRequest) for r in read]
        await until(lambda: heard == [(waited.request_id, "acme")], lambda: str(heard))
        # One that came by Kafka, under a key of its producer's.
        record = ingest.request(b'{"prompt": "x", "tenant": "acme", "idempotency_key": "k"}', "o")
        await ingest.publish([record])
        request_id = id_of_key("acme", "k")
        while len(await ingest.read("admitted")) < 2:
            await asyncio.sleep(0.1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Cancel(CancelRequest(request_id=request_id, tenant="rival"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        await stub.Cancel(CancelRequest(request_id=request_id, tenant="acme"))
        await until(lambda: len(heard) == 2, lambda: str(heard))
        assert heard[1] == (request_id, "acme")
    reading.cancel()
    # A pump that starts later knows of them before it begins.
    ids = CancelledIds()
    late = Commands(ids, on_cancel=lambda *_: None, on_resume=lambda _: None)
    reader = ControlReader(ingest.bootstrap, ingest.prefix, late)
    reading = asyncio.create_task(reader.run())
    await reader.caught_up(30)
    for cancelled in heard:
        assert ids.covers(*cancelled, waited.admitted_at.ToDatetime(dt.UTC))
    reading.cancel()
    with pytest.raises(LogError, match="to their end"):
        await ControlReader("127.0.0.1:1", ingest.prefix, late).caught_up(0.1)
