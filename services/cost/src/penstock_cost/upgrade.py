"""Brings the tables of an older ledger to this version's, inside the caller's transaction."""

from __future__ import annotations

import sqlalchemy as sql
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateColumn

from penstock_cost.ledger import Cell, Sum, fold
from penstock_cost.rows import add_to_rollup, line_of
from penstock_cost.tables import LINES, METADATA, SPEND

__all__ = ["make_tables"]

PAGE_LINES = 5000


def make_tables(connection: Connection) -> None:
    """Makes what is missing: tables, columns of the ledger, and the rollup where its shape is old.

    Does nothing where everything is there. The rollup is added up anew from the lines, which may
    take a minute for some millions of them.
    """
    rollup_is_old = _missing(connection, SPEND)
    added = _missing(connection, LINES)
    for column in added:
        definition = CreateColumn(column).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE {LINES.name} ADD COLUMN {definition}")
    if any(column is LINES.c.avoided_usd for column in added):
        # Nothing was avoided before it was counted; null would mean that a price is missing.
        priced = LINES.update().where(LINES.c.price_version.is_not(None))
        connection.execute(priced.values(avoided_usd=sql.literal(0, LINES.c.avoided_usd.type)))
    if rollup_is_old:
        SPEND.drop(connection)
    METADATA.create_all(connection)
    if rollup_is_old:
        _add_up(connection)


def _missing(connection: Connection, table: sql.Table) -> list[sql.Column[object]]:
    """The columns that a table lacks; none where there is no such table."""
    inspector = sql.inspect(connection)
    if not inspector.has_table(table.name):
        return []
    there = {column["name"] for column in inspector.get_columns(table.name)}
    return [column for column in table.columns if column.name not in there]


def _add_up(connection: Connection) -> None:
    cells: dict[Cell, Sum] = {}
    last = ""
    while True:
        page = sql.select(LINES).where(LINES.c.line_id > last)
        rows = connection.execute(page.order_by(LINES.c.line_id).limit(PAGE_LINES)).all()
        if not rows:
            break
        for cell, found in fold(line_of(row) for row in rows).items():
            cells[cell] = cells.get(cell, Sum()) + found
        last = rows[-1].line_id
    add_to_rollup(connection, cells)
