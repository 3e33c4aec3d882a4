"""Which keys an answer counts for, and when a source says that a tick is over."""

from __future__ import annotations

import pytest

from penstock_drift.extraction.source_clock import COMMIT_MS, Grid, SourceClock
from penstock_drift.records.values import Key, Tick
from penstock_drift.signals.facts import Answer
from penstock_drift.signals.segments import UNSEEN_MS, Segments, keys_of

GRID = Grid(tick_ms=10_000, lateness_ms=2_000)


def segments_of(
    segments: Segments, labels: dict[str, str], watched: dict[str, int], at: int = 0
) -> list[str]:
    answer = Answer("r", "m", "v", labels=labels)
    return [key.segment for key in keys_of(answer, segments.of(answer, watched, at))]


def test_all_traffic_and_each_label_that_is_watched() -> None:
    answer = Answer("r", "m", "v", labels={"task": "a", "x": "y"})
    segments = Segments().of(answer, {"task": 2, "z": 2}, 0)
    assert segments == ("task=a", "z=")
    assert list(keys_of(answer, segments)) == [Key("m", "v", ""), Key("m", "v", "task=a")]


def test_values_beyond_the_bound_are_one_segment() -> None:
    segments = Segments()
    seen = [segments_of(segments, {"task": value}, {"task": 2})[1] for value in "abcab"]
    assert seen == ["task=a", "task=b", "task=other", "task=a", "task=b"]


def test_a_value_that_is_not_seen_any_more_makes_room() -> None:
    segments = Segments()
    segments_of(segments, {"task": "a"}, {"task": 1}, 0)
    assert segments_of(segments, {"task": "b"}, {"task": 1}, UNSEEN_MS - 1)[1] == "task=other"
    assert segments_of(segments, {"task": "b"}, {"task": 1}, UNSEEN_MS)[1] == "task=b"
    assert segments_of(segments, {"task": "a"}, {"task": 1}, UNSEEN_MS)[1] == "task=other"


def test_a_policy_that_wants_fewer_values_keeps_those_seen_last() -> None:
    segments = Segments()
    for at, value in enumerate("abca"):
        segments_of(segments, {"task": value}, {"task": 3}, at)
    # Seen last at 3, 1 and 2.
    fewer = [segments_of(segments, {"task": value}, {"task": 2}, 4)[1] for value in "abc"]
    assert fewer == ["task=a", "task=other", "task=c"]
    fewest = [segments_of(segments, {"task": value}, {"task": 1}, 5)[1] for value in "abc"]
    assert fewest.count("task=other") == 2


def test_a_value_of_any_length_makes_a_short_key() -> None:
    assert len(segments_of(Segments(), {"task": "x" * 256}, {"task": 1})[1]) == len("task=") + 64


@pytest.mark.parametrize(
    ("time_ms", "closed"),
    [(11_999, 0), (12_000, 10_000), (21_999, 10_000), (22_000, 20_000), (45_000, 40_000)],
)
def test_a_tick_is_over_when_its_lateness_has_passed(time_ms: int, closed: int) -> None:
    assert GRID.closed_at(time_ms) == closed


def test_a_source_tells_each_tick_once_and_in_order() -> None:
    clock = SourceClock("responses/3")
    times = [15_000, 16_000, 22_000, 21_000, 39_999, 62_000]
    told = [clock.saw(time, GRID, 8) for time in times]
    assert told == [
        Tick("responses/3", 10_000, 8),
        None,
        Tick("responses/3", 20_000, 8),
        None,
        Tick("responses/3", 30_000, 8),
        Tick("responses/3", 60_000, 8),
    ]


def test_the_clock_tells_what_nothing_can_come_before_any_more() -> None:
    clock = SourceClock("feedback/0")
    assert clock.idle(100_000 + COMMIT_MS + 2000, GRID, 8) == Tick("feedback/0", 100_000, 8)
    assert clock.idle(100_000 + COMMIT_MS + 11_999, GRID, 8) is None
    # What comes afterwards all the same tells nothing that was told.
    assert clock.saw(101_000, GRID, 8) is None
