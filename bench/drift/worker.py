"""One worker on a real log: responses a second from `responses` to evidence, all signals on.

Requests and responses, tickets of the triage model with its right answers, are there before the
worker starts; it draws every signal of the catalogue from them, writes these to `signals`, reads
them back through faust, folds them, saves its state and tells evidence. What counts is the middle
of the run, by the event time up to which evidence is told.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from examples.triage.generate import Ticket, read_jsonl
from penstock.cli.log import publisher
from penstock.cli.settings import CliSettings
from penstock.codec import decode, encode
from penstock.kafka.reader import LogReader, Start
from penstock.records import Outgoing, Record
from penstock.v1 import admitted_pb2, common_pb2, drift_pb2, request_pb2, response_pb2
from penstock_native.stack import Stack

__all__ = ["RESPONSES", "worker"]

ROOT = Path(__file__).parents[2]
TICKETS = ROOT / "examples/triage/tickets.jsonl"
RESPONSES = 60_000
# Of event time: ten ticks of the default policy hold as many responses as a worker takes in a few
# seconds.
PER_S = 100
BEGAN_MS = 1_777_636_800_000
BATCH = 1000
# Shares of the run between which it is timed: before, baselines and the first connections; after,
# what waits for its tick.
FROM, UNTIL = 0.3, 0.95
PATIENCE_S = 900.0


def worker(say: Callable[[str], None]) -> dict[str, Any]:
    """Responses a second of one worker with the default policy. Blocks for minutes."""
    with Stack.ephemeral(("kafka",)) as stack:
        settings = CliSettings(
            kafka_bootstrap=stack.env["PENSTOCK_KAFKA_BOOTSTRAP"],
            topic_prefix=stack.env["PENSTOCK_TOPIC_PREFIX"],
        )
        asyncio.run(_write(settings))
        say(f"{RESPONSES:,} responses are there")
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "penstock_drift"], env=os.environ | stack.env, stderr=log
            )
            try:
                found = asyncio.run(_watch(settings, process, say))
            finally:
                process.terminate()
                process.wait()
    return found


async def _write(settings: CliSettings) -> None:
    draw = random.Random(1)
    tickets = read_jsonl(TICKETS)
    async with publisher(settings) as to:
        records: list[Outgoing] = []
        for number in range(RESPONSES):
            records += _pair(settings, number, tickets[number % len(tickets)], draw)
            if len(records) >= BATCH:
                await to.publish(records)
                records = []
        await to.publish(records)


def _pair(
    settings: CliSettings, number: int, ticket: Ticket, draw: random.Random
) -> Iterator[Outgoing]:
    """A request and its response, on partitions of the same number."""
    key, at_ms = f"r{number}", BEGAN_MS + number * 1000 // PER_S
    labels = {"task": f"t{number % 3}"}
    admitted = admitted_pb2.AdmittedRequest(
        request_id=key,
        variant="base",
        request=request_pb2.GenerateRequest(
            model="triage",
            messages=[request_pb2.ChatMessage(role="user", content=ticket["text"])],
            labels=labels,
        ),
    )
    admitted.published_at.FromMilliseconds(at_ms)
    tokens = draw.gauss(30, 4)
    response = response_pb2.GenerateResponse(
        request_id=key,
        response_id=f"rsp{number}",
        outcome=response_pb2.OUTCOME_ANSWERED,
        text=json.dumps(ticket["expected"]),
        finish_reason=response_pb2.FINISH_REASON_STOP,
        model="triage",
        variant="base",
        route_version=1,
        labels=labels,
        usage=common_pb2.Usage(
            prompt_tokens=len(ticket["text"]) // 5, completion_tokens=max(1, round(tokens))
        ),
        timings=response_pb2.Timings(
            queued_s=draw.lognormvariate(-5, 0.4),
            first_token_s=draw.lognormvariate(-3, 0.4),
            generation_s=draw.lognormvariate(-2, 0.4),
            total_s=draw.lognormvariate(-1.5, 0.4),
        ),
        attempt=1,
    )
    response.created_at.FromMilliseconds(at_ms)
    for name, message in (("admitted", admitted), ("responses", response)):
        yield encode(message, topic=settings.topic(name), key=key, source="bench")


async def _watch(
    settings: CliSettings, process: subprocess.Popen[bytes], say: Callable[[str], None]
) -> dict[str, Any]:
    """Follows what the worker has told, and times the middle of the run.

    Raises:
        RuntimeError: It ended, or was not done in time.
    """
    until: dict[int, int] = {}
    seen = {"armed": 0, "partitions": 0}

    def take(record: Record) -> None:
        told = decode(record, drift_pb2.Evidence)
        until[told.partition] = told.until.ToMilliseconds()
        seen["partitions"] = told.partitions
        seen["armed"] = max(seen["armed"], told.armed)

    def share() -> float:
        """How much of the event time every partition has told of."""
        if not until or len(until) < seen["partitions"]:
            return 0.0
        return (min(until.values()) - BEGAN_MS) * PER_S / 1000 / RESPONSES

    reading = asyncio.create_task(
        LogReader(settings.kafka_bootstrap, settings.topic("evidence"), start=Start.BEGINNING).run(
            take
        )
    )
    marks: list[tuple[float, float, float]] = []
    deadline_s = time.monotonic() + PATIENCE_S
    try:
        for mark in (FROM, UNTIL):
            while share() < mark:
                if process.poll() is not None or time.monotonic() > deadline_s:
                    raise RuntimeError(f"the worker came to {share():.0%} of the responses")
                await asyncio.sleep(0.05)
            marks.append((time.monotonic(), share(), _cpu_s(process.pid)))
            say(f"{marks[-1][1]:.0%} of the responses after {_cpu_s(process.pid):.1f} s of CPU")
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    (from_s, from_share, from_cpu), (until_s, until_share, until_cpu) = marks
    counted = (until_share - from_share) * RESPONSES
    return {
        "responses": RESPONSES,
        "partitions": seen["partitions"],
        "armed": seen["armed"],
        "counted": round(counted),
        "per_s": round(counted / (until_s - from_s)),
        "cpu_ms": round(1000 * (until_cpu - from_cpu) / counted, 2),
    }


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
