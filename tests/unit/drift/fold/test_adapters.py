"""Which adapter answered is known by the route's version."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_drift.findings.causes import likely_causes
from penstock_drift.fold.adapters import MAX_CHANGES, Adapters
from penstock_drift.records.evidence import Entry
from penstock_drift.records.values import PolicyChange, Tick
from tests.unit.drift.toy import POLICY, FoldWorker, Item, observation

ROUTES = ["", "", "a", "a", "b", "a", "a"]  # by version, from 1


@given(st.lists(st.integers(1, len(ROUTES)), min_size=1, max_size=40))
def test_every_version_has_its_adapter(versions: list[int]) -> None:
    adapters = Adapters()
    for version in sorted(versions):
        adapters.note(version, ROUTES[version - 1])
        adapters = Adapters(adapters.changes())  # through a state
    assert {v: adapters.at(v) for v in versions} == {v: ROUTES[v - 1] for v in versions}
    assert adapters.at(min(versions) - 1) is None
    found = [adapter for _, adapter in adapters.changes()]
    assert all(one != other for one, other in itertools.pairwise(found))


def test_a_version_that_comes_late_is_in_its_place_with_the_next_response() -> None:
    adapters = Adapters()
    for version, adapter in [(3, "a"), (6, "a"), (5, "b"), (6, "a")]:
        adapters.note(version, adapter)
    assert [adapters.at(version) for version in range(2, 8)] == [None, "a", "a", "b", "a", "a"]


def test_the_later_word_on_a_version_counts() -> None:
    adapters = Adapters([(1, "a")])
    adapters.note(5, "b")
    adapters.note(5, "a")  # it was admitted under 5, and run by what was before it
    assert adapters.changes() == ((1, "a"),)
    adapters.note(5, "b")
    assert adapters.changes() == ((1, "a"), (5, "b"))


@pytest.mark.parametrize(("version", "adapter"), [(0, "a"), (3, None)])
def test_what_is_not_known_says_nothing(version: int, adapter: str | None) -> None:
    adapters = Adapters()
    adapters.note(version, adapter)
    assert (adapters.changes(), adapters.at(version)) == ((), None)


def test_the_oldest_changes_go_first() -> None:
    adapters = Adapters()
    for version in range(1, 30):
        adapters.note(version, str(version))
    assert [version for version, _ in adapters.changes()] == list(range(30 - MAX_CHANGES, 30))
    assert (adapters.at(29), adapters.at(1)) == ("29", None)


def folded(new: str, *, killed: bool) -> Entry:
    """What a fold says at last of a key whose route changes from version 3 to 4."""
    log: list[Item] = [PolicyChange(1, POLICY)]
    for second in range(1, 40):
        route, adapter, value = (3, "a-1", 0.0) if second < 20 else (4, new, 4.0)
        log.append(observation(second, second * 1000, value, route=route, adapter=adapter))
        log.append(Tick("responses/0", second * 1000, 1))
    worker = FoldWorker(log, 0, 1)
    told = worker.read(45)
    if killed:
        worker.save(commit=True)
        worker.kill()
    told += worker.read(len(log))
    return told[-1].entries[0]


@pytest.mark.parametrize(("new", "cause"), [("a-2", "adapter"), ("a-1", "route_change")])
def test_a_new_adapter_is_told_apart_from_another_change_of_the_route(new: str, cause: str) -> None:
    entry = folded(new, killed=False)
    assert folded(new, killed=True) == entry
    (found,) = likely_causes(entry, [])
    assert found.name == cause
    if cause == "adapter":
        assert "adapter a-2 answers since route version 4, adapter a-1 did before" in found.reason
