"""The collector on a real Kafka: each offset in exactly one file, whenever it is killed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from penstock.codec import encode
from penstock.kafka.admin import KafkaAdmin, Sizes, plan
from penstock.kafka.broker import send_all
from penstock.kafka.log_id import log_id
from penstock.kafka.ports import LogError
from penstock.kafka.publisher import KafkaPublisher
from penstock.records import Outgoing
from penstock.topics import TOPICS
from penstock.v1 import drift_pb2, feedback_pb2, response_pb2
from penstock_retrain.dataset.buffer import Bounds
from penstock_retrain.dataset.building import Selection, select_dataset
from penstock_retrain.dataset.collector import Collector, CollectorConfig
from penstock_retrain.dataset.examples import Split
from penstock_retrain.dataset.findings import Drift, KafkaFindings
from penstock_retrain.dataset.names import FileName, Kind
from penstock_retrain.dataset.parquet import read_rows
from penstock_retrain.dataset.policy import DatasetPolicy
from penstock_retrain.dataset.rows import RequestRow
from penstock_retrain.dataset.store import FileStore
from penstock_retrain.dataset.writing import read_split
from tests.integration.collector_process import POINTS
from tests.integration.operator_place import MARKER, Place, admitted, make_place

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SEED = 6
BAD = "k-bad"


@contextlib.asynccontextmanager
async def process(
    place: Place, url: Path, log: Path, point: str = "", count: int = 0
) -> AsyncIterator[asyncio.subprocess.Process]:
    arguments = [place.bootstrap, place.prefix, str(url), point, str(count)]
    with log.open("ab") as file:
        started = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.integration.collector_process",
            *arguments,
            stdout=file,
            stderr=file,
        )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
        await started.wait()


def records(place: Place, n: int) -> list[Outgoing]:
    """A request, its response and what somebody thought of it."""
    request = admitted(f"r{n}")
    response = response_pb2.GenerateResponse(
        request_id=f"r{n}", outcome=response_pb2.OUTCOME_ANSWERED, text="yes", model="triage"
    )
    response.tenant = "acme"
    feedback = feedback_pb2.Feedback(
        request_id=f"r{n}", tenant="acme", label="no", business_value=n
    )
    return [
        encode(message, topic=place.topic(topic), key=f"k{n % 17}", source="test")
        for topic, message in (
            ("admitted", request),
            ("responses", response),
            ("feedback", feedback),
        )
    ]


async def write(place: Place, numbers: range, draw: random.Random) -> None:
    """In transactions of odd sizes, some of them aborted: their offsets are never delivered."""
    name = f"test-{place.prefix}"
    producer = AIOKafkaProducer(bootstrap_servers=place.bootstrap, transactional_id=name)
    await producer.start()
    left = list(numbers)
    while left:
        size = draw.randrange(1, 30)
        batch = [record for n in left[:size] for record in records(place, n)]
        await producer.begin_transaction()
        await send_all(producer, batch)
        if draw.random() < 0.2:
            await producer.abort_transaction()
            continue
        await producer.commit_transaction()
        left = left[size:]
    await producer.stop()


def held(url: Path) -> tuple[Counter[tuple[str, int, int]], list[FileName]]:
    """How often each topic's offset is in a file, and the files."""
    store = FileStore(str(url))
    found: Counter[tuple[str, int, int]] = Counter()
    names = []
    for path in store.list(""):
        name = FileName.parse(path)
        assert name is not None, path
        names.append(name)
        offsets = [row.offset for row in read_rows(name.kind, store.read(path))]
        assert offsets == sorted(offsets)
        assert (offsets[0], offsets[-1]) == (name.first, name.last)
        found.update((name.source.topic, name.source.partition, offset) for offset in offsets)
    return found, names


async def written(place: Place) -> Counter[tuple[str, int, int]]:
    records = [record for kind in Kind for record in await place.read(kind.topic)]
    return Counter((*r.partition, r.offset) for r in records if r.key != BAD.encode())


