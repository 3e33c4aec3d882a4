"""Jobs and versions as the contract has them."""

from __future__ import annotations

import json

from google.protobuf.timestamp_pb2 import Timestamp

from penstock.v1 import alert_pb2, job_pb2, model_version_pb2
from penstock_retrain.jobs.outbox import Entry
from penstock_retrain.jobs.rows import Transition
from penstock_retrain.jobs.stages import Progress
from penstock_retrain.jobs.states import WAITING, CauseKind, Job, JobState
from penstock_retrain.registry.versions import AliasChange, Version, VersionStatus

__all__ = [
    "alert_of",
    "alias_change_message",
    "job_message",
    "outcome_of",
    "progress_update",
    "stamp",
    "state_value",
    "transition_message",
    "transition_update",
    "untold_alert",
    "version_message",
]

RUNBOOK = "docs/runbooks/retraining.md"
_CAUSES = {
    CauseKind.INCIDENT: job_pb2.JOB_CAUSE_KIND_INCIDENT,
    CauseKind.MANUAL: job_pb2.JOB_CAUSE_KIND_MANUAL,
}
# Ends that a person should hear of.
_BAD_ENDS = (JobState.FAILED, JobState.REJECTED, JobState.ROLLED_BACK)


def stamp(instant_us: int) -> Timestamp:
    """An instant in microseconds since 1970."""
    made = Timestamp()
    made.FromMicroseconds(instant_us)
    return made


def state_value(state: JobState | None) -> job_pb2.JobState.ValueType:
    """A state as the contract has it."""
    if state is None:
        return job_pb2.JOB_STATE_UNSPECIFIED
    return job_pb2.JobState.Value(f"JOB_STATE_{state.name}")


def job_message(job: Job, version: int = 0) -> job_pb2.Job:
    """A job; `version` is the number of the version that it made."""
    made = job_pb2.Job(
        job_id=job.id,
        model=job.model,
        state=state_value(job.state),
        step=job.step,
        awaiting=state_value(job.awaiting),
        cause=job_pb2.JobCause(
            kind=_CAUSES[job.cause.kind],
            incident_id=job.cause.id,
            event_id=job.cause.event_id,
            by=job.cause.by,
            reason=job.cause.reason,
        ),
        policy=job.policy,
        created_at=stamp(job.created_us),
        updated_at=stamp(job.updated_us),
        failed_attempts={str(state): count for state, count in job.attempts.items()},
        results={str(state): json.dumps(job.told(state)) for state in job.results},
        reason=job.reason,
        revision=job.revision,
        model_version=version,
    )
    if job.retry_at_us:
        made.retry_at.CopyFrom(stamp(job.retry_at_us))
    return made


def transition_message(transition: Transition) -> job_pb2.JobTransition:
    """A row of a job's history."""
    made = job_pb2.JobTransition(
        revision=transition.revision,
        to=state_value(transition.after),
        step=transition.step,
        trigger=str(transition.trigger),
        reason=transition.reason,
        by=transition.by,
        at=stamp(transition.at_us),
    )
    # `from` is a keyword of Python's.
    setattr(made, "from", state_value(transition.before))
    return made


def transition_update(job: Job, transition: Transition) -> job_pb2.JobUpdate:
    """The record of `jobs` that tells of a transition."""
    return job_pb2.JobUpdate(
        job_id=job.id,
        model=job.model,
        state=state_value(transition.after),
        revision=transition.revision,
        transition=transition_message(transition),
        at=stamp(transition.at_us),
    )


def progress_update(job: Job, progress: Progress, at_us: int) -> job_pb2.JobUpdate:
    """The record of `jobs` that tells how far a stage is."""
    made = job_pb2.JobProgress(
        message=progress.message,
        step=max(0, progress.step),
        steps=max(0, progress.steps),
        metrics={name: float(value) for name, value in progress.metrics.items()},
    )
    if progress.eta_s is not None:
        made.eta_s = progress.eta_s
    return job_pb2.JobUpdate(
        job_id=job.id,
        model=job.model,
        state=state_value(job.state),
        revision=job.revision,
        progress=made,
        at=stamp(at_us),
    )


