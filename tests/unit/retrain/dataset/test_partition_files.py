"""A partition's records end when their file is durable, never before and never twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from penstock.codec import encode
from penstock.kafka.delivery import Delivery
from penstock.records import Outgoing, Partition, Record
from penstock.v1 import feedback_pb2
from penstock_retrain.dataset import partition_files
from penstock_retrain.dataset.buffer import Bounds
from penstock_retrain.dataset.errors import AnotherLog
from penstock_retrain.dataset.names import FileName, Kind
from penstock_retrain.dataset.parquet import read_rows
from penstock_retrain.dataset.partition_files import PartitionFiles, files_of
from penstock_retrain.dataset.store import FileStore
from tests.unit.retrain.dataset.collected_rows import NOW_MS, source

SOURCE = source(Kind.FEEDBACK)
LETTER = Outgoing("dlq", b"k", b"v")


class Ended:
    """The partition's worker, as far as a delivery knows it."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.dead: list[int] = []

    def began(self, offset: int) -> None:
        raise AssertionError(offset)

    def died(self, offset: int) -> None:
        raise AssertionError(offset)

    def ended(self, delivery: Delivery, outputs: Sequence[Outgoing], *, dead: bool) -> None:
        assert list(outputs) == ([LETTER] if dead else [])
        (self.dead if dead else self.offsets).append(delivery.record.offset)


class Partitioned:
    """One tenure of the partition over a store."""

    def __init__(self, store: FileStore, bounds: Bounds, *, end: int = 10_000) -> None:
        self.ended = Ended()
        self.broken: list[Exception] = []
        self.deliveries: list[Delivery] = []

        async def ends() -> int:
            return end

        self.files = PartitionFiles(
            Kind.FEEDBACK,
            SOURCE,
            store,
            bounds=lambda: bounds,
            failed=lambda record, error: [LETTER],
            end=ends,
            broken=self.broken.append,
        )

    def deliver(self, *offsets: int, time_ms: int = NOW_MS, bad: bool = False) -> None:
        for offset in offsets:
            delivery = Delivery(record(offset, time_ms, bad=bad), 0, self.ended)
            self.deliveries.append(delivery)
            self.files.put(delivery)


def record(offset: int, time_ms: int = NOW_MS, *, bad: bool = False) -> Record:
    feedback = feedback_pb2.Feedback(request_id=f"r{offset}", label="a")
    made = encode(feedback, topic="t", key=f"k{offset}", source="test")
    value = b"\xff\xff" if bad else made.value
    partition = Partition(SOURCE.topic, SOURCE.partition)
    return Record(partition, offset, made.key, value, made.headers, time_ms)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def held(store: FileStore) -> list[tuple[int, int, list[int]]]:
    """Each file's first and last offset by its name, and its rows' offsets."""
    found = []
    for path in store.list(""):
        name = FileName.parse(path)
        assert name is not None
        offsets = [row.offset for row in read_rows(name.kind, store.read(path))]
        found.append((name.first, name.last, offsets))
    return found


def half_done(root: Path) -> list[Path]:
    return list(root.rglob(".tmp-*"))


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(str(tmp_path / "collected"))


async def test_a_full_file_ends_its_records_in_order(store: FileStore) -> None:
    part = Partitioned(store, Bounds(rows=3))
    part.deliver(1, 2, 4, 7, 8)
    await until(lambda: len(part.ended.offsets) == 3)
    assert held(store) == [(1, 4, [1, 2, 4])]
    assert part.ended.offsets == [1, 2, 4]
    part.files.flush()
    await until(lambda: len(part.ended.offsets) == 5)
    assert held(store) == [(1, 4, [1, 2, 4]), (7, 8, [7, 8])]
    await part.files.close()
    assert part.broken == []


async def test_a_row_waits_only_so_long(store: FileStore) -> None:
    part = Partitioned(store, Bounds(rows=100, age_s=0.02))
    part.deliver(5)
    await until(lambda: part.ended.offsets == [5])
    assert held(store) == [(5, 5, [5])]
    await part.files.close()


async def test_a_new_day_is_a_new_file(store: FileStore) -> None:
    part = Partitioned(store, Bounds(rows=100))
    part.deliver(1, 2)
    part.deliver(3, time_ms=NOW_MS + 86_400_000)
    part.deliver(4, time_ms=NOW_MS)
    part.files.flush()
    await until(lambda: len(part.ended.offsets) == 4)
    assert held(store) == [(1, 2, [1, 2]), (3, 4, [3, 4])]
    assert "day=2027-01-16" in store.list("")[1]
    await part.files.close()


async def test_nothing_ends_while_the_store_fails(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_files, "RETRY_S", (0.001, 0.01))
    failures = 3
    staged = store.stage

    def stage(target: str, data: bytes) -> str:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(28, "No space left on device")
        assert part.ended.offsets == []
        return staged(target, data)

    monkeypatch.setattr(store, "stage", stage)
    part = Partitioned(store, Bounds(rows=2))
    part.deliver(1, 2)
    await until(lambda: part.ended.offsets == [1, 2])
    assert held(store) == [(1, 2, [1, 2])]
    await part.files.close()


