"""One worker on a real log: responses a second from `responses` to evidence.

Requests and responses, tickets of the triage model with its right answers, are there before the
worker starts; it draws signals from them, writes these to `signals`, reads them back through faust,
folds them, saves its state and tells evidence. It is timed from the first that it draws until all
but the last ticks are folded. Once with the ten signals that the bank as a whole is measured with,
and once with the default policy: every signal, of all traffic and by segment.
"""

from __future__ import annotations

import asyncio
import dataclasses
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

from bench.drift.costs import SIGNALS
from bench.processes import usage_of
from examples.triage.generate import Ticket, read_jsonl
from penstock.cli.log import publisher
from penstock.cli.settings import CliSettings
from penstock.codec import encode
from penstock.records import Outgoing
from penstock.v1 import (
    admitted_pb2,
    common_pb2,
    drift_pb2,
    feedback_pb2,
    request_pb2,
    response_pb2,
)
from penstock_native.scrape import total
from penstock_native.stack import Stack

__all__ = ["worker"]

ROOT = Path(__file__).parents[2]
TICKETS = ROOT / "examples/triage/tickets.jsonl"
RESPONSES = 40_000
# Of a stack's topics.
PARTITIONS = 4
# Of event time: ten ticks of the default policy hold as many responses as a worker takes in a few
# seconds.
PER_S = 100
BEGAN_MS = 1_777_636_800_000
BATCH = 1000
# The share of the responses that has to be folded; the rest waits for its tick.
UNTIL = 0.95
PATIENCE_S = 900.0
DRAWN = "penstock_drift_observations_total"
FOLDED = "penstock_drift_folded_total"
ARMED = "penstock_drift_armed_signals"


# Short enough that most of the run is past it.
_BASELINE = "baseline_observations: 1000"
# With how many keys a response is in.
POLICIES: dict[str, tuple[str, int]] = {
    "ten signals": (
        f'signals: {{"*": {{enabled: false}}, '
        f"{', '.join(f'{name}: {{enabled: true, {_BASELINE}}}' for name in SIGNALS)}}}\n"
        "segments: {}\nself_test: {enabled: false}\n",
        1,
    ),
    "the default policy": (
        f'signals: {{"*": {{{_BASELINE}}}}}\nself_test: {{enabled: false}}\n',
        2,
    ),
}


def worker(say: Callable[[str], None]) -> dict[str, Any]:
    """Responses a second of one worker, by policy. Blocks for minutes."""
    return {name: _measure(*policy, say) for name, policy in POLICIES.items()}


def _measure(policy: str, keys: int, say: Callable[[str], None]) -> dict[str, Any]:
    with Stack.ephemeral(("kafka",)) as stack:
        settings = CliSettings(
            kafka_bootstrap=stack.env["PENSTOCK_KAFKA_BOOTSTRAP"],
            topic_prefix=stack.env["PENSTOCK_TOPIC_PREFIX"],
        )
        asyncio.run(_write(settings, policy))
        say(f"{RESPONSES:,} responses are there")
        port = int(stack.env["PENSTOCK_DRIFT_METRICS_PORT"])
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "penstock_drift"], env=os.environ | stack.env, stderr=log
            )
            try:
                return _watch(port, process, keys, say)
            finally:
                process.terminate()
                process.wait()


async def _write(settings: CliSettings, policy: str) -> None:
    draw = random.Random(1)
    tickets = read_jsonl(TICKETS)
    version = drift_pb2.PolicyVersion(version=1, document=policy)
    # Of now, on every partition: these sources have nothing more to say of the time before.
    opinion = feedback_pb2.Feedback(feedback_id="f", request_id="nobody's", score=1)
    opinion.created_at.GetCurrentTime()
    out = encode(opinion, topic=settings.topic("feedback"), key=None, source="bench")
    async with publisher(settings) as to:
        records: list[Outgoing] = [
            encode(version, topic=settings.topic("policies"), key="default", source="bench"),
            *(dataclasses.replace(out, partition=n) for n in range(PARTITIONS)),
        ]
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
        yield encode(message, topic=settings.topic(name), key=key, source="bench", event_id=key)


def _watch(
    port: int, process: subprocess.Popen[bytes], keys: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Follows how much the worker has folded, and times it from the first that it draws.

    Raises:
        RuntimeError: It ended, or was not done in time.
    """
    drawn = _await(port, process, DRAWN, 1)
    say(f"{drawn:,.0f} observations are drawn")
    from_s, from_cpu = time.monotonic(), _cpu_s(process.pid)
    _await(port, process, FOLDED, keys * RESPONSES / 2)
    # At the end the clock goes on to now, and keys without traffic are forgotten.
    armed = round(_metric(port, ARMED))
    folded = _await(port, process, FOLDED, keys * UNTIL * RESPONSES) / keys
    taken_s, taken_cpu = time.monotonic() - from_s, _cpu_s(process.pid) - from_cpu
    say(f"{folded:,.0f} responses are folded after {taken_s:.0f} s")
    return {
        "responses": RESPONSES,
        "armed": armed,
        "folded": round(folded),
        "per_s": round(folded / taken_s),
        "cpu_ms": round(1000 * taken_cpu / folded, 2),
    }


def _await(port: int, process: subprocess.Popen[bytes], name: str, least: float) -> float:
    deadline_s = time.monotonic() + PATIENCE_S
    while (found := _metric(port, name)) < least:
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"the worker's {name} came to {found:,.0f}, not to {least:,.0f}")
        time.sleep(0.05)
    return found


def _metric(port: int, name: str) -> float:
    """A metric's sum over its labels; 0 while nobody answers."""
    try:
        return total(port, name)
    except OSError:
        return 0.0


def _cpu_s(pid: int) -> float:
    return usage_of({pid: "worker"})["worker"].cpu_s
