"""Responses whose signals change at a known place, and drift's workers beside them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka import AIOKafkaProducer

from penstock.codec import decode, encode
from penstock.kafka.ends import LogEnds
from penstock.v1 import common_pb2, drift_pb2, response_pb2
from penstock_drift.bank import CatalogueBank
from penstock_drift.findings_wire import event_to_wire
from penstock_drift.replaying import Replay
from penstock_drift.signals.catalogue import CATALOGUE
from penstock_drift.values import Observation
from penstock_drift.wire import from_record
from tests.integration.operator_place import Place

BEGAN_MS = 1_767_225_600_000  # 2026-01-01
POLICY = """
tick_s: 5
hysteresis_ticks: 2
cooldown_ticks: 5
signals:
  "*": {enabled: false}
  refusal: {enabled: true, baseline_observations: 400}
  completion_tokens: {enabled: true, baseline_observations: 400}
  latency: {enabled: true, baseline_observations: 400}
segments: {task: 4}
self_test: {enabled: false}
"""
REFUSED = "I'm sorry, but I can't help with that request."
ANSWERED = "Your invoice was sent again; the queue is billing."


async def write_responses(
    place: Place,
    count: int,
    *,
    partitions: int,
    seed: int = 1,
    shift_at: float = 0.5,
    per_s: float = 50,
) -> int:
    """Writes responses in event time of their own; refusals rise from 2 to 30 % in one task.

    Returns:
        The event time of the last one, in milliseconds.
    """
    draw = random.Random(seed)
    producer = AIOKafkaProducer(
        bootstrap_servers=place.bootstrap, transactional_id=f"{place.prefix}-write-{seed}"
    )
    await producer.start()
    time_ms = BEGAN_MS
    for start in range(0, count, 500):
        await producer.begin_transaction()
        for number in range(start, min(start + 500, count)):
            time_ms = BEGAN_MS + round(number * 1000 / per_s)
            shifted = number >= shift_at * count
            message = _response(number, time_ms, shifted, draw)
            out = encode(message, topic=place.topic("responses"), key=None, source="inference")
            await producer.send(
                out.topic, out.value, headers=list(out.headers), partition=number % partitions
            )
        await producer.commit_transaction()
    await producer.stop()
    return time_ms


def _response(
    number: int, time_ms: int, shifted: bool, draw: random.Random
) -> response_pb2.GenerateResponse:
    task = ("route", "extract")[number % 2]
    refusals = 0.30 if shifted and task == "route" else 0.02
    message = response_pb2.GenerateResponse(
        request_id=f"r{number}",
        response_id=f"rsp{number}",
        outcome=response_pb2.OUTCOME_ANSWERED,
        text=REFUSED if draw.random() < refusals else ANSWERED,
        finish_reason=response_pb2.FINISH_REASON_STOP,
        model="triage",
        variant="base",
        route_version=1,
        labels={"task": task},
        usage=common_pb2.Usage(
            prompt_tokens=50, completion_tokens=max(1, round(draw.gauss(30, 8)))
        ),
        timings=response_pb2.Timings(
            queued_s=0.01,
            first_token_s=0.02,
            generation_s=0.1,
            total_s=draw.lognormvariate(-1, 0.3),
        ),
        attempt=1,
    )
    message.created_at.FromMilliseconds(time_ms)
    return message


async def set_policy(place: Place) -> None:
    version = drift_pb2.PolicyVersion(version=1, document=POLICY)
    await place.publish(
        encode(version, topic=place.topic("policies"), key="default", source="test")
    )


@asynccontextmanager
async def worker(
    place: Place, log: Path, **settings: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker as it runs; killed when the context ends, if it is still there."""
    process = await start_worker(place, log, **settings)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def start_worker(place: Place, log: Path, **settings: str) -> asyncio.subprocess.Process:
    env = os.environ | {
        "PENSTOCK_KAFKA_BOOTSTRAP": place.bootstrap,
        "PENSTOCK_TOPIC_PREFIX": place.prefix,
        "PENSTOCK_DRIFT_METRICS_PORT": "0",
        "PENSTOCK_DRIFT_GRPC_PORT": "0",
        "PENSTOCK_DRIFT_SAVE_S": "2",
        **settings,
    }
    with log.open("ab") as file:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "penstock_drift", env=env, stderr=file
        )


async def judged_to(place: Place, until_ms: int, timeout_s: float = 240) -> None:
    """Waits until every partition has said what it has up to an instant, and the judge heard it."""
    async with asyncio.timeout(timeout_s):
        while True:
            said: dict[int, int] = {}
            partitions = 1
            for record in await place.read("evidence"):
                told = decode(record, drift_pb2.Evidence)
                said[told.partition] = told.until.ToMilliseconds()
                partitions = told.partitions
            state = {record.key: record.value for record in await place.read("judge_state")}
            if (
                len(said) == partitions
                and min(said.values()) > until_ms
                and _judged_ms(state.get(b"//progress")) > until_ms
            ):
                return
            await asyncio.sleep(1)


def _judged_ms(progress: bytes | None) -> int:
    return int(json.loads(progress)["judged_ms"]) if progress else 0


async def end_of(place: Place, topic: str) -> int:
    """How much there is of a topic, markers included."""
    ends = LogEnds(place.bootstrap, place.topic(topic))
    try:
        return sum((await ends.read()).values())
    finally:
        await ends.stop()


async def events_of(place: Place) -> list[drift_pb2.DriftEvent]:
    return [decode(record, drift_pb2.DriftEvent) for record in await place.read("drift")]


async def sequential(
    place: Place, partitions: int
) -> tuple[list[drift_pb2.DriftEvent], list[Observation]]:
    """What one undisturbed fold of the same `signals` finds, and all its observations."""
    replay = Replay(partitions, CatalogueBank(CATALOGUE), CATALOGUE)
    observations = []
    for record in await place.read("signals"):
        item = from_record(record)
        assert item is not None
        # A self-test may have begun before the policy that wants none was read.
        if isinstance(item, Observation) and item.key.model == "triage":
            observations.append(item)
        replay.take(record.partition.number, record.offset, item)
    return [event_to_wire(event) for event in replay.events], observations


def assert_same(
    found: Sequence[drift_pb2.DriftEvent], expected: Sequence[drift_pb2.DriftEvent]
) -> None:
    """One by one, all fields."""
    assert [event.event_id for event in found] == [event.event_id for event in expected]
    for one, other in zip(found, expected, strict=True):
        assert one == other


def assert_each_once(observations: Sequence[Observation], responses: int) -> None:
    """`signals` holds each response once under all traffic, and once under its task."""
    whole = [each.request_id for each in observations if each.key.segment == ""]
    parts = [each.request_id for each in observations if each.key.segment != ""]
    assert len(whole) == len(set(whole)) == responses
    assert len(parts) == len(set(parts)) == responses


def sigkill(process: asyncio.subprocess.Process) -> None:
    process.send_signal(signal.SIGKILL)