async def test_what_is_in_a_file_is_passed_over_when_it_comes_again(store: FileStore) -> None:
    before = Partitioned(store, Bounds(rows=3))
    before.deliver(1, 2, 4)
    await until(lambda: len(before.ended.offsets) == 3)
    await before.files.close()
    # The position was not committed: all of it comes again, and more.
    after = Partitioned(store, Bounds(rows=2))
    after.deliver(1, 2, 4, 5, 6)
    await until(lambda: len(after.ended.offsets) == 5)
    assert after.ended.offsets == [1, 2, 4, 5, 6]
    assert held(store) == [(1, 4, [1, 2, 4]), (5, 6, [5, 6])]
    await after.files.close()


async def test_a_file_never_reaches_over_another(store: FileStore) -> None:
    """An old file is gone and the group begins anew: what lies around the others is written."""
    first = Partitioned(store, Bounds(rows=2))
    first.deliver(10, 11)
    await until(lambda: len(first.ended.offsets) == 2)
    await first.files.close()
    again = Partitioned(store, Bounds(rows=100))
    again.deliver(8, 9, 10, 11, 12)
    again.files.flush()
    await until(lambda: len(again.ended.offsets) == 5)
    assert held(store) == [(8, 9, [8, 9]), (10, 11, [10, 11]), (12, 12, [12])]
    await again.files.close()


async def test_a_record_that_cannot_be_read_is_given_up_each_time_it_comes(
    store: FileStore,
) -> None:
    for _ in range(2):
        part = Partitioned(store, Bounds(rows=2))
        part.deliver(1)
        part.deliver(2, bad=True)
        part.deliver(3)
        await until(lambda: part.ended.offsets == [1, 3])  # noqa: B023
        assert part.ended.dead == [2]
        await part.files.close()
    assert held(store) == [(1, 3, [1, 3])]


async def test_another_record_at_an_offset_stops_everything(store: FileStore) -> None:
    before = Partitioned(store, Bounds(rows=2))
    before.deliver(1, 2)
    await until(lambda: len(before.ended.offsets) == 2)
    await before.files.close()
    after = Partitioned(store, Bounds(rows=2))
    after.deliver(1, time_ms=NOW_MS + 5)
    await until(lambda: bool(after.broken))
    assert isinstance(after.broken[0], AnotherLog)
    assert after.ended.offsets == []
    await after.files.close()


async def test_a_log_that_ends_before_its_files_stops_everything(store: FileStore) -> None:
    before = Partitioned(store, Bounds(rows=2))
    before.deliver(1, 2)
    await until(lambda: len(before.ended.offsets) == 2)
    await before.files.close()
    after = Partitioned(store, Bounds(rows=2), end=2)
    after.deliver(0)
    await until(lambda: bool(after.broken))
    assert "another directory" in str(after.broken[0])
    await after.files.close()


async def test_half_a_file_of_a_dead_writer_is_swept_and_never_listed(
    store: FileStore, tmp_path: Path
) -> None:
    name = FileName(Kind.FEEDBACK, SOURCE, "2027-01-15", 1, 9)
    target = tmp_path / "collected" / name.path
    store.stage(str(target), b"half")
    assert (len(half_done(tmp_path)), store.list("")) == (1, [])
    part = Partitioned(store, Bounds(rows=1))
    part.deliver(1)
    await until(lambda: part.ended.offsets == [1])
    assert half_done(tmp_path) == []
    await part.files.close()


async def test_a_partition_that_is_lost_ends_nothing_more(store: FileStore) -> None:
    part = Partitioned(store, Bounds(rows=100))
    part.deliver(1, 2)
    await until(lambda: len(part.files._buffer) == 2)
    for delivery in part.deliveries:
        delivery.drop()
    part.files.flush()
    await until(lambda: len(part.files._buffer) == 0)
    await part.files.close()
    assert (part.ended.offsets, held(store)) == ([], [])


async def test_the_next_tenure_waits_for_the_last_ones_file(store: FileStore) -> None:
    order: list[str] = []

    async def last() -> None:
        await asyncio.sleep(0.02)
        order.append("closed")

    def listed(*_: object) -> list[FileName]:
        order.append("listed")
        return files_of(store, Kind.FEEDBACK, SOURCE)

    after: Awaitable[object] = asyncio.create_task(last())
    part = Partitioned(store, Bounds(rows=1))
    await part.files.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partition_files, "files_of", listed)
        files = PartitionFiles(
            Kind.FEEDBACK,
            SOURCE,
            store,
            bounds=Bounds,
            failed=lambda record, error: [LETTER],
            end=_never,
            broken=part.broken.append,
            after=after,
        )
        await until(lambda: len(order) == 2)
        await files.close()
    assert order == ["closed", "listed"]


async def _never() -> int:
    raise AssertionError


async def test_an_object_store_keeps_the_same_files() -> None:
    store = FileStore("memory://collected-objects")
    part = Partitioned(store, Bounds(rows=2))
    part.deliver(1, 2)
    await until(lambda: part.ended.offsets == [1, 2])
    again = Partitioned(store, Bounds(rows=2))
    again.deliver(1, 2, 3, 4)
    await until(lambda: again.ended.offsets == [1, 2, 3, 4])
    assert held(store) == [(1, 2, [1, 2]), (3, 4, [3, 4])]
    await part.files.close()
    await again.files.close()
