"""A variant that a newer route gives no traffic: its incident ends, and late labels open none."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_drift.findings.incidents import Phase
from penstock_drift.findings.states import State
from penstock_drift.judge.judge import Verdicts
from penstock_drift.records.values import Item, Key, PolicyChange, Tick, Traffic
from tests.unit.drift.toy import (
    BASELINE,
    POLICY,
    folded,
    judged,
    judged_though_killed,
    observation,
)

START_MS = 1_000_000
OTHER = Key("m", "w")


def log_of(seconds: int, said: dict[int, Item], *, route: dict[int, int] | None = None) -> list:
    """A variant that drifts from its baseline's end on, and what is said before some seconds."""
    log: list[Item] = [PolicyChange(1, POLICY)]
    version = 1
    for second in range(seconds):
        if second in said:
            log.append(said[second])
        version = (route or {}).get(second, version)
        time_ms = START_MS + second * 1000
        value = 0.0 if second < BASELINE else 4.0
        log.append(observation(second, time_ms, value, route=version))
        log.append(Tick("responses/0", time_ms, 1))
    return log


def verdicts_of(log: list) -> Verdicts:
    return judged(folded(log, 0, 1))


def phases(verdicts: Verdicts) -> list[tuple[Phase, str]]:
    return [(news.phase, news.incident.resolution) for news in verdicts.news]


OPENED, WITHDRAWN = (Phase.OPENED, ""), (Phase.RESOLVED, "withdrawn")


def test_its_incident_ends_at_once_and_late_labels_open_none() -> None:
    verdicts = verdicts_of(log_of(40, {20: Traffic("m", 2, ("w",))}))
    assert phases(verdicts) == [OPENED, WITHDRAWN]
    last = verdicts.events[-1]
    assert (last.previous, last.state) == (State.DRIFT, State.ARMED)
    assert verdicts.news[-1].incident.updated_ms <= START_MS + 21_000


@pytest.mark.parametrize(
    ("traffic", "why"),
    [
        (Traffic("m", 2, ("v", "w")), "it has traffic still"),
        (Traffic("other", 2, ("w",)), "another model's route"),
        (Traffic("m", 1, ("w",)), "it answers under the same version: the route is to come"),
    ],
)
def test_any_other_route_ends_nothing(traffic: Traffic, why: str) -> None:
    assert phases(verdicts_of(log_of(40, {20: traffic}))) == [OPENED], why


def test_an_older_route_or_a_repeat_changes_nothing() -> None:
    said = {
        20: Traffic("m", 3, ("v",)),
        22: Traffic("m", 2, ("w",)),
        24: Traffic("m", 3, ("v",)),
    }
    assert phases(verdicts_of(log_of(40, said))) == [OPENED]


def test_one_that_comes_back_is_found_again() -> None:
    said = {20: Traffic("m", 2, ("w",)), 30: Traffic("m", 3, ("v",))}
    assert phases(verdicts_of(log_of(45, said, route={30: 3}))) == [OPENED, WITHDRAWN, OPENED]


def test_a_model_without_a_route_is_judged_by_none() -> None:
    said = {5: Traffic("m", 2, ("w",)), 7: Traffic("m", 0, ())}
    assert phases(verdicts_of(log_of(40, said))) == [OPENED]


def test_it_makes_no_room_for_others() -> None:
    """Evidence of the past is not counted among the findings that alpha is shared by."""
    said = {3: Traffic("m", 2, ("w",))}
    assert verdicts_of(log_of(40, said)).events == []


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(1, 10**6), at=st.integers(9, 35))
def test_any_kill_gives_the_same(seed: int, at: int) -> None:
    draw = random.Random(seed)
    log = log_of(45, {at: Traffic("m", 2, ("w",)), at + 8: Traffic("m", 3, ("v",))})
    expected = verdicts_of(log)
    found = judged_though_killed(log, draw)
    assert found.events == expected.events
    assert found.news == expected.news
