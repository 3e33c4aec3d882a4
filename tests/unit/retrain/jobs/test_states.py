"""What leads from one state of a job to another, and what never does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock_retrain.jobs.states import (
    ACTIVE,
    FINAL,
    STAGES,
    WAITING,
    Cause,
    CauseKind,
    Event,
    Impossible,
    Job,
    JobState,
    Trigger,
    allowed,
    transition,
)

S, T = JobState, Trigger


def job(state: JobState = S.OPENED, **fields: Any) -> Job:
    return Job("job-1", "triage", Cause(CauseKind.MANUAL), "", 100, 100, state=state, **fields)


def after(start: Job, *triggers: Trigger, **fields: Any) -> Job:
    for trigger in triggers:
        start = transition(start, Event(trigger, start.updated_us + 1, **fields))
    return start


def test_the_way_to_a_promotion() -> None:
    states = [S.OPENED]
    standing = job()
    for trigger in (T.STARTED, T.DONE, T.DONE, T.DONE, T.DONE, T.DONE, T.PROMOTE):
        standing = after(standing, trigger)
        states.append(standing.state)
    assert states == [S.OPENED, *STAGES, S.PROMOTED]
    assert (standing.revision, standing.updated_us) == (8, 107)


@pytest.mark.parametrize(
    ("state", "trigger", "target"),
    [
        (S.EVALUATING, T.REFUSED, S.REJECTED),
        (S.SHADOW, T.ROLL_BACK, S.ROLLED_BACK),
        (S.SHADOW, T.INCONCLUSIVE, S.INCONCLUSIVE),
        (S.CANARY, T.ROLL_BACK, S.ROLLED_BACK),
        (S.CANARY, T.INCONCLUSIVE, S.INCONCLUSIVE),
        (S.INCONCLUSIVE, T.CONTINUED, S.CANARY),
        (S.INCONCLUSIVE, T.PROMOTED_BY_HAND, S.PROMOTED),
        (S.INCONCLUSIVE, T.ROLLED_BACK_BY_HAND, S.ROLLED_BACK),
        (S.PROMOTED, T.ROLLED_BACK_BY_HAND, S.ROLLED_BACK),
        (S.TRAINING, T.BROKEN, S.FAILED),
        (S.OPENED, T.ABORTED, S.CANCELLED),
        (S.CANARY, T.ABORTED, S.CANCELLED),
    ],
)
def test_what_leads_elsewhere(state: JobState, trigger: Trigger, target: JobState) -> None:
    assert after(job(state), trigger).state is target


@pytest.mark.parametrize(
    ("state", "trigger"),
    [
        (S.INCONCLUSIVE, T.PROMOTE),
        (S.INCONCLUSIVE, T.DONE),
        (S.INCONCLUSIVE, T.APPROVED),
        (S.TRAINING, T.PROMOTE),
        (S.TRAINING, T.REFUSED),
        (S.CANARY, T.DONE),
        (S.SHADOW, T.PROMOTED_BY_HAND),
        (S.ROLLED_BACK, T.PROMOTED_BY_HAND),
        (S.ROLLED_BACK, T.STEPPED),
        (S.PROMOTED, T.ROLL_BACK),
        (S.CANCELLED, T.STARTED),
    ],
)
def test_what_cannot_happen_is_refused_with_what_can(state: JobState, trigger: Trigger) -> None:
    with pytest.raises(Impossible, match="nothing more" if not allowed(state) else "can"):
        after(job(state), trigger)


def test_a_stage_is_tried_as_often_as_it_may_and_anew_when_it_is_entered_anew() -> None:
    standing = job(S.DATASET, max_attempts=3)
    for failed in (1, 2):
        standing = transition(
            standing, Event(T.ATTEMPT_FAILED, 200, "away", retry_at_us=200 + failed)
        )
        assert (standing.state, standing.attempts[S.DATASET]) == (S.DATASET, failed)
        assert standing.retry_at_us == 200 + failed
    assert after(standing, T.DONE).retry_at_us == 0
    ended = after(standing, T.ATTEMPT_FAILED, reason="away")
    assert ended.state is S.FAILED
    assert ended.reason == "dataset failed 3 times, the last time: away"
    again = after(job(S.INCONCLUSIVE, attempts={S.CANARY: 2, S.DATASET: 1}), T.CONTINUED)
    assert again.attempts == {S.DATASET: 1}


def test_what_a_stage_keeps_is_laid_over_what_it_kept() -> None:
    standing = transition(job(S.CANARY), Event(T.STEPPED, 1, facts={"a": 1, "b": 1}, step=1))
    standing = transition(standing, Event(T.STEPPED, 2, facts={"b": 2}, step=2))
    assert (standing.step, standing.result(S.CANARY)) == (2, {"a": 1, "b": 2})
    # The clock that went back does not take the job back.
    assert standing.updated_us == 100
    with pytest.raises(Impossible, match="at step 2 already"):
        transition(standing, Event(T.STEPPED, 3, step=1))
    with pytest.raises(Impossible, match="only a canary"):
        transition(job(S.SHADOW), Event(T.STEPPED, 3, step=1))


def test_an_approval_stands_before_a_state_and_leads_to_it() -> None:
    asked = after(job(S.TRAINING, approvals=frozenset({S.EVALUATING})), T.DONE, facts={"x": 1})
    assert (asked.state, asked.awaiting) == (S.AWAITING_APPROVAL, S.EVALUATING)
    assert asked.result(S.TRAINING) == {"x": 1}
    entered = after(asked, T.APPROVED)
    assert (entered.state, entered.awaiting) == (S.EVALUATING, None)
    promotion = after(job(S.CANARY, approvals=frozenset({S.PROMOTED})), T.PROMOTE)
    assert (promotion.state, promotion.awaiting) == (S.AWAITING_APPROVAL, S.PROMOTED)
    assert after(promotion, T.APPROVED).state is S.PROMOTED
    # Who promotes has approved.
    by_hand = after(job(S.CANARY, approvals=frozenset({S.PROMOTED})), T.PROMOTED_BY_HAND)
    assert by_hand.state is S.PROMOTED


class Jobs(RuleBasedStateMachine):
    """Whatever happens to a job, in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.job = job()
        self.way: list[tuple[Trigger, Job]] = []

    @rule(
        approvals=st.frozensets(st.sampled_from([S.TRAINING, S.SHADOW, S.CANARY, S.PROMOTED])),
        attempts=st.integers(1, 3),
    )
    @precondition(lambda self: not self.way)
    def choose(self, approvals: frozenset[JobState], attempts: int) -> None:
        self.job = job(approvals=approvals, max_attempts=attempts)

    @rule(trigger=st.sampled_from(Trigger), step=st.none() | st.integers(0, 4))
    def happens(self, trigger: Trigger, step: int | None) -> None:
        event = Event(trigger, len(self.way), step=step, retry_at_us=7)
        try:
            new = transition(self.job, event)
        except Impossible:
            stepped_wrongly = step is not None and (
                self.job.state is not S.CANARY or step < self.job.step
            )
            assert stepped_wrongly or trigger not in allowed(self.job.state)
            return
        assert new.revision == self.job.revision + 1
        assert new.updated_us >= self.job.updated_us
        assert new.step >= self.job.step
        if self.job.state in FINAL:
            assert (self.job.state, new.state) == (S.PROMOTED, S.ROLLED_BACK)
        if new.state is S.PROMOTED:
            assert trigger in (T.PROMOTE, T.PROMOTED_BY_HAND, T.APPROVED)
            assert self.job.state in (S.CANARY, S.INCONCLUSIVE, S.AWAITING_APPROVAL)
        entered = new.state is not self.job.state
        if entered and new.state in self.job.approvals:
            assert trigger in (T.APPROVED, T.PROMOTED_BY_HAND, T.CONTINUED)
        self.way.append((trigger, self.job))
        self.job = new

    @invariant()
    def holds(self) -> None:
        assert (self.job.awaiting is not None) == (self.job.state is S.AWAITING_APPROVAL)
        assert self.job.active == (self.job.state in ACTIVE)
        if self.job.active:
            assert all(count < self.job.max_attempts for count in self.job.attempts.values())
        if self.job.state in WAITING | FINAL:
            assert self.job.retry_at_us == 0
        if self.job.active:
            assert T.ABORTED in allowed(self.job.state)


TestJobs = Jobs.TestCase
