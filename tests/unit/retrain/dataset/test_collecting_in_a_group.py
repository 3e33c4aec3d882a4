"""Collectors that come and go in a group: each record in one file, memory bounded."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from penstock.codec import encode
from penstock.kafka import progress
from penstock.kafka.consumer import POLL_RECORDS, ReadAhead, TransactionalConsumer
from penstock.kafka.memory import MemoryBroker
from penstock.kafka.ports import Position
from penstock.kafka.progress import Progress
from penstock.records import Partition
from penstock.v1 import feedback_pb2
from penstock_retrain.dataset.buffer import Bounds
from penstock_retrain.dataset.lines import Lines
from penstock_retrain.dataset.names import FileName, Kind, Source, in_order
from penstock_retrain.dataset.parquet import read_rows
from penstock_retrain.dataset.partition_files import PartitionFiles
from penstock_retrain.dataset.store import FileStore

TOPIC = "penstock.feedback"
HELD = 60


class Gate(FileStore):
    """A directory whose writes wait while the gate is shut."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()

    def stage(self, target: str, data: bytes) -> str:
        self.reached.set()
        assert self.open.wait(60)
        return super().stage(target, data)


class Member:
    """One collector's lines in the group."""

    def __init__(self, broker: MemoryBroker, store: FileStore, bounds: Bounds) -> None:
        self.broken: list[Exception] = []

        async def end() -> int:
            return 1 << 60

        def make(number: int, after: Awaitable[object] | None) -> PartitionFiles:
            return PartitionFiles(
                Kind.FEEDBACK,
                Source("log", TOPIC, number),
                store,
                bounds=lambda: bounds,
                failed=lambda record, error: [],
                end=end,
                broken=self.broken.append,
                after=after,
            )

        self.lines = Lines(make, lambda record, error: [])
        self.consumer = TransactionalConsumer(
            broker,
            topic=TOPIC,
            group="g",
            handler=self.lines,
            read_ahead=ReadAhead(HELD),
            ordered=True,
        )

    async def flush(self) -> None:
        while True:
            self.lines.flush()
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def member(
    broker: MemoryBroker, store: FileStore, bounds: Bounds, *, drain_s: float = 0.0
) -> AsyncIterator[Member]:
    made = Member(broker, store, bounds)
    running = asyncio.create_task(made.consumer.run())
    try:
        yield made
    finally:
        await made.consumer.stop(drain_s)
        await running
        await made.lines.close()
        assert made.broken == []


def publish(broker: MemoryBroker, numbers: range) -> None:
    for n in numbers:
        feedback = feedback_pb2.Feedback(request_id=f"r{n}", label="a")
        broker.append(encode(feedback, topic=TOPIC, key=f"k{n}", source="test"))
        if n % 7 == 0:
            broker.gap(Partition(TOPIC, n % broker.partitions))


def offsets(store: FileStore) -> tuple[Counter[tuple[int, int]], Counter[tuple[int, int]]]:
    """How often each offset is in a file, and how often it counts for a reader."""
    held: Counter[tuple[int, int]] = Counter()
    counted: Counter[tuple[int, int]] = Counter()
    names = [name for path in store.list("") if (name := FileName.parse(path)) is not None]
    for name, first in in_order(names):
        rows = [row.offset for row in read_rows(name.kind, store.read(name.path))]
        counted.update((name.source.partition, o) for o in rows if o >= first)
    for name in names:
        rows = [row.offset for row in read_rows(name.kind, store.read(name.path))]
        held.update((name.source.partition, offset) for offset in rows)
    return held, counted


def half_done(root: Path) -> list[Path]:
    return list(root.rglob(".tmp-*"))


def written(broker: MemoryBroker) -> Counter[tuple[int, int]]:
    return Counter((record.partition.number, record.offset) for record in broker.read(TOPIC))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def committed(broker: MemoryBroker) -> bool:
    ends: dict[int, int] = {}
    for record in broker.read(TOPIC):
        ends[record.partition.number] = record.offset + 1
    return all(
        broker.position("g", Partition(TOPIC, number)).offset >= end for number, end in ends.items()
    )


