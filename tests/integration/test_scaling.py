"""Engines come with the work and go with it, and no request notices."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock.codec import decode
from penstock.kafka.publisher import KafkaPublisher
from penstock.kafka.reader import LogReader
from penstock.records import Outgoing, Record
from penstock.v1 import alert_pb2, response_pb2, usage_pb2
from penstock_native.scrape import total
from penstock_native.stack import Stack

pytestmark = pytest.mark.integration

SETTINGS = {
    "PENSTOCK_INFERENCE_ENGINE": "scripted",
    "PENSTOCK_INFERENCE_SCRIPTED_FIRST_TOKEN_S": "0.5",
    "PENSTOCK_INFERENCE_SCRIPTED_TOKEN_S": "0.5",
    "PENSTOCK_INFERENCE_SCRIPTED_SLOTS": "4",
    "PENSTOCK_INFERENCE_ENGINE_CPUS": "0.1",
    "PENSTOCK_INFERENCE_ENGINE_REPLICAS": "1",
    "PENSTOCK_INFERENCE_ENGINE_REPLICAS_MAX": "3",
    "PENSTOCK_INFERENCE_SCALE_UP_AFTER_S": "2",
    "PENSTOCK_INFERENCE_SCALE_DOWN_AFTER_S": "6",
    "PENSTOCK_INFERENCE_DRAIN_S": "3",
    "PENSTOCK_INGEST_PROBE_INTERVAL_S": "5",
    "PENSTOCK_INGEST_PROBE_TIMEOUT_S": "4",
}
QUICK, LONG = 1, 16  # tokens: half a second, and eight, which is longer than the drain


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack.ephemeral(services=("kafka", "ingest", "inference"), env=SETTINGS) as running:
        yield running


class Log:
    """Writes requests, and counts what comes back."""

    def __init__(self, stack: Stack) -> None:
        self._bootstrap = stack.env["PENSTOCK_KAFKA_BOOTSTRAP"]
        self.outcomes: dict[str, list[int]] = {}
        self.lines: Counter[str] = Counter()
        self.alerts: list[int] = []
        self.sent: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._publisher = KafkaPublisher(self._bootstrap, "test", linger_ms=5)

    async def __aenter__(self) -> Log:
        takers = {"responses": self._response, "usage": self._usage, "alerts": self._alert}
        for name, take in takers.items():
            reader = LogReader(self._bootstrap, f"penstock.{name}")
            self._tasks.append(asyncio.create_task(reader.run(take)))
            await reader.caught_up.wait()
        await self._publisher.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._publisher.stop()

    def _response(self, record: Record) -> None:
        response = decode(record, response_pb2.GenerateResponse)
        self.outcomes.setdefault(response.idempotency_key, []).append(response.outcome)

    def _alert(self, record: Record) -> None:
        alert = decode(record, alert_pb2.Alert)
        if alert.incident_id == "ingest/model-not-ready/triage":
            self.alerts.append(alert.state)

    def _usage(self, record: Record) -> None:
        line = decode(record, usage_pb2.UsageLine)
        assert line.tenant != "penstock-probe" or line.kind == usage_pb2.USAGE_KIND_PROBE
        if line.kind == usage_pb2.USAGE_KIND_GENERATION:
            self.lines[line.request_id] += 1

    async def send(self, count: int, max_tokens: int = QUICK) -> None:
        records = []
        for _ in range(count):
            key = uuid.uuid4().hex
            value = {
                "prompt": key,
                "idempotency_key": key,
                "no_cache": True,
                "sampling": {"max_tokens": max_tokens},
            }
            records.append(Outgoing("penstock.requests", key.encode(), json.dumps(value).encode()))
            self.sent.add(key)
        await self._publisher.publish(records)

    def all_ended(self) -> bool:
        return self.outcomes.keys() == self.sent

    def check(self) -> None:
        """Every request was answered once and billed once."""
        assert self.outcomes.keys() == self.sent
        answered = [response_pb2.OUTCOME_ANSWERED]
        assert {k: v for k, v in self.outcomes.items() if v != answered} == {}
        assert sorted(self.lines.values()) == [1] * len(self.sent)


def metric(stack: Stack, name: str) -> float:
    """A figure of the pump; none before it has ever been up."""
    port = stack.env["PENSTOCK_INFERENCE_METRICS_PORT"]
    try:
        return total(int(port), name)
    except OSError:
        return 0.0


def live_engines(stack: Stack) -> int:
    """How many engines the pump is joined to."""
    return int(metric(stack, "penstock_pump_live_engines"))


def readiness(stack: Stack) -> tuple[int, dict[str, Any]]:
    """What ingest says of itself."""
    url = f"http://127.0.0.1:{stack.env['PENSTOCK_INGEST_HTTP_PORT']}/health/ready"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


async def until(condition: Callable[[], bool], stack: Stack, limit_s: float = 120) -> None:
    started = time.monotonic()
    while not await asyncio.to_thread(condition):
        assert time.monotonic() - started < limit_s, stack.log("inference")[-4000:]
        await asyncio.sleep(0.2)


async def test_engines_follow_the_work_and_every_request_is_answered_once(stack: Stack) -> None:
    await until(lambda: live_engines(stack) == 1, stack)
    async with Log(stack) as log:
        await log.send(500)  # a minute's work for one engine
        await until(lambda: live_engines(stack) == 3, stack)
        await until(lambda: len(log.outcomes) > 400, stack)

        async def trickle() -> None:
            # So that engines are told to go while they have work.
            while True:
                await log.send(1)
                await asyncio.sleep(0.3)

        trickling = asyncio.create_task(trickle())
        await until(lambda: live_engines(stack) == 1, stack)
        trickling.cancel()
        await asyncio.gather(trickling, return_exceptions=True)
        await until(log.all_ended, stack)
        await asyncio.sleep(1)  # for what would come twice
        log.check()
    # An engine that was told to go ended what it had.
    assert metric(stack, "penstock_pump_work_restarted_total") == 0


async def test_what_a_drain_leaves_is_answered_once_and_people_hear_that_nobody_answers(
    stack: Stack,
) -> None:
    async with Log(stack) as log:
        await log.send(12, LONG)
        await until(lambda: metric(stack, "penstock_pump_in_flight") >= 4, stack)
        started = time.monotonic()
        await asyncio.to_thread(stack.stop, "inference")
        # Drains of pump and engines, Serve's waits and Ray's end; far from Serve's own bound.
        assert time.monotonic() - started < 30
        left = len(log.outcomes)
        assert left < 12
        await until(lambda: readiness(stack)[0] == 503, stack)
        assert readiness(stack)[1]["reason"] == "no answer from triage"
        assert not readiness(stack)[1]["models"]["triage"]["ready"]
        await until(lambda: log.alerts == [alert_pb2.ALERT_STATE_OPENED], stack)
        stack.start("inference")
        await until(log.all_ended, stack)
        await until(lambda: readiness(stack)[0] == 200, stack)
        await until(lambda: log.alerts[-1] == alert_pb2.ALERT_STATE_RESOLVED, stack)
        await asyncio.sleep(1)
        log.check()