async def test_it_settles_though_more_comes_all_the_time(kafka: Any, tmp_path: Path) -> None:
    place = await make_place(kafka.bootstrap)
    url, stop = tmp_path / "collected", asyncio.Event()
    publisher = KafkaPublisher(place.bootstrap, "test")
    await publisher.start()

    async def go_on() -> None:
        for n in itertools.count():
            await publisher.publish(records(place, n))
            if n == 50:
                some.set()

    some = asyncio.Event()
    collector = Collector(CollectorConfig(place.bootstrap, place.prefix, str(url)))
    writing, running = asyncio.create_task(go_on()), asyncio.create_task(collector.run(stop))
    try:
        await some.wait()
        before = await written(place)
        assert await collector.settle(60)
        found, names = held(url)
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await publisher.stop()
        stop.set()
        await running
    assert before.total() > 100
    assert found >= before
    # To hurry is not to write a file for every few records.
    assert len(names) < 60


async def test_killed_at_seeded_points_each_offset_is_in_exactly_one_file(
    kafka: Any, tmp_path: Path
) -> None:
    place = await make_place(kafka.bootstrap)
    draw = random.Random(SEED)
    url, log = tmp_path / "collected", tmp_path / "collector.log"
    points = [*POINTS, *POINTS]
    draw.shuffle(points)
    wave = 150
    for index, point in enumerate(points):
        await write(place, range(index * wave, (index + 1) * wave), draw)
        async with process(place, url, log, point, draw.randrange(1, 8)) as running:
            # Waits for its own death: nothing of this test times it.
            assert await asyncio.wait_for(running.wait(), 120) == -9, log.read_text()[-3000:]
    bad = Outgoing(place.topic("feedback"), BAD.encode(), b"\xff\xff not a Feedback")
    await place.publish(bad)
    async with process(place, url, log) as running:
        while "settled " not in log.read_text() and running.returncode is None:
            await asyncio.sleep(0.2)
        assert "settled True" in log.read_text(), log.read_text()[-3000:]
        running.terminate()
        assert await asyncio.wait_for(running.wait(), 60) == 0, log.read_text()[-3000:]
    found, names = held(url)
    assert found == await written(place)
    assert set(found.values()) == {1}
    assert found.total() == 3 * wave * len(points)
    assert len(names) > 100
    assert list(url.rglob("*.tmp-*")) == []
    # What cannot be read is on the dlq once, and holds nothing up.
    assert [letter.key for letter in await place.read("dlq")] == [BAD.encode()]
    # No text of a record is in the log.
    assert "MARKER" not in log.read_text()


