"""The position moves over ended work only, never needs an offset that is not delivered, and what
ended above it travels to the next owner.
"""

from __future__ import annotations

import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.kafka import progress
from penstock.kafka.progress import MAX_CHARS, MAX_NOTES, SPAN, Note, Progress
from penstock.kafka.tracker import Delivered, Tracker


def tracker_with(*offsets: int, position: int = 0) -> Tracker[str]:
    tracker: Tracker[str] = Tracker(position)
    opened = tracker.ready(10)
    assert opened is not None
    tracker.committed(opened)
    for offset in offsets:
        assert tracker.deliver(offset) is Delivered.NEW
    return tracker


def commit(tracker: Tracker[str], *, clean: bool = False) -> tuple[list[str], int, str]:
    batch = tracker.ready(100, clean=clean)
    assert batch is not None
    tracker.committed(batch)
    return list(batch.results), batch.next_offset, batch.metadata


def begun_by(owner: int, metadata: str = "") -> str:
    """What one leaves who takes the partition and is gone while it has the record at 0."""
    tracker: Tracker[str] = Tracker(0, metadata, owner=owner)
    tracker.deliver(0)
    tracker.begin(0)
    return commit(tracker)[2]


def test_work_that_ends_out_of_order_is_committed_at_once_and_the_position_waits() -> None:
    tracker = tracker_with(0, 1, 2)
    tracker.complete(2, "c")
    tracker.complete(1, "b")
    results, position, metadata = commit(tracker)
    assert (results, position) == (["c", "b"], 0)
    assert progress.decode(metadata).done == 0b110
    tracker.complete(0, "a")
    assert commit(tracker)[:2] == (["a"], 3)


def test_a_marker_between_records_counts_as_done() -> None:
    tracker = tracker_with(4, 7, position=4)
    tracker.complete(4, "a")
    assert commit(tracker)[1] == 7


def test_the_next_owner_runs_what_was_not_committed_and_nothing_else() -> None:
    tracker = tracker_with(0, 1, 2, 3)
    tracker.complete(1, "b")
    tracker.complete(3, "d")
    _, position, metadata = commit(tracker)
    tracker.complete(0, "lost with its owner")
    heir: Tracker[str] = Tracker(position, metadata)
    states = [heir.deliver(offset) for offset in range(4)]
    assert states == [Delivered.NEW, Delivered.DONE, Delivered.NEW, Delivered.DONE]


def test_a_repeat_is_told_apart() -> None:
    tracker = tracker_with(5, position=5)
    assert tracker.deliver(4) is Delivered.REPEAT
    assert tracker.deliver(5) is Delivered.REPEAT


def test_a_second_result_is_a_bug_and_says_so() -> None:
    tracker = tracker_with(0)
    tracker.complete(0, "a")
    with pytest.raises(ValueError, match="end twice"):
        tracker.complete(0, "again")


def test_the_death_of_an_owner_counts_against_what_it_had_begun() -> None:
    tracker = tracker_with(0, 1, 2)
    tracker.begin(1)
    tracker.note_begun()
    _, position, metadata = commit(tracker)
    heir: Tracker[str] = Tracker(position, metadata)
    assert [heir.deaths(offset) for offset in range(3)] == [0, 1, 0]


def test_an_owner_that_lets_go_in_order_leaves_no_blame() -> None:
    tracker = tracker_with(0, 1)
    tracker.begin(0)
    _, position, metadata = commit(tracker, clean=True)
    heir: Tracker[str] = Tracker(position, metadata)
    assert heir.deaths(0) == 0
    assert not heir.careful


def test_an_owner_that_lost_the_partition_and_lives_blames_nobody() -> None:
    metadata = begun_by(1)
    assert Tracker[str](0, metadata, owner=1).deaths(0) == 0
    assert Tracker[str](0, metadata, owner=2).deaths(0) == 1


def test_deaths_that_were_none_are_taken_back() -> None:
    metadata = ""
    for _ in range(5):  # back and forth between two that live
        for owner in (1, 2):
            metadata = begun_by(owner, metadata)
    tracker = Tracker[str](0, metadata, owner=1)
    assert tracker.deaths(0) <= 1
    assert not tracker.careful


def test_one_that_lives_does_not_excuse_those_who_died() -> None:
    metadata = ""
    for owner in (1, 2, 3, 4):
        metadata = begun_by(owner, metadata)
    assert Tracker[str](0, metadata, owner=5).deaths(0) == 4
    assert Tracker[str](0, metadata, owner=2).deaths(0) == 3
    again = begun_by(2, metadata)
    assert Tracker[str](0, again, owner=2).deaths(0) == 3  # taken back once


