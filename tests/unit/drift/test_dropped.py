"""What nothing more is told of ends at once: evicted keys, signals that are switched off."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.v1 import drift_pb2
from penstock_drift.findings.incidents import Phase
from penstock_drift.findings.states import State
from penstock_drift.judge.judge import Verdicts
from penstock_drift.records.evidence import TickEvidence
from penstock_drift.records.evidence_wire import tick_from_wire, tick_to_wire
from penstock_drift.records.values import Item, Key, PolicyChange, Tick
from tests.unit.drift.toy import (
    BASELINE,
    POLICY,
    WHOLE,
    FoldWorker,
    folded,
    judged,
    judged_though_killed,
    observation,
)

START_MS = 1_000_000
FEW = POLICY.replace("{key_ttl_s: 60", "{max_keys: 2, key_ttl_s: 60")
OFF = FEW + "signals: {refusal: {enabled: false}}\n"
OPENED, DROPPED = (Phase.OPENED, ""), (Phase.RESOLVED, "dropped")


def log_of(seconds: int, others_from: int, said: dict[int, Item] | None = None) -> list[Item]:
    """A key that drifts from its baseline's end on; it falls silent when two others begin."""
    log: list[Item] = [PolicyChange(1, FEW)]
    for second in range(seconds):
        time_ms = START_MS + second * 1000
        if said and second in said:
            log.append(said[second])
        keys = [WHOLE] if second < others_from else [Key("m", "w"), Key("m", "x")]
        for number, key in enumerate(keys):
            value = 0.0 if second < BASELINE or key != WHOLE else 4.0
            log.append(observation(2 * second + number, time_ms, value, key=key))
        log.append(Tick("responses/0", time_ms, 1))
    return log


def phases(verdicts: Verdicts) -> list[tuple[Phase, str]]:
    return [(news.phase, news.incident.resolution) for news in verdicts.news]


def evicted(told: list[TickEvidence]) -> list[tuple[int, tuple[Key, ...]]]:
    return [((each.until_ms - START_MS) // 1000, each.evicted) for each in told if each.evicted]


def test_an_evicted_keys_incident_ends_with_the_key() -> None:
    told = folded(log_of(40, others_from=20), 0, 1)
    assert evicted(told) == [(21, (WHOLE,))]
    verdicts = judged(told)
    assert phases(verdicts) == [OPENED, DROPPED]
    last = verdicts.events[-1]
    assert (last.previous, last.state) == (State.DRIFT, State.ARMED)
    assert last.detected_ms == START_MS + 21_000
    (with_it,) = (each for each in told if each.evicted)
    record = drift_pb2.Evidence.FromString(tick_to_wire(with_it).SerializeToString())
    assert tick_from_wire(record) == with_it


def test_an_evicted_key_of_which_nothing_is_told_is_not_named() -> None:
    assert evicted(folded(log_of(40, others_from=BASELINE), 0, 1)) == []


def test_a_policy_with_fewer_keys_names_them_with_the_next_tick() -> None:
    fewer = PolicyChange(2, FEW.replace("max_keys: 2", "max_keys: 1"))
    log = log_of(30, others_from=40)
    # Another one is the newest, so the drifting one goes.
    last_ms = START_MS + 30_000
    log += [
        observation(90, last_ms, 0.0, key=Key("m", "z")),
        Tick("responses/0", last_ms + 1000, 1),
    ]
    log += [fewer, Tick("responses/0", last_ms + 3000, 1)]
    told = folded(log, 0, 1)
    assert evicted(told) == [(33, (WHOLE,))]
    assert phases(judged(told)) == [OPENED, DROPPED]


def test_a_kill_before_that_tick_forgets_none() -> None:
    log = log_of(30, others_from=40)
    other = observation(90, START_MS + 30_000, 0.0, key=Key("m", "z"))
    log += [other, Tick("responses/0", START_MS + 31_000, 1)]
    log.append(PolicyChange(2, FEW.replace("max_keys: 2", "max_keys: 1")))
    log.append(Tick("responses/0", START_MS + 33_000, 1))
    fold = FoldWorker(log, 0, 1)
    fold.read(len(log) - 1)
    fold.save(commit=True)
    fold.kill()
    assert evicted(fold.read(1)) == [(33, (WHOLE,))]


def test_a_signal_that_a_policy_switches_off_ends_with_the_policy() -> None:
    told = folded(log_of(40, others_from=50, said={20: PolicyChange(2, OFF)}), 0, 1)
    verdicts = judged(told)
    assert phases(verdicts) == [OPENED, DROPPED]
    assert verdicts.news[-1].incident.updated_ms == START_MS + 20_000


def test_a_fold_that_has_not_come_to_the_policy_opens_nothing_anew() -> None:
    behind = folded(log_of(40, others_from=50), 0, 2)
    ahead = folded([PolicyChange(2, OFF), Tick("responses/0", START_MS + 60_000, 1)], 1, 2)
    first = TickEvidence(1, 2, START_MS + 15_000, 0)
    known = TickEvidence(1, 2, START_MS + 16_000, 0, policy=PolicyChange(2, OFF))
    verdicts = judged([*behind, first, known, *ahead])
    assert phases(verdicts) == [OPENED, DROPPED]
    assert [event.state for event in verdicts.events] == [State.DRIFT, State.ARMED]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(1, 10**6), at=st.integers(9, 35))
def test_any_kill_gives_the_same(seed: int, at: int) -> None:
    draw = random.Random(seed)
    said: dict[int, Item] = {
        at: PolicyChange(2, OFF),
        at + 2: PolicyChange(3, FEW),
        at + 5: PolicyChange(4, FEW.replace("max_keys: 2", "max_keys: 1")),
    }
    log = log_of(45, others_from=draw.randrange(15, 45), said=said)
    expected = judged(folded(log, 0, 1))
    found = judged_though_killed(log, draw)
    assert found.events == expected.events
    assert found.news == expected.news
