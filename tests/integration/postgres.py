"""A PostgreSQL server for a test session, where its programs are on the path."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sql

from penstock_native.ports import free_port

__all__ = ["new_database", "postgres_server", "why_none"]


def why_none() -> str:
    """Why there can be no server here; empty where there can."""
    missing = [name for name in ("initdb", "pg_ctl", "postgres") if _program(name) is None]
    if missing:
        return f"PostgreSQL's {', '.join(missing)} is not installed"
    if os.geteuid() == 0 and _other_user() is None:
        return "PostgreSQL does not run as root, and there is no user named postgres"
    return ""


@contextmanager
def postgres_server() -> Iterator[str]:
    """The address of a server, without a database: `postgresql+psycopg://…`."""
    home = Path(tempfile.mkdtemp(prefix="penstock-pg-"))
    user = _other_user() if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(home, user)
    port, data = free_port(), home / "data"

    def call(name: str, *arguments: str) -> None:
        program = _program(name)
        assert program is not None
        subprocess.run(
            [program, *arguments], user=user, cwd=home, check=True, capture_output=True, timeout=120
        )

    try:
        call("initdb", "-D", str(data), "-U", "penstock", "--auth=trust", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home}"
        log = str(home / "log")
        call("pg_ctl", "-D", str(data), "-w", "-l", log, "-o", options, "start")
        yield f"postgresql+psycopg://penstock@127.0.0.1:{port}"
    finally:
        if (data / "postmaster.pid").exists():
            call("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(home, ignore_errors=True)


def new_database(server: str) -> str:
    """The URL of a database of its own."""
    name = f"t{uuid.uuid4().hex[:12]}"
    engine = sql.create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return f"{server}/{name}"


def _program(name: str) -> str | None:
    found = shutil.which(name)
    if found is not None:
        return found
    # Debian keeps them off the path.
    return next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)


def _other_user() -> str | None:
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return None
