"""Rows of jobs as the domain has them, and back."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from sqlalchemy.engine import Row

from penstock_retrain.jobs.states import Cause, CauseKind, Impossible, Job, JobState, Trigger

__all__ = ["Transition", "columns_of", "job_of", "transition_of"]


@dataclasses.dataclass(frozen=True)
class Transition:
    """A row of a job's history.

    Attributes:
        job_id: Whose.
        revision: The job's, after it.
        before: The state before; None of the first.
        after: The state after.
        step: The canary's step after it.
        trigger: What led to it: a `Trigger`'s value, or `opened`.
        reason: Why, for people.
        by: Who, where a person did it.
        at_us: When, microseconds since 1970.
    """

    job_id: str
    revision: int
    before: JobState | None
    after: JobState
    step: int
    trigger: Trigger | str
    reason: str
    by: str
    at_us: int


def job_of(row: Row[Any]) -> Job:
    """A row as a job."""
    return Job(
        id=row.id,
        model=row.model,
        cause=Cause(
            CauseKind(row.cause_kind),
            row.cause_id,
            row.cause_event,
            row.cause_by,
            row.cause_reason,
        ),
        policy=row.policy,
        created_us=row.created_us,
        updated_us=row.updated_us,
        state=JobState(row.state),
        step=row.step,
        awaiting=JobState(row.awaiting) if row.awaiting else None,
        approvals=frozenset(JobState(name) for name in json.loads(row.approvals)),
        max_attempts=row.max_attempts,
        attempts={JobState(k): int(n) for k, n in json.loads(row.attempts).items()},
        retry_at_us=row.retry_at_us,
        results={JobState(k): facts for k, facts in json.loads(row.results).items()},
        reason=row.reason,
        revision=row.revision,
        claim=row.claim,
    )


def columns_of(job: Job) -> dict[str, Any]:
    """What changes of a job, as columns: all but who has claimed it.

    Raises:
        Impossible: What a stage found out is no JSON.
    """
    return {
        "model": job.model,
        "state": job.state,
        "step": job.step,
        "awaiting": job.awaiting,
        "cause_kind": job.cause.kind,
        "cause_id": job.cause.id,
        "cause_event": job.cause.event_id,
        "cause_by": job.cause.by,
        "cause_reason": job.cause.reason,
        "policy": job.policy,
        "created_us": job.created_us,
        "updated_us": job.updated_us,
        "approvals": json.dumps(sorted(job.approvals)),
        "max_attempts": job.max_attempts,
        "attempts": json.dumps(job.attempts),
        "retry_at_us": job.retry_at_us,
        "results": _json(job),
        "reason": job.reason,
        "revision": job.revision,
        "active": int(job.active),
    }


def _json(job: Job) -> str:
    try:
        return json.dumps(job.results, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Impossible(
            f"what the stages of job {job.id} found out is no JSON: {error}; numbers must be finite"
        ) from error


def transition_of(row: Row[Any]) -> Transition:
    """A row as a transition."""
    return Transition(
        job_id=row.job_id,
        revision=row.revision,
        before=JobState(row.from_state) if row.from_state else None,
        after=JobState(row.to_state),
        step=row.step,
        trigger=row.trigger,
        reason=row.reason,
        by=row.by,
        at_us=row.at_us,
    )
