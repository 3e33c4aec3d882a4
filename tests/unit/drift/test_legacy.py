"""ADWIN per key: fires where it should, at that very value, and survives what would poison it."""

from __future__ import annotations

import datetime as dt
import math
import random
from collections.abc import Iterable

import pytest

from penstock_drift.legacy import Change, Detectors, Noted
from penstock_drift.skeleton import Observation, Source

NOON = dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC)


def watch(values: Iterable[float], detectors: Detectors | None = None) -> Noted:
    detectors = detectors or Detectors(0.002, 1000)
    noted = Noted()
    for offset, value in enumerate(values):
        detectors.take(observation(offset, value), noted)
    return noted


def observation(
    offset: int, value: float, *, variant: str = "base", partition: int = 0
) -> Observation:
    source = Source("p.responses", partition, offset)
    return Observation("triage", variant, {"completion_tokens": value}, NOON, source)


def lengths(seed: int, mean: float, count: int) -> list[float]:
    draw = random.Random(seed)
    return [float(round(draw.gauss(mean, 8))) for _ in range(count)]


def fired_at(noted: Noted) -> list[int]:
    return [change.observation.source.offset for change in noted.changes]


def test_fires_on_a_shift_at_this_very_response() -> None:
    noted = watch(lengths(7, 40, 1000) + lengths(8, 60, 1000))
    assert fired_at(noted) == [1023]
    (change,) = noted.changes
    assert change.mean_before == pytest.approx(40, abs=1)
    assert change.mean_after == pytest.approx(60, abs=5)
    assert change.observations == 1024


@pytest.mark.parametrize("seed", range(5))
def test_does_not_fire_on_a_stationary_stream(seed: int) -> None:
    assert fired_at(watch(lengths(seed, 40, 3000))) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_a_value_that_would_poison_it_is_counted_and_passed_over(bad: float) -> None:
    clean = lengths(7, 40, 1000) + lengths(8, 60, 1000)
    noted = watch([*clean[:500], bad, *clean[500:]])
    # One record later, since the bad one took an offset.
    assert fired_at(noted) == [1024]
    assert noted.unusable == {"completion_tokens": 1}
    assert noted.taken == {"completion_tokens": 2000}


def test_a_replay_gives_the_same_events() -> None:
    values = lengths(1, 40, 1000) + lengths(2, 60, 1000) + lengths(3, 30, 1000)
    first, again = watch(values), watch(values)
    assert first.changes == again.changes
    assert len({change.event_id for change in first.changes}) == len(first.changes) >= 2


def test_a_record_that_is_delivered_again_is_taken_once() -> None:
    detectors = Detectors(0.002, 1000)
    values = lengths(7, 40, 1000) + lengths(8, 60, 1000)
    noted = Noted()
    for offset, value in enumerate(values):
        # The last ten again and again, as after a rebalance.
        for back in range(min(offset, 10), -1, -1):
            detectors.take(observation(offset - back, values[offset - back]), noted)
        assert value == values[offset]
    assert fired_at(noted) == [1023]


def test_variants_do_not_mix_and_partitions_do() -> None:
    detectors, noted = Detectors(0.002, 1000), Noted()
    for n, value in enumerate(lengths(7, 40, 1000)):
        detectors.take(observation(n, value, partition=n % 2), noted)
        detectors.take(observation(n, value + 40, variant="other", partition=2), noted)
    assert (fired_at(noted), len(detectors)) == ([], 2)


def test_keys_beyond_the_bound_are_counted_not_kept() -> None:
    detectors, noted = Detectors(0.002, 2), Noted()
    for n in range(10):
        detectors.take(observation(n, 1.0, variant=f"v{n}"), noted)
    assert (len(detectors), noted.overflow, noted.taken) == (2, 8, {"completion_tokens": 2})


def test_the_event_id_follows_from_detector_key_and_source() -> None:
    def ids(delta: float, variant: str, partition: int) -> str:
        detectors, noted = Detectors(delta, 10), Noted()
        for n, value in enumerate(lengths(7, 40, 500) + lengths(8, 90, 200)):
            detectors.take(observation(n, value, variant=variant, partition=partition), noted)
        change: Change = noted.changes[0]
        return change.event_id

    base = ids(0.002, "a", 0)
    assert base == ids(0.002, "a", 0)
    assert len({base, ids(0.001, "a", 0), ids(0.002, "b", 0), ids(0.002, "a", 1)}) == 4
