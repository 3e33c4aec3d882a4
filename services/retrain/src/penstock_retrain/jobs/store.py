"""Jobs in SQL: what is said of them, who runs them. Every call blocks: use a thread.

A change of a job, its row of the history, and what goes with it (versions, aliases, the route)
are one transaction. Who changes a running job shows its claim, which rises with every taker: a
process that slept finds that the job has moved on.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from penstock.sql import Database
from penstock_retrain.errors import ActiveJob, NoSuchJob, NotAllowed
from penstock_retrain.jobs.changing import change_job, locked, record
from penstock_retrain.jobs.policy import PastJob
from penstock_retrain.jobs.rows import Transition, columns_of, job_of, transition_of
from penstock_retrain.jobs.stages import JobMoved, RouteChange, StageBroken, Withdrawn
from penstock_retrain.jobs.states import (
    STAGES,
    CauseKind,
    Event,
    Facts,
    Impossible,
    Job,
    JobState,
)
from penstock_retrain.tables import HISTORY, JOBS, NEWS, make_tables

__all__ = ["JobStore"]

_RUNNABLE = (JobState.OPENED, *STAGES)
_COMPUTE = (JobState.DATASET, JobState.TRAINING, JobState.EVALUATING)


class JobStore:
    """The jobs of one database.

    Args:
        database: Where they are; the tables are made where they are missing.

    Raises:
        RetrainUnavailable: The database cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.writing() as connection:
            make_tables(connection)

    def open_job(self, job: Job, start_key: str = "") -> Job:
        """Opens a job; the one there is where the key has opened one before.

        Raises:
            ActiveJob: The model has an active job.
        """
        with self._database.writing() as connection:
            if start_key:
                query = sql.select(JOBS).where(JOBS.c.start_key == start_key)
                row = connection.execute(query).first()
                if row is not None:
                    return job_of(row)
            active = sql.select(JOBS).where(JOBS.c.model == job.model, JOBS.c.active == 1)
            row = connection.execute(active).first()
            if row is not None:
                raise ActiveJob(job.model, row.id, row.state)
            # Two at once (PostgreSQL): the index lets one through, and the other is told to retry.
            connection.execute(
                JOBS.insert().values(
                    id=job.id,
                    owner=None,
                    claim=0,
                    lease_until_us=0,
                    cleaned=0,
                    start_key=start_key or None,
                    **columns_of(job),
                )
            )
            record(connection, None, job, "opened", job.cause.by, job.cause.reason)
        return job

    def started_by(self, start_key: str) -> Job | None:
        """The job that a key has opened, if one was."""
        with self._database.reading() as connection:
            row = connection.execute(sql.select(JOBS).where(JOBS.c.start_key == start_key)).first()
        return job_of(row) if row is not None else None

    def get(self, job_id: str) -> Job:
        """A job as it stands.

        Raises:
            NoSuchJob: There is none of that id.
        """
        with self._database.reading() as connection:
            row = connection.execute(sql.select(JOBS).where(JOBS.c.id == job_id)).first()
        if row is None:
            raise NoSuchJob(job_id)
        return job_of(row)

    def newest(
        self, *, model: str = "", active: bool = False, before: tuple[int, str] | None, limit: int
    ) -> list[Job]:
        """Jobs, the newest first.

        Args:
            model: Restricts to one; empty does not.
            active: Only those that have not ended.
            before: Time and id of the last job of the page before.
            limit: How many at most.
        """
        query = sql.select(JOBS).order_by(JOBS.c.created_us.desc(), JOBS.c.id.desc()).limit(limit)
        if model:
            query = query.where(JOBS.c.model == model)
        if active:
            query = query.where(JOBS.c.active == 1)
        if before is not None:
            place = sql.tuple_(JOBS.c.created_us, JOBS.c.id)
            query = query.where(place < sql.tuple_(*before))
        with self._database.reading() as connection:
            return [job_of(row) for row in connection.execute(query)]

    def past(self, model: str, since_us: int) -> list[PastJob]:
        """A model's active job and those that changed since an instant."""
        query = sql.select(JOBS).where(
            JOBS.c.model == model, sql.or_(JOBS.c.active == 1, JOBS.c.updated_us >= since_us)
        )
        with self._database.reading() as connection:
            return [
                PastJob(
                    kind=CauseKind(row.cause_kind),
                    created_us=row.created_us,
                    ended_us=None if row.active else row.updated_us,
                    compute_s=_compute_s(_history(connection, row.id)),
                )
                for row in connection.execute(query).all()
            ]

    def history(self, job_id: str) -> list[Transition]:
        """Everything that happened to a job, in order."""
        with self._database.reading() as connection:
            return _history(connection, job_id)

    def claim(
        self, owner: str, now_us: int, lease_us: int, limit: int, *, clean_after_us: int = 0
    ) -> list[Job]:
        """Takes jobs that have something to be run and that nobody else has.

        Those are jobs before or in a stage whose time to try has come, and jobs that ended at
        least `clean_after_us` ago and are not cleaned up.
        """
        runnable = sql.and_(JOBS.c.state.in_(_RUNNABLE), JOBS.c.retry_at_us <= now_us)
        unclean = sql.and_(
            JOBS.c.active == 0,
            JOBS.c.cleaned == 0,
            JOBS.c.retry_at_us <= now_us,
            JOBS.c.updated_us <= now_us - clean_after_us,
        )
        query = (
            sql.select(JOBS)
            .where(sql.or_(runnable, unclean), JOBS.c.lease_until_us <= now_us)
            .order_by(JOBS.c.created_us)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        with self._database.writing() as connection:
            rows = connection.execute(query).all()
            for row in rows:
                connection.execute(
                    JOBS.update()
                    .where(JOBS.c.id == row.id)
                    .values(owner=owner, claim=row.claim + 1, lease_until_us=now_us + lease_us)
                )
            mine = sql.select(JOBS).where(JOBS.c.id.in_([row.id for row in rows]))
            return [job_of(row) for row in connection.execute(mine.order_by(JOBS.c.created_us))]

    def renew(self, job: Job, now_us: int, lease_us: int) -> Job | None:
        """Prolongs a claim; returns the job as it stands, None where somebody else has it.

        One that was given back is not prolonged: a call may still be under way then.
        """
        with self._database.writing() as connection:
            connection.execute(
                _claimed(JOBS.update(), job)
                .where(JOBS.c.owner.is_not(None))
                .values(lease_until_us=now_us + lease_us)
            )
            row = connection.execute(_claimed(sql.select(JOBS), job)).first()
        return job_of(row) if row is not None else None

    def release(self, job: Job) -> None:
        """Gives a claim back; does nothing where somebody else has it."""
        with self._database.writing() as connection:
            connection.execute(_claimed(JOBS.update(), job).values(owner=None, lease_until_us=0))

    def cleaned(self, job: Job, *, retry_at_us: int = 0) -> None:
        """Keeps that an ended job is cleaned up, or when to try that again.

        Does nothing where the job has changed since it was claimed: what it came to then has to be
        looked through again.
        """
        values: dict[str, Any] = (
            {"retry_at_us": retry_at_us} if retry_at_us else {"cleaned": 1, "retry_at_us": 0}
        )
        with self._database.writing() as connection:
            connection.execute(
                _claimed(JOBS.update(), job)
                .where(JOBS.c.active == 0, JOBS.c.revision == job.revision)
                .values(**values)
            )

    def apply(self, job: Job, event: Event, change: RouteChange | None = None) -> Job:
        """Changes a job that is claimed.

        Args:
            job: Its claim and state are what must be found.
            event: What happened.
            change: Of the route, besides what the event itself changes.

        Raises:
            JobMoved: It is not; nothing was changed.
            Withdrawn: Somebody took the candidate's traffic away; nothing was changed.
            StageBroken: The facts or the route do not allow it; nothing was changed.
        """
        with self._database.writing() as connection:
            found = _mine(connection, job)
            try:
                return change_job(connection, found, event, change)
            except Impossible as error:
                raise StageBroken(str(error)) from error

    def note(self, job: Job, facts: Facts) -> Job:
        """Keeps what the stage of a claimed job found out; no row of the history tells of it.

        Raises:
            JobMoved: It is not claimed so any more; nothing was changed.
            StageBroken: The facts are no JSON; nothing was changed.
        """
        with self._database.writing() as connection:
            found = _mine(connection, job)
            results = {**found.results, found.state: {**found.result(found.state), **facts}}
            noted = dataclasses.replace(found, results=results)
            try:
                values = {"results": columns_of(noted)["results"]}
            except Impossible as error:
                raise StageBroken(str(error)) from error
            connection.execute(JOBS.update().where(JOBS.c.id == job.id).values(**values))
        return noted

    def act(self, job_id: str, event: Event) -> Job:
        """Changes a job as a person says, whoever runs it.

        Raises:
            NoSuchJob: There is none of that id.
            NotAllowed: It cannot be done in the job's state, or of the route as it is.
        """
        with self._database.writing() as connection:
            found = locked(connection, job_id)
            if found is None:
                raise NoSuchJob(job_id)
            try:
                return change_job(connection, found, event, None)
            except (Impossible, StageBroken, Withdrawn, JobMoved) as error:
                raise NotAllowed(str(error), field="job_id") from error

    def news(self, limit: int) -> list[tuple[Job, Transition]]:
        """Transitions that are not told yet, each with its job as it stands now."""
        query = (
            sql.select(HISTORY)
            .join(NEWS, _same(HISTORY, NEWS))
            .order_by(HISTORY.c.at_us, HISTORY.c.job_id, HISTORY.c.revision)
            .limit(limit)
        )
        with self._database.reading() as connection:
            found = [transition_of(row) for row in connection.execute(query)]
            ids = {transition.job_id for transition in found}
            rows = connection.execute(sql.select(JOBS).where(JOBS.c.id.in_(ids)))
            jobs = {row.id: job_of(row) for row in rows}
        return [(jobs[transition.job_id], transition) for transition in found]

    def told(self, transitions: Collection[Transition]) -> None:
        """Keeps that transitions are on the topic."""
        with self._database.writing() as connection:
            for each in transitions:
                connection.execute(
                    NEWS.delete().where(
                        NEWS.c.job_id == each.job_id, NEWS.c.revision == each.revision
                    )
                )


def _mine(connection: Connection, job: Job) -> Job:
    found = locked(connection, job.id)
    if found is None or found.claim != job.claim or found.state is not job.state:
        raise JobMoved(f"job {job.id} is {found.state if found else 'gone'} by another claim")
    return found


def _claimed(statement: Any, job: Job) -> Any:
    return statement.where(JOBS.c.id == job.id, JOBS.c.claim == job.claim)


def _same(one: sql.Table, other: sql.Table) -> sql.ColumnElement[bool]:
    return sql.and_(one.c.job_id == other.c.job_id, one.c.revision == other.c.revision)


def _history(connection: Connection, job_id: str) -> list[Transition]:
    query = sql.select(HISTORY).where(HISTORY.c.job_id == job_id).order_by(HISTORY.c.revision)
    return [transition_of(row) for row in connection.execute(query)]


def _compute_s(history: Sequence[Transition]) -> float:
    """Time in the stages that compute, as far as they have ended."""
    used_us = 0
    for before, after in itertools.pairwise(history):
        if before.after in _COMPUTE:
            used_us += after.at_us - before.at_us
    return used_us / 1e6
