"""The schedule is the seed's, has every kind, and takes no two of Kafka's nodes at once."""

from __future__ import annotations

import itertools

import pytest

from tests.chaos.faults import KINDS, OVERLAP, plan


def test_seed_decides() -> None:
    assert plan(7, 100) == plan(7, 100)
    assert plan(7, 100) != plan(8, 100)


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_comes_first(seed: int) -> None:
    assert {fault.kind for fault in plan(seed, len(KINDS))} == set(KINDS)


@pytest.mark.parametrize("seed", range(20))
def test_pumps_come_before_they_go(seed: int) -> None:
    added = 0
    for fault in plan(seed, 200):
        added += {"pump add": 1, "pump remove": -1}.get(fault.kind, 0)
        assert added in {0, 1}


@pytest.mark.parametrize("seed", range(20))
def test_one_node_of_kafka_at_a_time(seed: int) -> None:
    schedule = plan(seed, 200)
    for before, fault in itertools.pairwise(schedule):
        if fault.overlaps:
            assert not before.overlaps
            assert not (before.on_broker and fault.on_broker)
    assert sum(fault.overlaps for fault in schedule) > 200 * OVERLAP / 4


def test_stops_outlast_the_session() -> None:
    stops = [fault.lasts_s for fault in plan(3, 200) if fault.kind.endswith("stop")]
    assert min(stops) > 10