async def test_members_come_and_go_and_each_offset_is_in_one_file(tmp_path: Path) -> None:
    draw = random.Random(11)
    broker = MemoryBroker(partitions=3)
    store = FileStore(str(tmp_path / "collected"))
    bounds = Bounds(rows=9)
    async with member(broker, store, bounds, drain_s=5) as steady:
        for wave in range(8):
            publish(broker, range(wave * 60, (wave + 1) * 60))
            async with member(broker, store, bounds):
                # It leaves in the midst of its work: what is no file yet is somebody else's.
                await asyncio.sleep(draw.uniform(0, 0.15))
        flushing = asyncio.create_task(steady.flush())
        await until(lambda: committed(broker))
        flushing.cancel()
    held, counted = offsets(store)
    assert counted == written(broker)
    # Whoever leaves may end a file that its successor has begun as well: no more than that.
    assert set(held) == set(written(broker))
    assert half_done(tmp_path) == []


async def test_a_store_that_stands_still_holds_the_log_up_and_not_the_memory(
    tmp_path: Path,
) -> None:
    broker = MemoryBroker(partitions=2)
    store = Gate(str(tmp_path / "collected"))
    store.open.clear()
    publish(broker, range(3 * POLL_RECORDS))
    async with member(broker, store, Bounds(rows=20), drain_s=20) as one:
        await until(lambda: sum(each.held for each in one.consumer.standing()) >= HELD)
        before = sum(each.held for each in one.consumer.standing())
        await asyncio.sleep(0.3)
        assert sum(each.held for each in one.consumer.standing()) == before
        assert before <= HELD + POLL_RECORDS
        assert sum(each.committed for each in one.consumer.standing()) == 0
        store.open.set()
        flushing = asyncio.create_task(one.flush())
        await until(lambda: committed(broker))
        flushing.cancel()
    held, _ = offsets(store)
    assert held == written(broker)


async def test_after_many_deaths_files_are_as_large_as_ever(tmp_path: Path) -> None:
    broker = MemoryBroker(partitions=1)
    publish(broker, range(50))
    # Owners were killed again and again before any of their files was full.
    group = broker._groups["g", TOPIC]
    left = Position(0, progress.encode(Progress(takeovers=9, clean=False)))
    group.positions[Partition(TOPIC, 0)] = left
    store = FileStore(str(tmp_path / "collected"))
    async with member(broker, store, Bounds(rows=50), drain_s=5):
        await until(lambda: committed(broker))
        # Whoever is no longer careful must not overtake what waited.
        publish(broker, range(50, 100))
        await until(lambda: committed(broker))
    held, _ = offsets(store)
    assert held == written(broker)
    assert len(store.list("")) == 2


@pytest.mark.parametrize("seed", range(3))
async def test_a_sleeper_writes_again_what_its_successor_wrote_and_nobody_counts_it(
    tmp_path: Path, seed: int
) -> None:
    """The last owner's write goes on while the next one has the partition already."""
    broker = MemoryBroker(partitions=1)
    publish(broker, range(50 + seed))
    asleep, awake = Gate(str(tmp_path / "collected")), FileStore(str(tmp_path / "collected"))
    asleep.open.clear()
    sleeper = Member(broker, asleep, Bounds(rows=20))
    running = asyncio.create_task(sleeper.consumer.run())
    await until(asleep.reached.is_set)
    async with member(broker, awake, Bounds(rows=7), drain_s=5) as successor:
        stopping = asyncio.create_task(sleeper.consumer.stop(0))
        flushing = asyncio.create_task(successor.flush())
        await until(lambda: committed(broker))
        asleep.open.set()
        await stopping
        await running
        await sleeper.lines.close()
        flushing.cancel()
    held, counted = offsets(awake)
    assert held[0, 0] == 2
    assert counted == written(broker)
    assert set(held) == set(written(broker))
