"""States change only when what speaks for it has lasted: tables of ticks, and where they lead."""

from __future__ import annotations

import pytest

from penstock_drift.findings.states import Look, Rules, Standing, State, due_ms, step, wait

RULES = Rules(tick_ms=10, hysteresis_ticks=2, cooldown_ticks=5, ttl_ms=1000)
QUIET = Look()
ODD = Look(suspicious=True)
FOUND = Look(suspicious=True, found=True)
REBASED = Look(rebased=True)

A, S, D, C, R = State.ARMED, State.SUSPECT, State.DRIFT, State.COOLDOWN, State.REBASED


@pytest.mark.parametrize(
    ("looks", "states"),
    [
        ([QUIET, QUIET], [A, A]),
        # Evidence for one alone brings no finding, however long.
        ([ODD] * 4, [S, S, S, S]),
        # A finding needs two ticks in a row.
        ([FOUND, ODD, FOUND, FOUND], [S, S, S, D]),
        ([FOUND, QUIET, FOUND, FOUND], [S, S, S, D]),
        # Its absence has to last as well.
        ([FOUND, FOUND, QUIET, ODD, QUIET, QUIET], [S, D, D, D, D, C]),
        ([ODD, QUIET, QUIET], [S, S, A]),
        # What comes back within the cool-down is the old finding.
        ([FOUND, FOUND, QUIET, QUIET, FOUND, FOUND], [S, D, D, C, C, D]),
        ([FOUND, FOUND, QUIET, QUIET, ODD], [S, D, D, C, C]),
        ([FOUND, FOUND, REBASED, QUIET], [S, D, R, A]),
        ([FOUND, FOUND, REBASED, Look(warming=True), QUIET], [S, D, R, State.WARMING, A]),
        ([ODD, REBASED], [S, R]),
    ],
)
def test_ticks_with_values(looks: list[Look], states: list[State]) -> None:
    standing, seen = Standing(), []
    for number, look in enumerate(looks, 1):
        standing = step(standing, look, number * 10, RULES)
        seen.append(standing.state)
    assert seen == states


def test_a_finding_passes_by_event_time_when_nothing_more_is_heard() -> None:
    standing = Standing()
    for number, look in enumerate([FOUND, FOUND, QUIET], 1):
        standing = step(standing, look, number * 10, RULES)
    assert (standing.state, due_ms(standing, RULES)) == (D, 40)
    assert wait(standing, 39, RULES) is standing
    standing = wait(standing, 40, RULES)
    assert (standing.state, due_ms(standing, RULES)) == (C, 90)
    standing = wait(standing, 90, RULES)
    assert (standing.state, due_ms(standing, RULES)) == (A, None)


def test_silence_ends_a_finding_after_the_time_to_live() -> None:
    standing = step(step(Standing(), FOUND, 10, RULES), FOUND, 20, RULES)
    assert due_ms(standing, RULES) == 1020
    assert wait(standing, 1020, RULES).state is A
    assert wait(standing, 1020, RULES).gone_ms is None
