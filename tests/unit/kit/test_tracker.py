"""The position moves over finished work only, and never needs an offset that is not delivered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.kafka.tracker import Tracker


def tracker_with(*offsets: int, position: int = 0) -> Tracker[str]:
    tracker: Tracker[str] = Tracker(position)
    for offset in offsets:
        assert tracker.deliver(offset)
    return tracker


def test_work_that_ends_out_of_order_waits_for_the_first() -> None:
    tracker = tracker_with(0, 1, 2)
    tracker.complete(2, "c")
    tracker.complete(1, "b")
    assert tracker.ready(10) is None
    tracker.complete(0, "a")
    batch = tracker.ready(10)
    assert batch is not None
    assert (list(batch.results), batch.next_offset) == (["a", "b", "c"], 3)


def test_a_marker_between_records_counts_as_done() -> None:
    tracker = tracker_with(4, 7, position=4)
    tracker.complete(4, "a")
    batch = tracker.ready(10)
    assert batch is not None
    assert batch.next_offset == 7


def test_a_repeat_below_the_position_is_refused() -> None:
    tracker = tracker_with(5, position=5)
    assert not tracker.deliver(4)
    assert not tracker.deliver(5)
    assert tracker.uncommitted == 1


def test_a_batch_is_offered_until_it_is_committed() -> None:
    tracker = tracker_with(0, 1)
    tracker.complete(0, "a")
    first = tracker.ready(10)
    assert first is not None
    tracker.complete(1, "b")
    tracker.committed(first)
    second = tracker.ready(10)
    assert second is not None
    assert (list(second.results), second.next_offset, tracker.uncommitted) == (["b"], 2, 1)


def test_a_second_result_is_a_bug_and_says_so() -> None:
    tracker = tracker_with(0)
    tracker.complete(0, "a")
    with pytest.raises(ValueError, match="completed twice"):
        tracker.complete(0, "again")


@given(
    gaps=st.lists(st.integers(1, 4), min_size=1, max_size=30),
    order=st.randoms(use_true_random=False),
    limit=st.integers(1, 7),
)
def test_every_result_is_committed_once_and_in_order(
    gaps: list[int], order: object, limit: int
) -> None:
    offsets = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    tracker = tracker_with(*offsets)
    shuffled = list(offsets)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    seen: list[str] = []
    unfinished = set(offsets)
    for offset in shuffled:
        tracker.complete(offset, str(offset))
        unfinished.discard(offset)
        while batch := tracker.ready(limit):
            assert all(batch.next_offset <= pending for pending in unfinished)
            seen.extend(batch.results)
            tracker.committed(batch)
    assert seen == [str(offset) for offset in offsets]
    assert tracker.uncommitted == 0