async def test_files_without_a_position_are_recognised(kafka: Any, tmp_path: Path) -> None:
    """The group's position may be lost, or another group may collect: files are the truth."""
    place = await make_place(kafka.bootstrap)
    await write(place, range(120), random.Random(SEED))
    url = tmp_path / "collected"
    config = CollectorConfig(place.bootstrap, place.prefix, str(url), file=Bounds(rows=50))
    for collector in (Collector(config), _OfAnotherGroup(config)):
        stop = asyncio.Event()
        running = asyncio.create_task(collector.run(stop))
        try:
            assert await collector.settle(60)
        finally:
            stop.set()
            await running
    found, _ = held(url)
    assert found == await written(place)
    # And all of it can be trained on, down to the offset.
    policy = DatasetPolicy.of({"near_duplicates": None})
    selection = Selection("triage", policy, time.time_ns() // 1_000_000 + 1000)
    dataset = await select_dataset(FileStore(str(url)), selection, tmp_path / "dataset")
    rows = [e for split in Split for e in read_split(dataset.path, split)]
    assert {e.id for e in rows} == {f"r{n}" for n in range(120)}
    assert {(e.prompt, e.target, e.rejected) for e in rows} == {(MARKER.decode(), "no", "yes")}
    assert {len(e.sources) for e in rows} == {3}
    named = Counter(
        (each.source.topic, each.source.partition, each.offset) for e in rows for each in e.sources
    )
    assert named == found


async def test_findings_are_read_from_the_log(kafka: Any) -> None:
    place = await make_place(kafka.bootstrap)
    findings = KafkaFindings(place.bootstrap, place.topic("drift"))
    assert await findings.of("i1", "triage") == Drift(None, ())
    events = []
    for incident, segment, onset_s in (("i1", "", 90), ("i1", "task=bug", 80), ("i2", "a=b", 1)):
        event = drift_pb2.DriftEvent(model="triage", segment=segment, incident_id=incident)
        event.kind, event.state = drift_pb2.DRIFT_KIND_QUALITY, drift_pb2.DRIFT_STATE_DRIFT
        event.onset.FromSeconds(onset_s)
        events.append(encode(event, topic=place.topic("drift"), key="triage", source="test"))
    await place.publish(*events, Outgoing(place.topic("drift"), b"k", b"\xff\xff"))
    assert await findings.of("i1", "triage") == Drift(80_000, ("task=bug",))


async def test_another_log_under_the_same_names_stops_the_collector(
    kafka: Any, tmp_path: Path
) -> None:
    place = await make_place(kafka.bootstrap)
    await write(place, range(60), random.Random(SEED))
    url = tmp_path / "collected"
    config = CollectorConfig(place.bootstrap, place.prefix, str(url), file=Bounds(rows=20))
    stop = asyncio.Event()
    collector = Collector(config)
    running = asyncio.create_task(collector.run(stop))
    assert await collector.settle(60)
    stop.set()
    await running
    # As if the files had been written for a topic that was longer.
    last = max(FileStore(str(url)).list("feedback"))
    longer = url / f"{last[:-28]}{10**6:020d}.parquet"
    (url / last).rename(longer)
    await write(place, range(60, 70), random.Random(SEED))
    again = Collector(config)
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(again.run(asyncio.Event()), 60)
    assert "another directory" in str(_leaf(raised.value))


async def there(bootstrap: str, topics: list[str]) -> bool:
    try:
        await log_id(bootstrap, topics)
    except LogError:
        return False
    return True


async def test_topics_that_are_made_anew_are_another_log(kafka: Any, tmp_path: Path) -> None:
    """The cluster's id stays, and the new log soon is as long as the old one was."""
    place = await make_place(kafka.bootstrap)
    config = CollectorConfig(
        place.bootstrap, place.prefix, str(tmp_path / "collected"), file=Bounds(rows=20)
    )
    topics = [place.topic(kind.topic) for kind in Kind]
    ids = []
    for first in (0, 1000):
        await write(place, range(first, first + 60), random.Random(SEED))
        ids.append(await log_id(place.bootstrap, topics))
        stop = asyncio.Event()
        collector = Collector(config)
        running = asyncio.create_task(collector.run(stop))
        assert await collector.settle(60)
        stop.set()
        await running
        if not first:
            admin = AIOKafkaAdminClient(bootstrap_servers=place.bootstrap)
            await admin.start()
            await admin.delete_topics(topics)
            await admin.close()
            while await there(place.bootstrap, topics):  # until the brokers know
                await asyncio.sleep(0.05)
            changes = plan(TOPICS, place.prefix, Sizes(work=2), {})
            changes = [change for change in changes if change.name in topics]
            async with KafkaAdmin(place.bootstrap) as kafka_admin:
                await kafka_admin.apply(changes, {}, 1)
    assert ids[0] != ids[1]
    assert {each.split(".")[0] for each in ids} == {"penstock-native-000000"}
    store = FileStore(config.url)
    requests: dict[str, set[str]] = {}
    for path in store.list("requests"):
        name = FileName.parse(path)
        assert name is not None
        rows = read_rows(name.kind, store.read(path))
        requests.setdefault(name.source.log, set()).update(
            row.request_id for row in rows if isinstance(row, RequestRow)
        )
    assert requests == {
        ids[0]: {f"r{n}" for n in range(60)},
        ids[1]: {f"r{n}" for n in range(1000, 1060)},
    }


class _OfAnotherGroup(Collector):
    def _group(self, kind: Kind) -> str:
        return f"{super()._group(kind)}-again"


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert not isinstance(error, LogError)
    return error