def alert_of(job: Job, transition: Transition, opened_us: int) -> alert_pb2.Alert | None:
    """What people are told of a transition; None where there is nothing to tell.

    A job that waits for somebody is an open incident until it waits no more; a job that ended
    badly is told once, as a thing of the past.

    Args:
        job: The job.
        transition: What happened.
        opened_us: When the wait began that this transition begins or ends.
    """
    waits = transition.after in WAITING
    waited = transition.before in WAITING and not waits
    bad = transition.after in _BAD_ENDS
    if not (waits or waited or bad):
        return None
    state = transition.after.replace("_", " ")
    what = f": {transition.reason}" if transition.reason else ""
    commands = {
        JobState.AWAITING_APPROVAL: f"penstock jobs approve {job.id}, or penstock jobs abort "
        f"{job.id}",
        JobState.INCONCLUSIVE: f"penstock rollout continue {job.id}, penstock rollout promote "
        f"{job.id}, or penstock rollout rollback {job.model}",
    }
    next_ = commands.get(transition.after, f"penstock jobs show {job.id}")
    made = alert_pb2.Alert(
        alert_id=f"retrain/{job.id}/{transition.revision}",
        incident_id=f"retrain/{job.id}",
        state=alert_pb2.ALERT_STATE_OPENED if waits else alert_pb2.ALERT_STATE_RESOLVED,
        severity=alert_pb2.SEVERITY_TICKET if waits or bad else alert_pb2.SEVERITY_INFO,
        title=f"retraining of {job.model}: {state}",
        summary=f"job {job.id} is {state}{what}. Next: {next_}",
        service="retrain",
        labels={"model": job.model, "job": job.id, "state": str(transition.after)},
        runbook=RUNBOOK,
        opened_at=stamp(opened_us),
        updated_at=stamp(transition.at_us),
    )
    if job.cause.id:
        made.labels["finding"] = job.cause.id
    return made


def untold_alert(job: Job, transition: Transition, part: str) -> alert_pb2.Alert:
    """What people are told where a part of a transition's news cannot be written, once.

    Args:
        job: The job.
        transition: What happened.
        part: `change`, `cost` or `alert`.
    """
    name = f"retrain/{job.id}/{transition.revision}/untold/{part}"
    return alert_pb2.Alert(
        alert_id=name,
        incident_id=name,
        state=alert_pb2.ALERT_STATE_RESOLVED,
        severity=alert_pb2.SEVERITY_TICKET,
        title=f"retraining of {job.model}: its {part} could not be told",
        summary=f"job {job.id} went on; the {part} of its revision {transition.revision} is left "
        f"out, and the service's log says why. Next: penstock jobs show {job.id}",
        service="retrain",
        labels={"model": job.model, "job": job.id, "part": part},
        runbook=RUNBOOK,
        opened_at=stamp(transition.at_us),
        updated_at=stamp(transition.at_us),
    )


def version_message(version: Version, aliases: list[str]) -> model_version_pb2.ModelVersion:
    """A version with the aliases that name it."""
    made = model_version_pb2.ModelVersion(
        model=version.model,
        version=version.version,
        name=version.name,
        job_id=version.job_id,
        status=_status(version.status),
        kind=version.kind,
        base_model=version.base_model,
        digest=version.digest,
        created_at=stamp(version.created_us),
        retired_reason=version.retired_reason,
        aliases=aliases,
    )
    if version.retired_us:
        made.retired_at.CopyFrom(stamp(version.retired_us))
    return made


def alias_change_message(change: AliasChange) -> model_version_pb2.AliasChange:
    """A change of an alias."""
    return model_version_pb2.AliasChange(
        model=change.model,
        alias=change.alias,
        revision=change.revision,
        from_version=change.from_version,
        to_version=change.to_version,
        at=stamp(change.at_us),
        job_id=change.job_id,
        by=change.by,
        reason=change.reason,
    )


def outcome_of(entry: Entry) -> str:
    """What became of a route, as the contract says it."""
    return str(entry.status)


def _status(status: VersionStatus) -> model_version_pb2.ModelVersionStatus.ValueType:
    return model_version_pb2.ModelVersionStatus.Value(f"MODEL_VERSION_STATUS_{status.name}")