def test_once_nothing_is_blamed_nobody_is_presumed_dead() -> None:
    metadata = begun_by(2, begun_by(1))
    tracker = Tracker[str](0, metadata, owner=3)
    tracker.deliver(0)
    tracker.complete(0, "answered")
    _, position, metadata = commit(tracker)
    assert progress.decode(metadata).presumed_dead == ()
    heir = Tracker[str](position, metadata, owner=4)
    heir.deliver(1)
    assert heir.died(1) == 1
    _, position, metadata = commit(heir, clean=True)
    assert Tracker[str](position, metadata, owner=1).deaths(1) == 1


def test_what_an_earlier_release_left_is_read() -> None:
    # done 0b101, the record at 1 begun with two deaths behind it, one takeover, not clean
    metadata = "p1:" + base64.b64encode(zlib.compress(bytes([0, 1, 0, 1, 1, 5, 5]))).decode()
    expected = Progress(0b101, {1: Note(2, begun=True)}, clean=False, takeovers=1)
    assert progress.decode(metadata) == expected


def test_where_a_suspect_was_at_work_only_it_is_blamed() -> None:
    tracker = tracker_with(0, 1)
    tracker.died(0)
    tracker.died(0)
    tracker.begin(0)
    tracker.begin(1)
    _, position, metadata = commit(tracker)
    heir: Tracker[str] = Tracker(position, metadata)
    assert (heir.deaths(0), heir.deaths(1)) == (3, 0)


def test_owners_that_die_before_they_commit_make_the_next_one_careful() -> None:
    metadata = ""
    for _ in range(4):
        tracker: Tracker[str] = Tracker(0, metadata)
        careful = tracker.careful
        _, _, metadata = commit(tracker)
    assert careful
    tracker.deliver(0)
    tracker.complete(0, "a")
    commit(tracker)
    assert not tracker.careful


def test_a_halt_stays_for_the_next_owner() -> None:
    tracker = tracker_with(0)
    tracker.halted_at_ms = 1_700_000_000_000
    tracker.touch()
    _, position, metadata = commit(tracker)
    assert Tracker[str](position, metadata).halted_at_ms == 1_700_000_000_000


def test_a_death_during_a_commit_is_told_by_the_next_one() -> None:
    tracker = tracker_with(0, 1)
    tracker.complete(0, "a")
    batch = tracker.ready(10)
    assert batch is not None
    tracker.died(1)
    tracker.committed(batch)
    _, position, metadata = commit(tracker)
    assert Tracker[str](position, metadata).deaths(1) == 1
    assert tracker.ready(10) is None


def test_what_ended_beyond_the_span_waits_for_the_position() -> None:
    tracker = tracker_with(0, SPAN - 1, SPAN)
    tracker.complete(SPAN, "beyond")
    tracker.complete(SPAN - 1, "last within")
    assert commit(tracker)[:2] == (["last within"], 0)
    assert tracker.ready(10) is None
    tracker.complete(0, "a")
    assert commit(tracker)[:2] == (["a"], SPAN)
    assert commit(tracker)[:2] == (["beyond"], SPAN + 1)


def test_metadata_of_other_tools_is_an_empty_start() -> None:
    assert progress.decode("") == Progress()
    assert progress.decode("committed by somebody's script") == Progress()
    assert progress.decode("p2:!!") == Progress()
    assert progress.decode("p2:AAAA") == Progress()


notes = st.builds(Note, st.integers(0, 15), st.booleans())


@given(
    done=st.integers(0, 2**SPAN - 1),
    noted=st.dictionaries(st.integers(0, SPAN - 1), notes, max_size=MAX_NOTES),
    clean=st.booleans(),
    takeovers=st.integers(0, 1000),
    halted_at_ms=st.integers(0, 2**44),
    owners=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9),
)
def test_metadata_fits_and_comes_back_as_it_was(
    done: int,
    noted: dict[int, Note],
    clean: bool,
    takeovers: int,
    halted_at_ms: int,
    owners: list[int],
) -> None:
    before = Progress(done, noted, clean, takeovers, halted_at_ms, owners[0], tuple(owners[1:]))
    metadata = progress.encode(before)
    assert len(metadata) <= MAX_CHARS
    assert progress.decode(metadata) == before


def test_the_worst_metadata_fits() -> None:
    # No two neighbours alike, nothing to compress, and far apart where it can be.
    done = int.from_bytes(bytes((i * 197 + 91) % 256 for i in range(SPAN // 8)), "little")
    noted = {i * (SPAN // 500): Note(i % 15, bool(i % 2)) for i in range(500)}
    metadata = progress.encode(
        Progress(done, noted, False, 2**30, 2**44, 2**32 - 1, (2**32 - 1,) * 20)
    )
    assert len(metadata) <= MAX_CHARS
    kept = progress.decode(metadata).notes
    assert len(kept) == MAX_NOTES
    assert min(note.deaths for note in kept.values()) >= 3
