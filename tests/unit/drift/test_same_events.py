"""However the records lie between each other, and whoever is killed when: the same events."""

from __future__ import annotations

import functools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_drift.findings.incidents import Phase
from penstock_drift.findings.states import State
from penstock_drift.judge.judge import Verdicts
from tests.unit.drift.toy import (
    FoldWorker,
    JudgeWorker,
    World,
    folded,
    interleaved,
    judged,
    make_world,
    merged,
)


@functools.cache
def world_and_verdicts(seed: int) -> tuple[World, Verdicts]:
    world = make_world(seed)
    return world, verdicts_of(world, random.Random(0))


def verdicts_of(world: World, draw: random.Random) -> Verdicts:
    logs = interleaved(world, draw)
    words = [folded(log, number, world.partitions) for number, log in enumerate(logs)]
    return judged(merged(words, draw))


def test_the_world_has_something_to_find() -> None:
    _, verdicts = world_and_verdicts(1)
    moves = {(event.previous, event.state) for event in verdicts.events}
    assert (State.SUSPECT, State.DRIFT) in moves
    assert (State.DRIFT, State.COOLDOWN) in moves
    assert (State.COOLDOWN, State.ARMED) in moves
    phases = [news.phase for news in verdicts.news]
    assert phases.count(Phase.OPENED) == phases.count(Phase.RESOLVED) > 0
    assert {event.watch.key.variant for event in verdicts.events} == {"v"}
    assert len({event.event_id for event in verdicts.events}) == len(verdicts.events)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(1, 4), order=st.integers(1, 10**6))
def test_any_interleaving_of_sources_and_partitions(seed: int, order: int) -> None:
    world, expected = world_and_verdicts(seed)
    found = verdicts_of(world, random.Random(order))
    assert found.events == expected.events
    assert found.news == expected.news


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(1, 4), order=st.integers(1, 10**6), kills=st.sampled_from([0.05, 0.2, 0.5]))
def test_any_kill_of_folds_and_judge(seed: int, order: int, kills: float) -> None:
    world, expected = world_and_verdicts(seed)
    draw = random.Random(order)
    logs = interleaved(world, draw)
    folds = [FoldWorker(log, number, world.partitions) for number, log in enumerate(logs)]
    evidence: list = []
    judge = JudgeWorker(evidence)
    for _ in range(100_000):
        if all(fold.done for fold in folds) and judge.done:
            break
        worker = draw.choice([*folds, judge])
        die = draw.random() < kills
        # The more kills the longer each life, or nothing would ever be done.
        records = draw.randrange(1, 80 + round(400 * kills))
        if isinstance(worker, JudgeWorker):
            worker.read(records // 4 + 1, die=die, commit=draw.random() < 0.7)
        else:
            told = worker.read(records)
            # A kill may come between any two of: evidence, state, position.
            evidence += told if not die else told[: draw.randrange(len(told) + 1)]
            if not die:
                worker.save(commit=draw.random() < 0.7)
        if die:
            worker.kill()
    else:
        pytest.fail("not done")
    assert judge.verdicts.events == expected.events
    assert judge.verdicts.news == expected.news
