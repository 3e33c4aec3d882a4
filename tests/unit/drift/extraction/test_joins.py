"""A join reads just far enough, whoever came first, and remembers within its bounds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.records import Partition, Record
from penstock_drift.extraction.joins import OVERHEAD_BYTES, SKEW_MS, Found, Join, Joined, Table

PARTITION = Partition("p.admitted", 0)


def record(offset: int, time_ms: int, name: str, size: int = 10) -> Record:
    return Record(PARTITION, offset, None, b"x" * size, (("ce_id", name.encode()),), time_ms)


ARRIVALS = itertools.count(1)


class LogCursor:
    """A partition as a list; `batch` records at a time, gaps where offsets are missing."""

    def __init__(self, records: Sequence[Record], batch: int = 2) -> None:
        self.log = list(records)
        self.position = 0
        self.batch = batch
        self.ends_asked = 0
        self.starts_asked = 0

    async def start_at(self, time_ms: int) -> None:
        self.starts_asked += 1
        later = [r.offset for r in self.log if r.timestamp_ms >= time_ms]
        self.position = min(later, default=self._end())

    async def read(self, wait_s: float) -> Sequence[Record]:
        found = [r for r in self.log if r.offset >= self.position][: self.batch]
        if found:
            self.position = found[-1].offset + 1
        else:
            self.position = max(self.position, self._end())
        return found

    async def end(self) -> int:
        self.ends_asked += 1
        return self._end()

    async def close(self) -> None:
        self.log.clear()

    def _end(self) -> int:
        # A commit marker behind the last record.
        return self.log[-1].offset + 2 if self.log else 0


def join(cursor: LogCursor, *, ttl_ms: int = 1000, size: int = 10**6, once: bool = True) -> Join:
    table = Table(ttl_ms, size)
    return Join(cursor, table, lambda r: r.header("ce_id"), once=once, timer=lambda: next(ARRIVALS))


async def ask(requests: Join, name: str, at_ms: int) -> Found:
    return await requests.find(name, at_ms, next(ARRIVALS))


async def test_it_reads_no_further_than_it_has_to() -> None:
    cursor = LogCursor([record(n, 10 * n, f"r{n}") for n in range(10)])
    requests = join(cursor)
    assert (await ask(requests, "r1", 200)).how is Joined.BEFORE
    assert (cursor.position, cursor.ends_asked) == (2, 0)
    found = await ask(requests, "r0", 210)
    assert found.how is Joined.AFTER
    assert found.record is not None
    assert found.record.offset == 0
    assert len(requests.table) == 0


async def test_what_is_not_there_is_known_once_all_is_read_that_was_there() -> None:
    cursor = LogCursor([record(n, 10 * n, f"r{n}") for n in range(5)])
    requests = join(cursor)
    assert (await ask(requests, "nobody", 50)).how is Joined.LATE
    assert (cursor.position, cursor.ends_asked, len(requests.table)) == (6, 1, 5)
    cursor.log.append(record(9, 60, "r9"))
    assert (await ask(requests, "r9", 70)).how is Joined.BEFORE


async def test_one_question_where_the_log_ends_answers_all_who_had_come_by_then() -> None:
    cursor = LogCursor([record(n, 10 * n, f"r{n}") for n in range(5)])
    requests = join(cursor)
    arrived = [next(ARRIVALS) for _ in range(10)]
    for arrival in arrived:
        assert (await requests.find("nobody", 50, arrival)).how is Joined.LATE
    assert cursor.ends_asked == 1
    assert (await ask(requests, "nobody", 50)).how is Joined.LATE
    assert cursor.ends_asked == 2


@pytest.mark.parametrize("log", [[], [record(0, 0, "r0")]], ids=["empty", "old"])
async def test_a_log_without_news_is_asked_once_for_many_names(log: list[Record]) -> None:
    cursor = LogCursor(log)
    requests = join(cursor, ttl_ms=1000)
    arrived = [next(ARRIVALS) for _ in range(100)]
    for n, arrival in enumerate(arrived):
        assert (await requests.find("nobody", 5000 + 9 * n, arrival)).how is Joined.LATE
    assert (cursor.starts_asked, cursor.ends_asked) == (1, 1)
    cursor.log.append(record(7, 5900, "r7"))
    assert (await ask(requests, "r7", 6000)).how is Joined.BEFORE
    assert cursor.starts_asked == 1


async def test_of_a_backlog_it_reads_only_what_may_have_come_before() -> None:
    cursor = LogCursor([record(n, 10_000 * n, f"r{n}") for n in range(100)], batch=1)
    requests = join(cursor, ttl_ms=10**9)
    assert (await ask(requests, "nobody", 20_000)).how is Joined.LATE
    assert cursor.position == (20_000 + SKEW_MS) // 10_000 + 2


async def test_it_begins_a_time_to_live_before_and_skips_what_no_one_can_ask_for() -> None:
    cursor = LogCursor([record(n, 100 * n, f"r{n}") for n in range(100)], batch=5)
    requests = join(cursor, ttl_ms=1000)
    assert (await ask(requests, "r45", 5000)).record is not None
    assert cursor.position == 50
    assert (await ask(requests, "r39", 5000)).how is Joined.LATE


async def test_after_a_pause_it_skips_what_no_one_can_ask_for_any_more() -> None:
    cursor = LogCursor([record(n, 100 * n, f"r{n}") for n in range(100)], batch=5)
    requests = join(cursor, ttl_ms=1000)
    assert (await ask(requests, "r5", 600)).record is not None
    assert (await ask(requests, "r95", 9900)).record is not None
    assert len(requests.table) < 11
    assert (await ask(requests, "r60", 9900)).how is Joined.LATE


async def test_what_can_be_asked_for_again_stays() -> None:
    responses = join(LogCursor([record(0, 0, "r0")]), once=False)
    assert (await ask(responses, "r0", 10)).how is Joined.BEFORE
    assert (await ask(responses, "r0", 20)).how is Joined.AFTER
    assert (await ask(responses, "r0", 1001)).how is Joined.LATE


def test_a_table_is_bounded_in_time_and_size() -> None:
    table = Table(1000, 3 * (OVERHEAD_BYTES + 10))
    for n in range(5):
        table.add(f"r{n}", record(n, 10 * n, f"r{n}"))
    assert [table.get(f"r{n}") is not None for n in range(5)] == [False, False, True, True, True]
    table.add("r4", record(9, 90, "r4", size=5000))
    assert table.size == 3 * (OVERHEAD_BYTES + 10)
    table.forget(35)
    assert (len(table), table.size) == (1, OVERHEAD_BYTES + 10)
    table.remove("r4")
    table.remove("r4")
    assert (len(table), table.size) == (0, 0)


def test_one_record_fits_however_large() -> None:
    table = Table(1000, 100)
    table.add("a", record(0, 0, "a", size=5000))
    assert table.get("a") is not None


@pytest.mark.parametrize("batch", [1, 3, 50])
@settings(deadline=None, max_examples=30)
@given(data=st.data())
async def test_every_response_finds_its_request_in_whatever_order_they_end(
    batch: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, 25))
    gaps = data.draw(st.lists(st.integers(1, 3), min_size=count, max_size=count))
    offsets = [sum(gaps[:n]) for n in range(count)]
    cursor = LogCursor([record(o, 10 * n, f"r{n}") for n, o in enumerate(offsets)], batch)
    requests = join(cursor, ttl_ms=10_000)
    ended = data.draw(st.permutations(range(count)))
    for step, n in enumerate(ended):
        found = await ask(requests, f"r{n}", 10 * count + step)
        assert found.record is not None
        assert found.record.offset == offsets[n]
    assert len(requests.table) == 0
