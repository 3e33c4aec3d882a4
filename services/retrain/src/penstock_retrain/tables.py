"""The tables of retrain, for SQLite and PostgreSQL alike.

Histories are append-only by triggers of the database: a row of `job_history` or `alias_history`
cannot be changed or deleted, whoever tries.
"""

from __future__ import annotations

import sqlalchemy as sql
from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.engine import Connection

__all__ = [
    "ALIASES",
    "ALIAS_HISTORY",
    "HISTORY",
    "JOBS",
    "LEASES",
    "NEWS",
    "ROUTES",
    "ROUTE_HEADS",
    "VERSIONS",
    "make_tables",
]

METADATA = MetaData()

JOBS = Table(
    "jobs",
    METADATA,
    Column("id", String, primary_key=True),
    Column("model", String, nullable=False),
    Column("state", String, nullable=False),
    Column("step", Integer, nullable=False),
    Column("awaiting", String),
    Column("cause_kind", String, nullable=False),
    Column("cause_id", String, nullable=False),
    Column("cause_event", String, nullable=False),
    Column("cause_by", String, nullable=False),
    Column("cause_reason", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False, index=True),
    Column("updated_us", BigInteger, nullable=False),
    # JSON, as are attempts and results.
    Column("approvals", Text, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("attempts", Text, nullable=False),
    Column("retry_at_us", BigInteger, nullable=False),
    Column("results", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    # 1 while the state is none of the final ones.
    Column("active", Integer, nullable=False),
    # The stages have removed what nobody needs of an ended job.
    Column("cleaned", Integer, nullable=False),
    # Who runs it, and until when nobody else may; the claim rises with every taker.
    Column("owner", String),
    Column("claim", BigInteger, nullable=False),
    Column("lease_until_us", BigInteger, nullable=False),
    # Two starts with one key are one.
    Column("start_key", String, unique=True),
)
Index(
    "one_active_job",
    JOBS.c.model,
    unique=True,
    sqlite_where=JOBS.c.active == 1,
    postgresql_where=JOBS.c.active == 1,
)

HISTORY = Table(
    "job_history",
    METADATA,
    Column("job_id", String, primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("from_state", String, nullable=False),
    Column("to_state", String, nullable=False),
    Column("step", Integer, nullable=False),
    Column("trigger", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("by", String, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)

# Revisions of jobs that are not on the topic `jobs` yet; a row goes when it is.
NEWS = Table(
    "job_news",
    METADATA,
    Column("job_id", String, primary_key=True),
    Column("revision", BigInteger, primary_key=True),
)

# The newest version of each model's route that is known: the log's, or one that is on its way.
ROUTE_HEADS = Table(
    "route_heads",
    METADATA,
    Column("model", String, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("route", sql.LargeBinary, nullable=False),
)

# The outbox: routes that jobs wrote, each with its version, in the transaction of the job.
ROUTES = Table(
    "job_routes",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", String, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("route", sql.LargeBinary, nullable=False),
    # The route that it was made from.
    Column("base", sql.LargeBinary, nullable=False),
    Column("job_id", String, nullable=False, index=True),
    Column("kind", String, nullable=False),
    # The candidate, JSON.
    Column("candidate", Text, nullable=False),
    Column("percent", sql.Float, nullable=False),
    # waiting, published or superseded
    Column("status", String, nullable=False, index=True),
    Column("created_us", BigInteger, nullable=False),
    Column("settled_us", BigInteger, nullable=False),
)

# A version that never reached the log may be given again.
Index(
    "one_route_of_a_version",
    ROUTES.c.model,
    ROUTES.c.version,
    unique=True,
    sqlite_where=ROUTES.c.status != "superseded",
    postgresql_where=ROUTES.c.status != "superseded",
)

# Who may publish a model's routes; the epoch rises with every holder.
LEASES = Table(
    "leases",
    METADATA,
    Column("name", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
)

VERSIONS = Table(
    "model_versions",
    METADATA,
    Column("model", String, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("job_id", String, nullable=False, unique=True),
    Column("status", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("base_model", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("card", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("retired_us", BigInteger, nullable=False),
    Column("retired_reason", Text, nullable=False),
    # Rises with every change, also of its aliases; the mirror is behind where its own is lower.
    Column("revision", BigInteger, nullable=False),
    Column("mirrored", BigInteger, nullable=False),
)

ALIASES = Table(
    "aliases",
    METADATA,
    Column("model", String, primary_key=True),
    Column("alias", String, primary_key=True),
    # 0 for none.
    Column("version", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
)

ALIAS_HISTORY = Table(
    "alias_history",
    METADATA,
    Column("model", String, primary_key=True),
    Column("alias", String, primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("from_version", BigInteger, nullable=False),
    Column("to_version", BigInteger, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("job_id", String, nullable=False),
    Column("by", String, nullable=False),
    Column("reason", Text, nullable=False),
)

_APPEND_ONLY = (HISTORY, ALIAS_HISTORY)
# Names one lock of PostgreSQL's for whoever makes the tables.
_MAKING = 7_305_041


def make_tables(connection: Connection) -> None:
    """Makes the tables that are missing, with the triggers that keep histories append-only."""
    dialect = connection.dialect.name
    if dialect == "postgresql":
        # Two services that start at once would both make them.
        connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_MAKING)))
    METADATA.create_all(connection)
    for table in _APPEND_ONLY:
        for statement in _guards(table.name, dialect):
            connection.exec_driver_sql(statement)


def _guards(table: str, dialect: str) -> list[str]:
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER IF NOT EXISTS {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            for verb in ("UPDATE", "DELETE")
        ]
    return [
        f"CREATE OR REPLACE FUNCTION {table}_append_only() RETURNS trigger AS $$ BEGIN "
        f"RAISE EXCEPTION '{table} is append-only'; END $$ LANGUAGE plpgsql",
        f"DROP TRIGGER IF EXISTS {table}_append_only ON {table}",
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {table}_append_only()",
    ]
