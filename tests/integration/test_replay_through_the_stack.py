"""Past requests and dead letters run again through ingest, the pump and the scripted engine."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from penstock.codec import decode
from penstock.kafka.dlq import dead_letter
from penstock.kafka.publisher import KafkaPublisher
from penstock.kafka.reader import LogReader, Start
from penstock.records import Outgoing, Record
from penstock.v1 import admitted_pb2, common_pb2, response_pb2, usage_pb2
from penstock_native.stack import Stack

pytestmark = pytest.mark.integration

REQUESTS = 20
SETTINGS = {
    "PENSTOCK_INFERENCE_ENGINE": "scripted",
    "PENSTOCK_INFERENCE_SCRIPTED_FIRST_TOKEN_S": "0.02",
    "PENSTOCK_INFERENCE_ENGINE_CPUS": "0.1",
}


@pytest.fixture
def stack() -> Iterator[Stack]:
    services = ("kafka", "ingest", "inference", "cost")
    with Stack.ephemeral(services=services, env=SETTINGS) as running:
        yield running


class Log:
    """The stack's log, and the command beside it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.bootstrap = stack.env["PENSTOCK_KAFKA_BOOTSTRAP"]

    async def publish(self, *records: Outgoing) -> None:
        publisher = KafkaPublisher(self.bootstrap, "test")
        await publisher.start()
        await publisher.publish(records)
        await publisher.stop()

    async def read(self, name: str) -> list[Record]:
        reader = LogReader(self.bootstrap, f"penstock.{name}", start=Start.BEGINNING)
        records: list[Record] = []
        task = asyncio.create_task(reader.run(records.append))
        await asyncio.wait_for(reader.caught_up.wait(), 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return records

    async def responses(self, name: str = "responses") -> dict[str, response_pb2.GenerateResponse]:
        found = [decode(r, response_pb2.GenerateResponse) for r in await self.read(name)]
        assert len({r.request_id for r in found}) == len(found), "two responses for one request"
        return {r.request_id: r for r in found}

    async def command(self, *arguments: str) -> str:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", "from penstock.cli.app import main; main()", *arguments],
            env=os.environ | self.stack.env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr + self.stack.log("inference")[-3000:]
        return done.stdout


async def test_an_incident_and_a_dead_letter_are_run_again(stack: Stack) -> None:
    log = Log(stack)
    start = dt.datetime.now(dt.UTC)
    await log.publish(
        *(
            Outgoing(
                "penstock.requests",
                b"key-%d" % (n % 5),
                json.dumps(
                    {"prompt": f"one {n}", "tenant": "acme", "idempotency_key": f"k{n}"}
                ).encode(),
            )
            for n in range(REQUESTS)
        )
    )
    give_up_s = time.monotonic() + 60
    while len(await log.responses()) < REQUESTS:
        assert time.monotonic() < give_up_s, stack.log("inference")[-3000:]
        await asyncio.sleep(0.5)
    originals = await log.responses()
    await asyncio.sleep(1)
    window = [
        "--from",
        f"{start:%Y-%m-%dT%H:%M:%S.%f}",
        "--to",
        f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%S.%f}",
    ]

    run = ["replay", *window, "--tenant", "acme", "--run-id", "again", "--json"]
    found = json.loads(await log.command(*run))
    assert (found["sent"], found["ended"]) == (REQUESTS, REQUESTS)
    assert found["outcomes"] == {"answered": REQUESTS}
    assert found["answers"] == {"equal": REQUESTS}
    assert float(found["cost_usd"]) > 0
    assert found["cost_note"] == f"{REQUESTS} lines"
    repeated = json.loads(await log.command(*run))
    assert (repeated["sent"], repeated["outcomes"]) == (0, found["outcomes"])

    replays = await log.responses("replays")
    assert {r.origin_request_id for r in replays.values()} == set(originals)
    assert all(r.purpose == common_pb2.PURPOSE_REPLAY for r in replays.values())
    assert await log.responses() == originals
    lines = [decode(r, usage_pb2.UsageLine) for r in await log.read("usage")]
    kinds = Counter(line.kind for line in lines if line.tenant == "acme")
    assert kinds == {
        usage_pb2.USAGE_KIND_GENERATION: REQUESTS,
        usage_pb2.USAGE_KIND_REPLAY: REQUESTS,
    }

    # A request whose handling failed, as its letter would stand on the dlq.
    dead = next(
        record
        for record in await log.read("admitted")
        if decode(record, admitted_pb2.AdmittedRequest).request_id in originals
    )
    letter = dead_letter(
        dead,
        dlq_topic="penstock.dlq",
        service="inference",
        reason="a test",
        error=None,
        attempts=1,
    )
    await log.publish(letter)
    told = await log.command("dlq", "replay", "0-0")
    request_id = decode(dead, admitted_pb2.AdmittedRequest).request_id
    assert f"{request_id}+r1" in told
    give_up_s = time.monotonic() + 60
    while f"{request_id}+r1" not in (responses := await log.responses()):
        assert time.monotonic() < give_up_s, stack.log("inference")[-3000:]
        await asyncio.sleep(0.5)
    answer = responses[f"{request_id}+r1"]
    assert (answer.outcome, answer.origin_request_id) == (response_pb2.OUTCOME_ANSWERED, request_id)
    assert answer.text == originals[request_id].text
    assert (answer.idempotency_key, len(responses)) == ("", REQUESTS + 1)
