"""When a file is full: by rows, bytes, offsets, time and day."""

from __future__ import annotations

import pytest

from penstock_retrain.dataset.buffer import Bounds, Buffer
from penstock_retrain.dataset.names import Kind
from penstock_retrain.dataset.rows import FeedbackRow
from tests.unit.retrain.dataset.collected_rows import NOW_MS, source

BOUNDS = Bounds(rows=4, value_bytes=100, span=50, age_s=10)
DAY_MS = 86_400_000


def row(offset: int, time_ms: int = NOW_MS) -> FeedbackRow:
    return FeedbackRow(0, offset, time_ms, "k", "f", "r", "t", label="a")


def filled(*rows: tuple[int, int]) -> Buffer:
    buffer = Buffer(Kind.FEEDBACK, source(Kind.FEEDBACK))
    for offset, size in rows:
        buffer.add(row(offset), size, now_s=100)
    return buffer


@pytest.mark.parametrize(
    ("rows", "full"),
    [
        ([], False),
        ([(1, 10), (2, 10), (3, 10)], False),
        ([(1, 10), (2, 10), (3, 10), (9, 10)], True),
        ([(1, 99)], False),
        ([(1, 60), (2, 40)], True),
        ([(1, 1), (50, 1)], False),
        ([(1, 1), (51, 1)], True),
    ],
)
def test_full_by_rows_bytes_and_offsets(rows: list[tuple[int, int]], full: bool) -> None:
    assert filled(*rows).full(BOUNDS) is full


def test_the_oldest_row_says_when_it_is_due() -> None:
    buffer = filled((1, 1))
    buffer.add(row(2), 1, now_s=108)
    assert buffer.due_in_s(BOUNDS, 103) == 7
    assert buffer.due_in_s(BOUNDS, 111) == 0
    buffer.clear()
    assert buffer.due_in_s(BOUNDS, 111) is None
    assert (len(buffer), buffer.value_bytes) == (0, 0)


def test_a_later_day_begins_a_file_and_an_earlier_one_does_not() -> None:
    buffer = filled((1, 1))
    assert buffer.fits(NOW_MS - 3 * DAY_MS)
    assert not buffer.fits(NOW_MS + DAY_MS)
    assert buffer.name().path.endswith(
        f"day=2027-01-15/penstock.feedback-00000-{1:020d}-{1:020d}.parquet"
    )


def test_an_offset_that_goes_back_is_a_fault() -> None:
    with pytest.raises(ValueError, match="offset 1"):
        filled((1, 1), (1, 1))
