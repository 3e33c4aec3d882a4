"""One change of a job with everything that goes with it, inside a transaction."""

from __future__ import annotations

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from penstock_retrain.jobs import effects
from penstock_retrain.jobs.outbox import head, write_change
from penstock_retrain.jobs.route_plan import champion_of, names
from penstock_retrain.jobs.rows import columns_of, job_of
from penstock_retrain.jobs.stages import JobMoved, RouteChange
from penstock_retrain.jobs.states import (
    JOURNAL,
    Event,
    Impossible,
    Job,
    JobState,
    Trigger,
    transition,
)
from penstock_retrain.registry import records
from penstock_retrain.registry.versions import (
    CHALLENGER,
    CHAMPION,
    AliasChange,
    Version,
    VersionStatus,
)
from penstock_retrain.tables import ALIAS_HISTORY, HISTORY, JOBS, NEWS

__all__ = ["change_job", "locked", "record"]


def locked(connection: Connection, job_id: str) -> Job | None:
    """A job, locked until the transaction ends; None where there is none."""
    query = sql.select(JOBS).where(JOBS.c.id == job_id).with_for_update()
    row = connection.execute(query).first()
    return job_of(row) if row is not None else None


def change_job(connection: Connection, job: Job, event: Event, change: RouteChange | None) -> Job:
    """Applies an event to a job that is locked, and all that goes with it.

    Raises:
        Impossible: The event cannot happen, or facts lack what is needed.
        JobMoved: The route, or its champion, is not the one that this was decided at.
        Withdrawn: Somebody took the candidate's traffic away, which the change would give back.
        StageBroken: The change cannot be made of the route.
    """
    after = transition(job, event)
    _check_champion(connection, job, after, event)
    # Whatever it came to: what it leaves behind is looked through again once it has ended.
    values = {**columns_of(after), "cleaned": 0}
    connection.execute(JOBS.update().where(JOBS.c.id == job.id).values(**values))
    record(connection, job, after, event.trigger, event.by, after.reason or event.reason)
    if change is not None:
        write_change(connection, job.model, job.id, change, event.at_us)
    for effect in effects.effects(job, after, event):
        _apply(connection, after, event, effect)
    return after


def _check_champion(connection: Connection, before: Job, after: Job, event: Event) -> None:
    """A comparison goes on with the champion that it began with, and promotes over no other."""
    promoted = after.state is JobState.PROMOTED and event.trigger is Trigger.APPROVED
    if not promoted and event.trigger not in (Trigger.CONTINUED, Trigger.PROMOTE):
        return
    results = (before.result(state).get(JOURNAL) for state in (JobState.CANARY, JobState.SHADOW))
    journal = next(filter(None, results), None)
    route = head(connection, before.model)
    if journal is None or route is None:
        return
    compared, now = journal["champion"], champion_of(route)
    candidate = effects.candidate_of(before)
    made_so = candidate is not None and now == candidate.name
    if now == compared or (made_so and event.trigger is not Trigger.CONTINUED):
        return
    said = (
        f"the champion of {before.model} is {now or 'nobody'} now and was {compared} when job "
        f"{before.id} compared"
    )
    if event.trigger is Trigger.PROMOTE:
        raise JobMoved(said)  # the stage looks again, and asks a person
    raise Impossible(
        f"{said}: make {compared} the champion again with penstock routes apply FILE, or end the "
        "job and start another"
    )


def record(
    connection: Connection, before: Job | None, after: Job, trigger: str, by: str, reason: str
) -> None:
    """Writes a row of the history, to be told."""
    connection.execute(
        HISTORY.insert().values(
            job_id=after.id,
            revision=after.revision,
            from_state=before.state if before is not None else "",
            to_state=after.state,
            step=after.step,
            trigger=trigger,
            reason=reason,
            by=by,
            at_us=after.updated_us,
        )
    )
    connection.execute(NEWS.insert().values(job_id=after.id, revision=after.revision))


def _apply(connection: Connection, job: Job, event: Event, effect: effects.Effect) -> None:
    match effect:
        case effects.CreateVersion(made):
            records.create_version(connection, job.model, job.id, made, event.at_us)
        case effects.Register(digest, card):
            records.set_registered(connection, job.id, digest, card)
        case effects.Reroute(change):
            write_change(connection, job.model, job.id, change, event.at_us)
        case effects.Retire(status):
            _retire(connection, job, event, status)
        case _:
            _alias(connection, job, event, effect)


def _alias(connection: Connection, job: Job, event: Event, effect: effects.AliasEffect) -> None:
    match effect:
        case effects.SetChallenger():
            _move(connection, job, event, CHALLENGER, _version(connection, job).version)
        case effects.ClearChallenger():
            made = records.version_of_job(connection, job.id)
            if made and records.alias(connection, job.model, CHALLENGER) == made.version:
                _move(connection, job, event, CHALLENGER, 0)
        case effects.SetChampion():
            version = _version(connection, job)
            _move(connection, job, event, CHAMPION, version.version)
            records.set_status(connection, job.model, version.version, VersionStatus.PROMOTED)
        case effects.UndoChampion():
            _undo_champion(connection, job, event)


def _retire(connection: Connection, job: Job, event: Event, status: VersionStatus) -> None:
    version = records.version_of_job(connection, job.id)
    if version is None:
        return
    records.set_status(connection, job.model, version.version, status)
    route = head(connection, job.model)
    if route is not None and names(route, version.name):
        # Somebody else made it champion: retired, its weights would go while it answers.
        if event.trigger is Trigger.ROLLED_BACK_BY_HAND:
            raise Impossible(
                f"version {route.version} of the route of {job.model} answers with "
                f"{version.name}, and somebody else made it so: first write another route with "
                "penstock routes apply FILE"
            )
        return
    reason = job.reason or str(job.state)
    records.retire(connection, job.model, version.version, reason, event.at_us)


def _version(connection: Connection, job: Job) -> Version:
    found = records.version_of_job(connection, job.id)
    if found is None:
        raise Impossible(f"job {job.id} has made no version")
    return found


def _move(connection: Connection, job: Job, event: Event, alias: str, to: int) -> None:
    found = records.alias(connection, job.model, alias)
    if found == to:
        return
    records.set_alias(
        connection,
        AliasChange(job.model, alias, 0, found, to, job.updated_us, job.id, event.by, event.reason),
    )


def _undo_champion(connection: Connection, job: Job, event: Event) -> None:
    made = _version(connection, job)
    if records.alias(connection, job.model, CHAMPION) != made.version:
        raise Impossible(f"version {made.version} of {job.model} is not the champion any more")
    query = (
        sql.select(ALIAS_HISTORY.c.from_version)
        .where(
            ALIAS_HISTORY.c.model == job.model,
            ALIAS_HISTORY.c.alias == CHAMPION,
            ALIAS_HISTORY.c.to_version == made.version,
            # Its promotion, not the return to it after a later one was rolled back.
            ALIAS_HISTORY.c.job_id == job.id,
        )
        .order_by(ALIAS_HISTORY.c.revision.desc())
        .limit(1)
    )
    _move(connection, job, event, CHAMPION, connection.execute(query).scalar() or 0)
