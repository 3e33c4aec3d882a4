"""A change that has become the baseline: what is told of its end is of the change."""

from __future__ import annotations

from penstock_drift.findings.incidents import Phase
from penstock_drift.findings.states import State
from penstock_drift.records.values import Item, PolicyChange, Tick
from tests.unit.drift.toy import BASELINE, POLICY, folded, judged, observation

START_MS = 1_000_000


def test_its_event_tells_the_change_and_not_the_empty_baseline_after_it() -> None:
    log: list[Item] = [PolicyChange(1, POLICY)]
    for second in range(80):
        time_ms = START_MS + second * 1000
        log.append(observation(second, time_ms, 0.0 if second < BASELINE else 4.0))
        log.append(Tick("responses/0", time_ms, 1))
    verdicts = judged(folded(log, 0, 1))
    (found, rebased) = verdicts.events
    assert (found.state, rebased.state) == (State.DRIFT, State.REBASED)
    assert (rebased.mean_before, rebased.mean_after, rebased.effect) == (0.0, 4.0, found.effect)
    assert rebased.onset_ms == found.onset_ms
    assert rebased.observations > found.observations
    assert [(news.phase, news.incident.resolution) for news in verdicts.news] == [
        (Phase.OPENED, ""),
        (Phase.RESOLVED, "rebased"),
    ]
