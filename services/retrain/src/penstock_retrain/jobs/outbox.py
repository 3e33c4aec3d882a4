"""Routes on their way: written to SQL in a job's transaction, each with its version.

A version is given once per model: under the lock of the model's head, which also follows what
others write to the log. `penstock_retrain.jobs.route_publisher` carries the routes out.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Row

from penstock.sql import Database
from penstock.v1 import route_pb2
from penstock_retrain.jobs.route_plan import changed, rebased, taken_away
from penstock_retrain.jobs.stages import (
    Candidate,
    JobMoved,
    RouteChange,
    RouteChangeKind,
    StageBroken,
    Withdrawn,
)
from penstock_retrain.tables import JOBS, ROUTE_HEADS, ROUTES

__all__ = ["Entry", "Outbox", "RouteStatus", "Undo", "head", "write_change"]


# Takes back, in a transaction, what an entry promised that cannot be made any more.
Undo = Callable[[Connection, "Entry", int], None]
# What gives a candidate requests.
_GIVES = (RouteChangeKind.SHADOW, RouteChangeKind.SPLIT, RouteChangeKind.PROMOTE)


class RouteStatus(StrEnum):
    """What became of a route."""

    WAITING = "waiting"
    PUBLISHED = "published"
    # Somebody else's route came first; where the change still made sense it has a new version.
    SUPERSEDED = "superseded"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A route of the outbox.

    Attributes:
        id: Its number in the outbox.
        model: Whose.
        version: Its version.
        route: The route.
        base: The route that it was made from.
        job_id: The job that wrote it.
        change: What it does.
        status: What became of it.
        created_us: When it was written, microseconds since 1970.
        settled_us: When it was published or superseded; 0 before.
    """

    id: int
    model: str
    version: int
    route: route_pb2.Route
    base: route_pb2.Route
    job_id: str
    change: RouteChange
    status: RouteStatus
    created_us: int
    settled_us: int


def head(connection: Connection, model: str, *, lock: bool = False) -> route_pb2.Route | None:
    """The newest route of a model that is known, those on their way included."""
    query = sql.select(ROUTE_HEADS.c.route).where(ROUTE_HEADS.c.model == model)
    found = connection.execute(query.with_for_update() if lock else query).scalar()
    return route_pb2.Route.FromString(found) if found is not None else None


def write_change(
    connection: Connection, model: str, job_id: str, change: RouteChange, now_us: int
) -> Entry | None:
    """Puts a change of the route into the outbox; None where the route says so already.

    Raises:
        JobMoved: The change was decided at another version than the one that stands.
        Withdrawn: Somebody took the candidate's traffic away, and the change would give it back.
        StageBroken: The change cannot be made of the route.
    """
    standing = head(connection, model, lock=True)
    if standing is None:
        if change.kind is RouteChangeKind.WITHDRAW:
            return None
        raise StageBroken(f"{model} has no route; write one with: penstock routes apply FILE")
    wanted = change.expected_version
    withdrawal = change.kind is RouteChangeKind.WITHDRAW
    if wanted is not None and wanted != standing.version and not withdrawal:
        raise JobMoved(f"the route of {model} is version {standing.version}, not {wanted}")
    if change.kind in _GIVES and taken_away(
        standing, change.candidate, was_there=_wrote(connection, job_id)
    ):
        raise Withdrawn(
            f"version {standing.version} of the route of {model} withdrew {change.candidate.name}"
        )
    before = None
    if change.kind is RouteChangeKind.RESTORE:
        before = _before_promotion(connection, model, job_id)
    made = changed(standing, change, before)
    if made is None:
        return None
    return _write(connection, made, before or standing, job_id, change, now_us)


