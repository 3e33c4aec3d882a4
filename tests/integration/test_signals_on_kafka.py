"""Signals on a real Kafka: joined, ticks without traffic, each once whatever is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.codec import encode
from penstock.identity import response_id_of
from penstock.kafka.reader import LogReader
from penstock.kafka.transactions import TransactionalPublisher
from penstock.records import Outgoing, Record
from penstock.v1 import feedback_pb2, response_pb2
from penstock_drift.records.signal_wire import from_record
from penstock_drift.records.values import Observation, Tick
from tests.integration.operator_place import Place, admitted, make_place

pytestmark = pytest.mark.integration

KILLS = 5
WAVE = 300  # responses that are written for each kill
WORKER = """
import asyncio
from penstock.kafka.publisher import KafkaPublisher
from penstock_drift.extraction.collector import Collector
from penstock_drift.settings import DriftSettings

async def main():
    settings = DriftSettings.load()
    publisher = KafkaPublisher(settings.kafka_bootstrap, "test")
    await publisher.start()
    await Collector(settings, publisher).run(asyncio.Event())

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def worker(place: Place, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {
        **os.environ,
        "PENSTOCK_KAFKA_BOOTSTRAP": place.bootstrap,
        "PENSTOCK_TOPIC_PREFIX": place.prefix,
    }
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WORKER, env=environment, stdout=file, stderr=file
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def request(place: Place, n: int) -> Outgoing:
    made = admitted(f"r{n}")
    return encode(
        made, topic=place.topic("admitted"), key=f"k{n}", source="ingest", event_id=f"r{n}"
    )


def response(place: Place, n: int) -> Outgoing:
    made = response_pb2.GenerateResponse(
        request_id=f"r{n}",
        response_id=response_id_of(f"r{n}"),
        outcome=response_pb2.OUTCOME_ANSWERED,
        text='{"category": "billing"}',
        model="triage",
        variant="base",
    )
    made.created_at.GetCurrentTime()
    return encode(
        made,
        topic=place.topic("responses"),
        key=f"k{n}",
        source="inference",
        event_id=made.response_id,
    )


def rating(place: Place, n: int, label: str) -> Outgoing:
    made = feedback_pb2.Feedback(request_id=f"r{n}", label=label)
    made.created_at.GetCurrentTime()
    return encode(made, topic=place.topic("feedback"), key=f"k{n}", source="ingest")


async def signals(place: Place) -> list[Any]:
    return [from_record(record) for record in await place.read("signals")]


async def until(
    place: Place, condition: Callable[[list[Any]], bool], timeout_s: float = 90
) -> list[Any]:
    async with asyncio.timeout(timeout_s):
        while not condition(found := await signals(place)):
            await asyncio.sleep(0.5)
    return found


def at_least(count: int) -> Callable[[list[Any]], bool]:
    return lambda found: len(observations(found)) >= count


def observations(found: list[Any]) -> list[Observation]:
    return [item for item in found if isinstance(item, Observation)]


async def test_requests_responses_and_feedback_are_joined_and_ticks_go_on_without_them(
    kafka: Any, tmp_path: Path
) -> None:
    place = await make_place(kafka.bootstrap)
    writer = TransactionalPublisher(kafka.bootstrap, "test", f"{place.prefix}-writer")
    await writer.start()
    for n in range(0, 40, 4):  # a transaction each: the log is full of markers
        await writer.publish([request(place, n + m) for m in range(4)])
    for n in reversed(range(0, 40, 4)):
        await writer.publish([response(place, n + m) for m in range(4)])
    await writer.stop()
    await place.publish(*(rating(place, n, "billing" if n % 2 else "access") for n in range(20)))
    async with worker(place, tmp_path / "drift.log"):
        found = observations(await until(place, lambda found: len(observations(found)) >= 60))
        assert len(found) == 60
        drawn = [each for each in found if each.source.topic == "responses"]
        assert sorted(each.request_id for each in drawn) == sorted(f"r{n}" for n in range(40))
        assert all("prompt_words" in each.values for each in drawn)
        rated = [each for each in found if each.source.topic == "feedback"]
        assert Counter(each.values["label_error"] for each in rated) == {0.0: 10, 1.0: 10}

        def told(found: list[Any]) -> set[str]:
            newest = max(each.time_ms for each in observations(found))
            return {t.source for t in found if isinstance(t, Tick) and t.until_ms > newest}

        # Nothing comes any more; the four sources tell by the clock, to both partitions.
        everybody = {f"{topic}/{n}" for topic in ("responses", "feedback") for n in range(2)}
        await until(place, lambda found: told(found) == everybody)


async def write_wave(place: Place, numbers: range, draw: random.Random) -> int:
    """Requests, their responses in any order, and a rating of each tenth.

    Returns:
        How many observations they give.
    """
    rated = numbers[::10]
    await place.publish(*(request(place, n) for n in numbers))
    await place.publish(*(response(place, n) for n in draw.sample(numbers, len(numbers))))
    await place.publish(*(rating(place, n, "billing") for n in rated))
    return len(numbers) + len(rated)


@contextlib.asynccontextmanager
async def written_from_now_on(place: Place) -> AsyncIterator[list[Observation]]:
    """Observations as they are written to `signals`, before anybody knows of their commit."""
    found: list[Observation] = []

    def take(record: Record) -> None:
        item = from_record(record)
        if isinstance(item, Observation):
            found.append(item)

    reader = LogReader(place.bootstrap, place.topic("signals"), read_committed=False)
    reading = asyncio.create_task(reader.run(take))
    try:
        await asyncio.wait_for(reader.caught_up.wait(), 60)
        yield found
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


@pytest.mark.timeout(600)
async def test_killed_at_any_moment_each_record_is_drawn_from_once(
    kafka: Any, tmp_path: Path
) -> None:
    draw, log = random.Random(11), tmp_path / "drift.log"
    place = await make_place(kafka.bootstrap)
    expected = kills = waves = 0
    while kills < KILLS:
        # A quick worker may end a wave before it is killed; then there is another one.
        assert waves < 5 * KILLS, f"of {waves} kills {kills} came in the middle of work"
        numbers = range(waves * WAVE, (waves + 1) * WAVE)
        expected += await write_wave(place, numbers, draw)
        waves += 1
        point = draw.randrange(1, WAVE)
        async with written_from_now_on(place) as written, worker(place, log) as process:
            async with asyncio.timeout(90):
                while len(written) < point:
                    assert process.returncode is None, log.read_text()[-4000:]
                    await asyncio.sleep(0.001)
            process.kill()
            await process.wait()
        kills += len(observations(await signals(place))) < expected
    async with worker(place, log):
        await until(place, at_least(expected))
    found = observations(await signals(place))
    assert Counter(Counter(each.source for each in found).values()) == {1: expected}
    drawn = [each for each in found if each.source.topic == "responses"]
    assert {each.request_id for each in drawn} == {f"r{n}" for n in range(waves * WAVE)}
    assert all("prompt_words" in each.values for each in drawn)
