"""A database that cannot be used for now is unavailable; what no retry mends is not."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError

from penstock.sql import Database, DatabaseUnavailable


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/some.sqlite"


@pytest.mark.parametrize("verb", ["reading", "writing"])
def test_a_pool_without_a_free_connection_is_unavailable(
    url: str, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = functools.partial(sql.create_engine, pool_size=1, max_overflow=0, pool_timeout=0.01)
    monkeypatch.setattr(sql, "create_engine", small)
    database = Database(url, "the database")
    with database.reading():
        no_connection = pytest.raises(DatabaseUnavailable, match="no free connection")
        with no_connection as error, getattr(database, verb)():
            pass
        assert error.value.retryable
    with getattr(database, verb)() as connection:
        assert connection.scalar(sql.select(1)) == 1
    database.close()


def test_what_the_database_refuses_is_unavailable(url: str) -> None:
    database = Database(url, "the database")
    with pytest.raises(DatabaseUnavailable, match="failed"), database.reading() as connection:
        connection.exec_driver_sql("SELECT * FROM nowhere")
    database.close()


def test_a_statement_that_is_none_stays_a_bug(url: str) -> None:
    database = Database(url, "the database")
    with pytest.raises(ArgumentError), database.writing() as connection:
        connection.execute(sql.select("no column"))  # type: ignore[call-overload]
    database.close()
