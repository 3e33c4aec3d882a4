"""A database in SQL, SQLite in WAL mode or PostgreSQL: transactions with mapped errors.

Needs SQLAlchemy, which the extra `sql` of the kit brings. Every call blocks: use a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import DataError, DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from penstock.errors import Code, InvalidRequest, Unavailable

__all__ = ["Database", "DatabaseUnavailable"]

BUSY_MS = 30_000


class DatabaseUnavailable(Unavailable):
    """The database could not do it; nothing of the call was written. Try again."""


class Database:
    """Connections to one database.

    Args:
        url: SQLAlchemy's URL; the directory of SQLite's file is made where it is missing.
        name: What it is to people: "the ledger's database".
        unavailable: What is raised where the database failed.
    """

    def __init__(
        self, url: str, name: str, unavailable: type[Unavailable] = DatabaseUnavailable
    ) -> None:
        self._engine = _engine(url)
        self._name = name
        self._unavailable = unavailable

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that may write; committed when the context ends without an error.

        SQLite has one at a time; PostgreSQL's see what others committed (READ COMMITTED), so rows
        that a decision hangs on are locked by their readers.

        Raises:
            Unavailable: The database failed; nothing was written.
            InvalidRequest: It cannot hold a value; nothing was written.
        """
        with self._mapped_errors(), self._engine.connect() as connection:
            connection = connection.execution_options(penstock_writes=True)
            with connection.begin():
                yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read by.

        Raises:
            Unavailable: The database failed.
        """
        with self._mapped_errors(), self._engine.connect() as connection:
            yield connection

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            # PostgreSQL holds no text with a NUL in it, for one: trying again would not help.
            raise InvalidRequest(
                f"{self._name} takes no such value: {type(error.orig).__name__}",
                code=Code.ERROR_CODE_MALFORMED,
            ) from error
        except DBAPIError as error:
            raise self._unavailable(f"{self._name} failed: {error.orig!r}") from error
        except (PoolTimeout, DisconnectionError) as error:
            # The pool's own, before there is a connection: no errors of the driver.
            raise self._unavailable(f"{self._name} has no free connection: {error}") from error


def _engine(url: str) -> sql.Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sql.create_engine(parsed, pool_pre_ping=True)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sql.create_engine(parsed)

    @sql.event.listens_for(engine, "connect")
    def connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves
        connection.execute("PRAGMA journal_mode = WAL")
        # What is elsewhere already (Kafka's offsets, a route) may be ahead of what a power cut
        # leaves otherwise.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")

    @sql.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A reader that turns into a writer cannot wait for its turn: writers say so first.
        writes = connection.get_execution_options().get("penstock_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
