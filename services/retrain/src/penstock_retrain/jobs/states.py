"""The states of a job and what leads from one to the next. Pure.

    opened -> dataset -> training -> evaluating -> registering -> shadow -> canary(step)
           -> promoted | rolled_back | inconclusive | rejected | failed | cancelled

A job that waits for a person is `awaiting_approval` with the state that comes next in `awaiting`,
or `inconclusive`, which holds the candidate where it is: a person promotes it, rolls it back or
lets the canary go on. A promoted job ends; a person may still roll it back.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

__all__ = [
    "ACTIVE",
    "FINAL",
    "JOURNAL",
    "STAGES",
    "WAITING",
    "WITH_CANDIDATE",
    "Cause",
    "CauseKind",
    "Event",
    "Facts",
    "Impossible",
    "Job",
    "JobState",
    "Trigger",
    "allowed",
    "transition",
]

# What a stage found out, as JSON.
Facts = Mapping[str, Any]
# The fact that a stage keeps for whoever runs it next: nobody else is shown it.
JOURNAL = "journal"


class JobState(StrEnum):
    """Where a job stands."""

    OPENED = "opened"
    DATASET = "dataset"
    TRAINING = "training"
    EVALUATING = "evaluating"
    REGISTERING = "registering"
    SHADOW = "shadow"
    CANARY = "canary"
    AWAITING_APPROVAL = "awaiting_approval"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    INCONCLUSIVE = "inconclusive"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"


# The states in which a stage runs, in their order.
STAGES = (
    JobState.DATASET,
    JobState.TRAINING,
    JobState.EVALUATING,
    JobState.REGISTERING,
    JobState.SHADOW,
    JobState.CANARY,
)
# The states that only a person leads out of.
WAITING = frozenset({JobState.AWAITING_APPROVAL, JobState.INCONCLUSIVE})
# A model has one job in these at most.
ACTIVE = frozenset({JobState.OPENED, *STAGES, *WAITING})
FINAL = frozenset(JobState) - ACTIVE
# The states in which the route may hold the job's candidate.
WITH_CANDIDATE = frozenset({JobState.SHADOW, JobState.CANARY, *WAITING})


class Trigger(StrEnum):
    """What leads from one state to another."""

    STARTED = "started"  # a runner took it up
    DONE = "done"  # the stage has its result
    STEPPED = "stepped"  # the stage keeps what it knows and goes on
    REFUSED = "refused"  # a gate says no
    PROMOTE = "promote"  # the canary's verdicts
    ROLL_BACK = "roll_back"
    INCONCLUSIVE = "inconclusive"
    ATTEMPT_FAILED = "attempt_failed"  # tried again while attempts are left
    BROKEN = "broken"  # trying again would not help
    APPROVED = "approved"  # a person says so, as in the following
    CONTINUED = "continued"
    PROMOTED_BY_HAND = "promoted_by_hand"
    ROLLED_BACK_BY_HAND = "rolled_back_by_hand"
    ABORTED = "aborted"


class CauseKind(StrEnum):
    """Why a job was started."""

    INCIDENT = "incident"
    MANUAL = "manual"


@dataclasses.dataclass(frozen=True)
class Cause:
    """What started a job.

    Attributes:
        kind: Whether drift did, or a person.
        id: The incident; empty of a manual start.
        event_id: The finding of `drift` that asked for it; empty of a manual start.
        by: Who started it by hand.
        reason: Why, for people.
    """

    kind: CauseKind
    id: str = ""
    event_id: str = ""
    by: str = ""
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Job:
    """A job as it stands; never changed, `transition` makes the next one.

    Attributes:
        id: Its id.
        model: The name that requests use; the route's.
        cause: What started it.
        policy: The policy that it goes by, YAML, as it was when the job was opened.
        created_us: When it was opened, microseconds since 1970.
        updated_us: When it last changed.
        state: Where it stands.
        step: The canary's traffic step, from 1 on; 0 before.
        awaiting: The state that an approval leads to; None unless it awaits one.
        approvals: The states that are entered with an approval only.
        max_attempts: How often a stage is tried.
        attempts: Attempts that failed, by stage.
        retry_at_us: A stage is not tried again before.
        results: What each stage found out, as JSON; a killed stage finds here what it kept.
        reason: Why it stands there, for people.
        revision: Rises with every change, from 1 on.
        claim: Rises with every runner that takes the job up: the number that its writes carry.
    """

    id: str
    model: str
    cause: Cause
    policy: str
    created_us: int
    updated_us: int
    state: JobState = JobState.OPENED
    step: int = 0
    awaiting: JobState | None = None
    approvals: frozenset[JobState] = frozenset()
    max_attempts: int = 3
    attempts: Mapping[JobState, int] = dataclasses.field(default_factory=dict)
    retry_at_us: int = 0
    results: Mapping[JobState, Facts] = dataclasses.field(default_factory=dict)
    reason: str = ""
    revision: int = 1
    claim: int = 0

    @property
    def active(self) -> bool:
        """Whether it keeps the model from having another job."""
        return self.state in ACTIVE

    def told(self, stage: JobState) -> Facts:
        """What a stage found out, for people."""
        return {name: fact for name, fact in self.result(stage).items() if name != JOURNAL}

    def result(self, stage: JobState) -> Facts:
        """What a stage found out; empty where it has not."""
        return self.results.get(stage, {})


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that happens to a job.

    Attributes:
        trigger: What.
        at_us: When, microseconds since 1970.
        reason: Why, for people.
        by: Who, where a person did it.
        facts: What the stage found out; laid over what it knew before.
        step: The canary's step that is entered (STEPPED).
        retry_at_us: When to try again (ATTEMPT_FAILED).
    """

    trigger: Trigger
    at_us: int
    reason: str = ""
    by: str = ""
    facts: Facts = dataclasses.field(default_factory=dict)
    step: int | None = None
    retry_at_us: int = 0


