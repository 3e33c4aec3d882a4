"""Scaling: quick up, slow down, never outside the bounds, no flapping."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_inference.scaling.decision import (
    Bounds,
    Load,
    ScalingState,
    Targets,
    decide,
    share_out,
    total,
)

TARGETS = Targets(requests=10, tokens=2_560, up_after_s=5, down_after_s=60)
BOUNDS = Bounds(1, 8)


def run(
    loads: Iterable[Load | None], *, start: int = 1, bounds: Bounds = BOUNDS, every_s: float = 1.0
) -> list[int]:
    """The counts after each look."""
    state, replicas, counts = ScalingState(), start, []
    for index, load in enumerate(loads):
        decision = decide(load, state, bounds, TARGETS, replicas=replicas, now_s=index * every_s)
        state, replicas = decision.state, decision.replicas
        counts.append(replicas)
    return counts


def changes(counts: Sequence[int], start: int) -> list[tuple[int, int]]:
    """The looks at which the count changed, with the new count."""
    before = [start, *counts]
    return [
        (i, after) for i, (b, after) in enumerate(zip(before, counts, strict=False)) if b != after
    ]


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (Load(10, 100), []),  # exactly the target
        (Load(11, 100), [(5, 2)]),
        (Load(35, 100), [(5, 4)]),
        (Load(3, 2_561), [(5, 2)]),  # few requests, many tokens
        (Load(10_000, 0), [(5, 8)]),  # the maximum
    ],
)
def test_scales_up_after_five_seconds_to_what_the_work_needs(
    load: Load, expected: list[tuple[int, int]]
) -> None:
    assert changes(run([load] * 100), 1) == expected


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (Load(), [(60, 1)]),
        (Load(6, 0), [(60, 1)]),  # 0.6 of the target of one
        (Load(7, 0), [(60, 2)]),
        (Load(24, 0), []),  # four have 0.6 of their target
        (Load(35, 0), []),
    ],
)
def test_scales_down_after_a_minute_to_what_leaves_room(
    load: Load, expected: list[tuple[int, int]]
) -> None:
    assert changes(run([load] * 200, start=4), 4) == expected


def test_a_moment_below_the_target_begins_the_window_anew() -> None:
    loads = [Load(50), Load(50), Load(50), Load(10), *[Load(50)] * 6]
    assert changes(run(loads), 1) == [(9, 5)]


def test_goes_up_to_the_least_and_down_to_the_most_of_the_window() -> None:
    assert changes(run([Load(n) for n in (80, 30, 80, 80, 80, 80)]), 1) == [(5, 3)]
    quiet = [*[Load(0)] * 30, Load(12), *[Load(0)] * 30]
    assert changes(run(quiet, start=4), 4) == [(60, 2)]


def test_nothing_is_decided_on_what_is_not_known() -> None:
    assert changes(run([None] * 500, start=4), 4) == []
    assert changes(run([*[Load(0)] * 59, None, *[Load(0)] * 59], start=4), 4) == []


def test_from_nothing_work_is_served_at_once_and_rest_goes_back_to_nothing() -> None:
    loads = [Load(0), Load(1), *[Load(0)] * 70]
    assert changes(run(loads, start=0, bounds=Bounds(0, 8)), 0) == [(1, 1), (62, 0)]


def test_a_count_outside_the_bounds_is_brought_back_at_once() -> None:
    assert run([None], start=12) == [8]
    assert run([None], start=0) == [1]


def test_unusable_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="unusable"):
        Targets(requests=0, tokens=1)


LOADS = st.builds(Load, st.integers(0, 200), st.integers(0, 50_000))
STARTS = st.integers(0, 12)


@given(LOADS, STARTS)
def test_a_constant_load_causes_one_change_at_most(load: Load, start: int) -> None:
    found = changes(run([load] * 300, start=start), start)
    inside = [each for each in found if each[0] > 0]  # the first look may mend the bounds
    assert len(inside) <= 1


@given(st.lists(LOADS, min_size=1, max_size=300), STARTS)
def test_the_bounds_hold_and_changes_keep_their_windows(loads: list[Load], start: int) -> None:
    counts = run(loads, start=start)
    assert all(BOUNDS.minimum <= count <= BOUNDS.maximum for count in counts)
    for (earlier, _), (later, after) in zip(
        found := changes(counts, start), found[1:], strict=False
    ):
        up = after > counts[later - 1]
        assert later - earlier >= (TARGETS.up_after_s if up else TARGETS.down_after_s)


@given(st.lists(LOADS, min_size=1, max_size=300))
def test_a_rising_load_never_scales_down(loads: list[Load]) -> None:
    rising = []
    for load in loads:
        last = rising[-1] if rising else Load()
        rising.append(Load(max(last.requests, load.requests), max(last.tokens, load.tokens)))
    counts = run(rising)
    assert counts == sorted(counts)


@given(st.lists(LOADS, min_size=1, max_size=300))
def test_a_falling_load_never_scales_up(loads: list[Load]) -> None:
    falling: list[Load] = []
    for load in loads:
        last = falling[-1] if falling else Load(10**6, 10**6)
        falling.append(Load(min(last.requests, load.requests), min(last.tokens, load.tokens)))
    counts = run(falling, start=8)
    assert counts == sorted(counts, reverse=True)


@given(st.lists(LOADS, max_size=100), st.integers(0, 3))
def test_without_work_it_comes_to_the_minimum(loads: list[Load], minimum: int) -> None:
    bounds = Bounds(minimum, 8)
    # Two windows: what was needed as the first began bounds its step.
    counts = run([*loads, *[Load()] * 130], start=3, bounds=bounds)
    assert counts[-1] == minimum


@given(LOADS, st.floats(0, 0.15), st.lists(st.floats(-1, 1), min_size=200, max_size=200))
def test_a_load_that_sways_settles(load: Load, sway: float, noise: list[float]) -> None:
    swaying = [
        Load(round(load.requests * (1 + sway * n)), round(load.tokens * (1 + sway * n)))
        for n in noise
    ]
    counts = run(swaying)
    # Sways within the band: after it has gone up it never comes down.
    assert counts == sorted(counts)


def test_unread_records_are_taken_to_be_like_those_that_are_held() -> None:
    held = {"a": Load(30, 3_000), "b": Load(10, 5_000)}
    assert share_out(held, 40, 0, ["a", "b", "c"]) == {**held, "c": Load()}
    assert share_out(held, 40, 80, ["a", "b"]) == {"a": Load(90, 9_000), "b": Load(30, 15_000)}
    # Half of what is held waits for the turn of its key: no engine would begin it sooner.
    assert share_out(held, 80, 80, []) == {"a": Load(60, 6_000), "b": Load(20, 10_000)}
    assert share_out(held, 10**6, 1, [])["b"].requests == 11
    assert share_out({}, 0, 3, ["a", "b"]) == {"a": Load(2, 512), "b": Load(2, 512)}
    assert share_out({}, 5, 100, ["a"]) == {"a": Load()}  # one key's


def test_loads_add_up() -> None:
    assert total([Load(1, 2), Load(3, 4)]) == Load(4, 6)
    assert total([]) == Load()