class Outbox:
    """What the publisher needs of the outbox. Every call blocks: use a thread.

    Args:
        database: Where it is; the tables are there.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def models_waiting(self) -> list[str]:
        """Models with routes that are not published yet."""
        query = sql.select(ROUTES.c.model).where(ROUTES.c.status == RouteStatus.WAITING).distinct()
        with self._database.reading() as connection:
            return sorted(connection.scalars(query))

    def waiting(self, model: str) -> list[Entry]:
        """A model's routes that are not published yet, in their order."""
        with self._database.reading() as connection:
            return [_entry_of(row) for row in connection.execute(_waiting(model))]

    def of_job(self, job_id: str) -> list[Entry]:
        """The routes that a job wrote, in their order."""
        query = sql.select(ROUTES).where(ROUTES.c.job_id == job_id).order_by(ROUTES.c.version)
        with self._database.reading() as connection:
            return [_entry_of(row) for row in connection.execute(query)]

    def head(self, model: str) -> route_pb2.Route | None:
        """The newest route of a model that is known, those on their way included."""
        with self._database.reading() as connection:
            return head(connection, model)

    def published(self, entry: Entry, now_us: int) -> None:
        """Keeps that a route is on the log."""
        with self._database.writing() as connection:
            _settle(connection, entry, RouteStatus.PUBLISHED, now_us)

    def observe(self, routes: Sequence[route_pb2.Route]) -> None:
        """Takes in what stands on the log: a head that is older follows it. Idempotent."""
        with self._database.writing() as connection:
            for route in routes:
                known = head(connection, route.model, lock=True)
                if known is None:
                    connection.execute(
                        ROUTE_HEADS.insert().values(
                            model=route.model,
                            version=route.version,
                            route=route.SerializeToString(deterministic=True),
                        )
                    )
                elif route.version > known.version:
                    _set_head(connection, route)

    def forget(self, ended: Mapping[str, route_pb2.Route | None], now_us: int) -> None:
        """Takes in that models' routes were ended: nothing is made of them any more. Idempotent.

        What waits of such a model is not written: it would bring the route back. Nothing is done
        where the route was made anew and the head has followed it, or something is made of it.

        Args:
            ended: The models, each with what stands on the log again; None where nothing does.
            now_us: The present, microseconds since 1970.
        """
        with self._database.writing() as connection:
            for model, held in ended.items():
                known = head(connection, model, lock=True)
                if known is None or (held is not None and held.version >= known.version):
                    continue
                if held is not None and connection.execute(_waiting(model)).first() is not None:
                    continue
                connection.execute(
                    ROUTES.update()
                    .where(ROUTES.c.model == model, ROUTES.c.status == RouteStatus.WAITING)
                    .values(status=RouteStatus.SUPERSEDED, settled_us=now_us)
                )
                connection.execute(ROUTE_HEADS.delete().where(ROUTE_HEADS.c.model == model))

    def supersede(
        self,
        entry: Entry,
        standing: route_pb2.Route,
        now_us: int,
        *,
        settle: bool,
        undo: Undo,
    ) -> list[tuple[Entry, Entry | None]]:
        """Somebody else's route has an entry's version, or a higher one: makes it anew.

        So are the entries after it, which were made from it. Returns each with the one in its
        place; None where the change must not be made any more, or is made already.

        Args:
            entry: The first that is overtaken.
            standing: What readers of the log hold.
            now_us: The present, microseconds since 1970.
            settle: The entry's record is on the log too, behind the other: where nothing comes
                after it, what stands is written again under a higher version, for those who read
                the topic anew find the last record only.
            undo: Given each entry that is not made anew, in the same transaction, once what stands
                is the head.
        """
        found: list[tuple[Entry, Entry | None]] = []
        with self._database.writing() as connection:
            _lock_jobs(connection, entry.model)
            newest = head(connection, entry.model, lock=True)
            top = max(standing.version, newest.version if newest is not None else 0)
            query = _waiting(entry.model).where(ROUTES.c.version >= entry.version)
            route = standing
            for each in [_entry_of(row) for row in connection.execute(query)]:
                _settle(connection, each, RouteStatus.SUPERSEDED, now_us)
                made = rebased(route, each.change, each.base)
                if made is None:
                    found.append((each, None))
                    continue
                top += 1
                made.version = top
                base = each.base if each.change.kind is RouteChangeKind.RESTORE else route
                new = _write(connection, made, base, each.job_id, each.change, now_us)
                found.append((each, new))
                route = made
            if settle and route is standing:
                route = route_pb2.Route()
                route.CopyFrom(standing)
                route.version = top + 1
                change = dataclasses.replace(entry.change, kind=RouteChangeKind.SETTLE)
                _write(connection, route, standing, entry.job_id, change, now_us)
            # What was counted on is not so: later changes are made of what stands.
            _set_head(connection, route)
            for each, new_one in found:
                if new_one is None:
                    undo(connection, each, now_us)
        return found


