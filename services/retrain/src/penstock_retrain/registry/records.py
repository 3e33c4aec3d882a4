"""The registry's rows, inside somebody's transaction: a job's change moves them with it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Row

from penstock_retrain.errors import AliasMoved, NoSuchVersion
from penstock_retrain.registry.versions import (
    AliasChange,
    Made,
    Version,
    VersionStatus,
    name_of,
)
from penstock_retrain.tables import ALIAS_HISTORY, ALIASES, VERSIONS

__all__ = [
    "alias",
    "alias_change_of",
    "create_version",
    "find_version",
    "retire",
    "set_alias",
    "set_registered",
    "set_status",
    "version_of",
    "version_of_job",
]


def create_version(
    connection: Connection, model: str, job_id: str, made: Made, now_us: int
) -> Version:
    """The version of a job; made where the job has none, the same one otherwise.

    Raises:
        DatabaseUnavailable: Another transaction took the number; try again.
    """
    found = version_of_job(connection, job_id)
    if found is not None:
        return found
    query = sql.select(sql.func.max(VERSIONS.c.version)).where(VERSIONS.c.model == model)
    number = (connection.execute(query).scalar() or 0) + 1
    version = Version(
        model=model,
        version=number,
        name=name_of(model, number),
        job_id=job_id,
        status=VersionStatus.TRAINED,
        kind=made.kind,
        base_model=made.base_model,
        created_us=now_us,
    )
    connection.execute(
        VERSIONS.insert().values(
            model=model,
            version=number,
            name=version.name,
            job_id=job_id,
            status=version.status,
            kind=made.kind,
            base_model=made.base_model,
            digest="",
            card="",
            created_us=now_us,
            retired_us=0,
            retired_reason="",
            revision=1,
            mirrored=0,
        )
    )
    return version


def find_version(connection: Connection, model: str, number: int) -> Version:
    """A version by its number.

    Raises:
        NoSuchVersion: There is none.
    """
    query = sql.select(VERSIONS).where(VERSIONS.c.model == model, VERSIONS.c.version == number)
    row = connection.execute(query).first()
    if row is None:
        raise NoSuchVersion(
            f"{model} has no version {number}; see: penstock rollout history {model}",
            field="version",
        )
    return version_of(row)


def version_of_job(connection: Connection, job_id: str) -> Version | None:
    """The version that a job made, if it has."""
    row = connection.execute(sql.select(VERSIONS).where(VERSIONS.c.job_id == job_id)).first()
    return version_of(row) if row is not None else None


def set_registered(connection: Connection, job_id: str, digest: str, card: str) -> None:
    """Keeps that a version's files are where engines find them. Repeating it changes nothing."""
    connection.execute(
        VERSIONS.update()
        .where(VERSIONS.c.job_id == job_id, VERSIONS.c.status == VersionStatus.TRAINED)
        .values(
            status=VersionStatus.REGISTERED,
            digest=digest,
            card=card,
            revision=VERSIONS.c.revision + 1,
        )
    )


def set_status(connection: Connection, model: str, number: int, status: VersionStatus) -> None:
    """Keeps what became of a version."""
    _change(connection, model, number, status=status)


def retire(connection: Connection, model: str, number: int, reason: str, now_us: int) -> None:
    """Keeps that nothing may be routed to a version any more; the first reason stands."""
    connection.execute(
        VERSIONS.update()
        .where(VERSIONS.c.model == model, VERSIONS.c.version == number, VERSIONS.c.retired_us == 0)
        .values(retired_us=now_us, retired_reason=reason, revision=VERSIONS.c.revision + 1)
    )


def alias(connection: Connection, model: str, name: str) -> int:
    """The version that an alias names; 0 for none. Locks the alias (PostgreSQL)."""
    query = sql.select(ALIASES.c.version).where(ALIASES.c.model == model, ALIASES.c.alias == name)
    return connection.execute(query.with_for_update()).scalar() or 0


def set_alias(connection: Connection, change: AliasChange) -> AliasChange:
    """Moves an alias from the version that is expected there; returns the change with its revision.

    Args:
        connection: The transaction.
        change: Its revision is not looked at; `from_version` is what has to be there.

    Raises:
        AliasMoved: Another version is there; nothing was changed.
        NoSuchVersion: `to_version` is none of the model's, or is retired.
    """
    table = ALIASES
    here = (table.c.model == change.model, table.c.alias == change.alias)
    row = connection.execute(sql.select(table).where(*here).with_for_update()).first()
    found, revision = (row.version, row.revision) if row is not None else (0, 0)
    if found != change.from_version:
        raise AliasMoved(change.model, change.alias, change.from_version, found)
    if change.to_version:
        target = find_version(connection, change.model, change.to_version)
        if target.retired_us:
            raise NoSuchVersion(
                f"version {target.version} of {change.model} is retired: {target.retired_reason}",
                field="version",
            )
    values = {"version": change.to_version, "revision": revision + 1}
    if row is None:
        connection.execute(table.insert().values(model=change.model, alias=change.alias, **values))
    else:
        connection.execute(table.update().where(*here).values(**values))
    connection.execute(
        ALIAS_HISTORY.insert().values(
            model=change.model,
            alias=change.alias,
            revision=revision + 1,
            from_version=change.from_version,
            to_version=change.to_version,
            at_us=change.at_us,
            job_id=change.job_id,
            by=change.by,
            reason=change.reason,
        )
    )
    for number in {change.from_version, change.to_version} - {0}:
        _change(connection, change.model, number)  # its mirror shows aliases
    return AliasChange(
        change.model,
        change.alias,
        revision + 1,
        change.from_version,
        change.to_version,
        change.at_us,
        change.job_id,
        change.by,
        change.reason,
    )


def version_of(row: Row[Any]) -> Version:
    """A row as the domain has it."""
    return Version(
        model=row.model,
        version=row.version,
        name=row.name,
        job_id=row.job_id,
        status=VersionStatus(row.status),
        kind=row.kind,
        base_model=row.base_model,
        digest=row.digest,
        card=row.card,
        created_us=row.created_us,
        retired_us=row.retired_us,
        retired_reason=row.retired_reason,
        revision=row.revision,
    )


def alias_change_of(row: Row[Any]) -> AliasChange:
    """A row as the domain has it."""
    return AliasChange(
        row.model,
        row.alias,
        row.revision,
        row.from_version,
        row.to_version,
        row.at_us,
        row.job_id,
        row.by,
        row.reason,
    )


def _change(connection: Connection, model: str, number: int, **values: object) -> None:
    connection.execute(
        VERSIONS.update()
        .where(VERSIONS.c.model == model, VERSIONS.c.version == number)
        .values(revision=VERSIONS.c.revision + 1, **values)
    )