class Impossible(Exception):
    """The event cannot happen to a job in its state; the message says what can."""


_S, _T = JobState, Trigger
_NEXT = {
    _S.OPENED: _S.DATASET,
    **dict(itertools.pairwise(STAGES)),
}
_CANDIDATE = (_S.SHADOW, _S.CANARY, _S.AWAITING_APPROVAL, _S.INCONCLUSIVE)

# From a state by a trigger to a state. An approval may stand before the state that is reached; an
# attempt that failed may be the last.
_TABLE: Mapping[tuple[JobState, Trigger], JobState] = {
    (_S.OPENED, _T.STARTED): _S.DATASET,
    **{(stage, _T.DONE): _NEXT[stage] for stage in STAGES[:-1]},
    **{(stage, _T.STEPPED): stage for stage in STAGES},
    **{(stage, _T.ATTEMPT_FAILED): stage for stage in STAGES},
    **{(stage, _T.BROKEN): _S.FAILED for stage in (_S.OPENED, *STAGES)},
    (_S.EVALUATING, _T.REFUSED): _S.REJECTED,
    (_S.CANARY, _T.PROMOTE): _S.PROMOTED,
    **{(stage, _T.ROLL_BACK): _S.ROLLED_BACK for stage in (_S.SHADOW, _S.CANARY)},
    **{(stage, _T.INCONCLUSIVE): _S.INCONCLUSIVE for stage in (_S.SHADOW, _S.CANARY)},
    (_S.INCONCLUSIVE, _T.CONTINUED): _S.CANARY,
    (_S.INCONCLUSIVE, _T.PROMOTED_BY_HAND): _S.PROMOTED,
    (_S.CANARY, _T.PROMOTED_BY_HAND): _S.PROMOTED,
    **{(state, _T.ROLLED_BACK_BY_HAND): _S.ROLLED_BACK for state in (*_CANDIDATE, _S.PROMOTED)},
    **{(state, _T.ABORTED): _S.CANCELLED for state in ACTIVE},
}


def allowed(state: JobState) -> list[Trigger]:
    """What can happen to a job in a state."""
    found = [trigger for (here, trigger) in _TABLE if here is state]
    return [*found, Trigger.APPROVED] if state is JobState.AWAITING_APPROVAL else found


def transition(job: Job, event: Event) -> Job:
    """The job after an event.

    Raises:
        Impossible: It cannot happen in the job's state.
    """
    target = _target(job, event)
    reason = event.reason
    stage = job.state if job.state in STAGES else None
    attempts = job.attempts
    if event.trigger is Trigger.ATTEMPT_FAILED:
        failed = attempts.get(job.state, 0) + 1
        attempts = {**attempts, job.state: failed}
        if failed >= job.max_attempts:
            target = JobState.FAILED
            reason = f"{job.state} failed {failed} times, the last time: {event.reason}"
    elif target is not job.state and target in STAGES:
        # A stage that is entered anew has all its attempts.
        attempts = {name: count for name, count in attempts.items() if name is not target}
    awaiting = None
    if _needs_approval(job, event, target):
        target, awaiting = JobState.AWAITING_APPROVAL, target
    results = job.results
    if stage is not None and event.facts:
        results = {**results, stage: {**job.result(stage), **event.facts}}
    return dataclasses.replace(
        job,
        state=target,
        awaiting=awaiting,
        step=job.step if event.step is None else event.step,
        attempts=attempts,
        retry_at_us=event.retry_at_us if target is job.state else 0,
        results=results,
        reason=reason,
        revision=job.revision + 1,
        updated_us=max(event.at_us, job.updated_us),
    )


def _target(job: Job, event: Event) -> JobState:
    if event.trigger is Trigger.APPROVED and job.state is JobState.AWAITING_APPROVAL:
        assert job.awaiting is not None
        return job.awaiting
    target = _TABLE.get((job.state, event.trigger))
    if target is None:
        can = ", ".join(allowed(job.state)) or "nothing more"
        raise Impossible(f"job {job.id} is {job.state}: {event.trigger} cannot happen; {can} can")
    if event.step is not None and job.state is not JobState.CANARY:
        raise Impossible(f"job {job.id} is {job.state}: only a canary has steps")
    if event.step is not None and event.step < job.step:
        # Who slept through a step must not take it back.
        raise Impossible(f"job {job.id} is at step {job.step} already, not at {event.step}")
    return target


def _needs_approval(job: Job, event: Event, target: JobState) -> bool:
    # A person who promotes has approved.
    return (
        target is not job.state
        and target in job.approvals
        and event.trigger not in (Trigger.APPROVED, Trigger.PROMOTED_BY_HAND, Trigger.CONTINUED)
    )
