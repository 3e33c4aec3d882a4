"""The registry in SQL: the truth of versions and aliases. Every call blocks: use a thread."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sql

from penstock.sql import Database
from penstock_retrain.errors import AliasMoved, NoSuchVersion
from penstock_retrain.registry import records
from penstock_retrain.registry.versions import AliasChange, Made, Version
from penstock_retrain.tables import ALIAS_HISTORY, ALIASES, VERSIONS

__all__ = ["Registry"]


class Registry:
    """Versions and aliases of every model.

    What a job changes, it changes in its own transaction (`penstock_retrain.jobs.store`).

    Args:
        database: Where they are; the tables are there.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create_version(self, model: str, job_id: str, made: Made, now_us: int) -> Version:
        """The version of a job; the same one however often it is asked for.

        Raises:
            Unavailable: The database failed, or another one took the number: try again.
        """
        with self._database.writing() as connection:
            return records.create_version(connection, model, job_id, made, now_us)

    def version(self, model: str, number: int) -> Version:
        """A version.

        Raises:
            NoSuchVersion: There is none of that number.
        """
        with self._database.reading() as connection:
            return records.find_version(connection, model, number)

    def by_alias(self, model: str, alias: str) -> Version:
        """The version that an alias names.

        Raises:
            NoSuchVersion: It names none.
        """
        with self._database.reading() as connection:
            query = sql.select(ALIASES.c.version).where(
                ALIASES.c.model == model, ALIASES.c.alias == alias
            )
            number = connection.execute(query).scalar()
            if not number:
                raise NoSuchVersion(
                    f"{model} has no {alias} that a job made; see: penstock rollout history "
                    f"{model}",
                    field="alias",
                )
            return records.find_version(connection, model, number)

    def by_job(self, job_id: str) -> Version | None:
        """The version that a job made; None where it has made none."""
        with self._database.reading() as connection:
            return records.version_of_job(connection, job_id)

    def versions(self, model: str) -> list[Version]:
        """All versions of a model, the oldest first."""
        query = sql.select(VERSIONS).where(VERSIONS.c.model == model).order_by(VERSIONS.c.version)
        with self._database.reading() as connection:
            return [records.version_of(row) for row in connection.execute(query)]

    def set_alias(self, change: AliasChange) -> AliasChange:
        """Moves an alias from the version that is expected there.

        Raises:
            AliasMoved: Another version is there; nothing was changed.
            NoSuchVersion: The version is none of the model's, or is retired.
        """
        with self._database.writing() as connection:
            return records.set_alias(connection, change)

    def aliases(self, model: str) -> dict[str, int]:
        """The versions that aliases name now."""
        query = sql.select(ALIASES).where(ALIASES.c.model == model, ALIASES.c.version != 0)
        with self._database.reading() as connection:
            return {row.alias: row.version for row in connection.execute(query)}

    def as_of(self, model: str, at_us: int) -> dict[str, int]:
        """The versions that aliases named at an instant, microseconds since 1970."""
        found: dict[str, int] = {}
        for change in self.alias_history(model):
            if change.at_us <= at_us:
                found[change.alias] = change.to_version
        return {alias: version for alias, version in found.items() if version}

    def alias_history(self, model: str) -> list[AliasChange]:
        """Every change of a model's aliases, as they happened."""
        query = (
            sql.select(ALIAS_HISTORY)
            .where(ALIAS_HISTORY.c.model == model)
            .order_by(ALIAS_HISTORY.c.at_us, ALIAS_HISTORY.c.alias, ALIAS_HISTORY.c.revision)
        )
        with self._database.reading() as connection:
            return [records.alias_change_of(row) for row in connection.execute(query)]

    def retire(self, model: str, number: int, reason: str, now_us: int) -> None:
        """Keeps that nothing may be routed to a version any more.

        Raises:
            AliasMoved: An alias names it; move that first.
            NoSuchVersion: There is none of that number.
        """
        with self._database.writing() as connection:
            records.find_version(connection, model, number)
            query = sql.select(ALIASES.c.alias).where(
                ALIASES.c.model == model, ALIASES.c.version == number
            )
            for alias in connection.scalars(query):
                raise AliasMoved(model, alias, 0, number)
            records.retire(connection, model, number, reason, now_us)

    def unmirrored(self, limit: int = 20) -> list[tuple[Version, Mapping[str, int]]]:
        """Versions that changed since they were mirrored, with their model's aliases."""
        query = sql.select(VERSIONS).where(VERSIONS.c.mirrored < VERSIONS.c.revision).limit(limit)
        with self._database.reading() as connection:
            found = [records.version_of(row) for row in connection.execute(query)]
        return [(version, self.aliases(version.model)) for version in found]

    def mirrored(self, version: Version) -> None:
        """Keeps that the mirror shows a version as it is given here."""
        with self._database.writing() as connection:
            connection.execute(
                VERSIONS.update()
                .where(VERSIONS.c.model == version.model, VERSIONS.c.version == version.version)
                .values(mirrored=version.revision)
            )