def _waiting(model: str) -> sql.Select[Any]:
    return (
        sql.select(ROUTES)
        .where(ROUTES.c.model == model, ROUTES.c.status == RouteStatus.WAITING)
        .order_by(ROUTES.c.version)
    )


def _lock_jobs(connection: Connection, model: str) -> None:
    """The jobs of what waits, before the head: so does every change of a job (PostgreSQL)."""
    waiting = sql.select(ROUTES.c.job_id).where(
        ROUTES.c.model == model, ROUTES.c.status == RouteStatus.WAITING
    )
    jobs = sql.select(JOBS.c.id).where(JOBS.c.id.in_(waiting)).order_by(JOBS.c.id)
    connection.execute(jobs.with_for_update()).all()


def _write(
    connection: Connection,
    route: route_pb2.Route,
    base: route_pb2.Route,
    job_id: str,
    change: RouteChange,
    now_us: int,
) -> Entry:
    made = connection.execute(
        ROUTES.insert().values(
            model=route.model,
            version=route.version,
            route=route.SerializeToString(deterministic=True),
            base=base.SerializeToString(deterministic=True),
            job_id=job_id,
            kind=change.kind,
            candidate=json.dumps(dataclasses.asdict(change.candidate)),
            percent=change.percent,
            status=RouteStatus.WAITING,
            created_us=now_us,
            settled_us=0,
        )
    )
    key = made.inserted_primary_key
    assert key is not None
    entry = Entry(
        key[0],
        route.model,
        route.version,
        route,
        base,
        job_id,
        change,
        RouteStatus.WAITING,
        now_us,
        0,
    )
    _set_head(connection, route)
    return entry


def _set_head(connection: Connection, route: route_pb2.Route) -> None:
    connection.execute(
        ROUTE_HEADS.update()
        .where(ROUTE_HEADS.c.model == route.model)
        .values(version=route.version, route=route.SerializeToString(deterministic=True))
    )


def _settle(connection: Connection, entry: Entry, status: RouteStatus, now_us: int) -> None:
    connection.execute(
        ROUTES.update()
        .where(ROUTES.c.id == entry.id, ROUTES.c.status == RouteStatus.WAITING)
        .values(status=status, settled_us=now_us)
    )


def _wrote(connection: Connection, job_id: str) -> bool:
    query = sql.select(ROUTES.c.id).where(
        ROUTES.c.job_id == job_id, ROUTES.c.status != RouteStatus.SUPERSEDED
    )
    return connection.execute(query.limit(1)).first() is not None


def _before_promotion(connection: Connection, model: str, job_id: str) -> route_pb2.Route | None:
    query = (
        sql.select(ROUTES.c.base)
        .where(
            ROUTES.c.model == model,
            ROUTES.c.job_id == job_id,
            ROUTES.c.kind == RouteChangeKind.PROMOTE,
        )
        .order_by(ROUTES.c.version.desc())
        .limit(1)
    )
    found = connection.execute(query).scalar()
    return route_pb2.Route.FromString(found) if found is not None else None


def _entry_of(row: Row[Any]) -> Entry:
    return Entry(
        id=row.id,
        model=row.model,
        version=row.version,
        route=route_pb2.Route.FromString(row.route),
        base=route_pb2.Route.FromString(row.base),
        job_id=row.job_id,
        change=RouteChange(
            RouteChangeKind(row.kind), Candidate(**json.loads(row.candidate)), row.percent
        ),
        status=RouteStatus(row.status),
        created_us=row.created_us,
        settled_us=row.settled_us,
    )
