"""The ledger in SQL: SQLite in WAL mode, or PostgreSQL. Every call blocks: use a thread.

Lines and rollup change in one transaction, and a line's id is the primary key, so a batch is
applied whole and once, however often it is delivered.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from penstock.pricing import PriceTable
from penstock.records import Partition
from penstock.sql import Database
from penstock_cost.errors import LedgerUnavailable
from penstock_cost.ledger import (
    Cell,
    Entry,
    Line,
    Priced,
    Sum,
    Unpriced,
    fold,
    price,
    select_new,
)
from penstock_cost.rows import add_to_rollup, cell_of, line_of, price_columns, row_of
from penstock_cost.spans import Span, covering
from penstock_cost.tables import APPLIED_OFFSETS, LEDGER, LINES, MISSING_PRICES, SPEND
from penstock_cost.upgrade import make_tables

__all__ = ["Applied", "LedgerStore", "MissingPrice"]

REPRICE_LINES = 1000
# Ids in one query: databases bound the values of a statement (SQLite 32,766).
QUERY_IDS = 10_000


class Applied(NamedTuple):
    """What became of a batch: numbers of lines."""

    priced: int
    unpriced: int
    repeated: int


class MissingPrice(NamedTuple):
    """A model whose lines wait for a price, since the first of them, and why."""

    model: str
    since_us: int
    reason: str


class LedgerStore:
    """The ledger of one database.

    Args:
        url: SQLAlchemy's URL; the tables are made where they are missing, and an older version's
            brought up to date.

    Raises:
        LedgerUnavailable: The database cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url, "the ledger's database", LedgerUnavailable)
        with self._database.writing() as connection:
            make_tables(connection)
            found = connection.execute(sql.select(LEDGER.c.ledger_id)).scalar()
            self.ledger_id = found or uuid.uuid4().hex[:12]
            if found is None:
                connection.execute(LEDGER.insert().values(ledger_id=self.ledger_id))

    def close(self) -> None:
        """Closes all connections."""
        self._database.close()

    def apply(self, entries: Sequence[Entry]) -> Applied:
        """Books the entries whose lines were not booked before, and keeps the offsets after them.

        Args:
            entries: In the order of the log, of any partitions.

        Raises:
            LedgerUnavailable: Nothing was booked; try again.
            InvalidRequest: Nothing was booked; the database cannot hold a value of the batch.
        """
        with self._database.writing() as connection:
            # First the lock, then the look: what the owner before booked is seen (PostgreSQL).
            before = _next_offsets(connection, entries)
            fresh = select_new(entries, _known(connection, entries))
            if fresh:
                connection.execute(LINES.insert(), [row_of(entry) for entry in fresh])
                add_to_rollup(connection, fold((e.line, e.price) for e in fresh))
                _note_missing(connection, fresh)
            _move_offsets(connection, before, entries)
        unpriced = sum(isinstance(entry.price, Unpriced) for entry in fresh)
        return Applied(len(fresh) - unpriced, unpriced, len(entries) - len(fresh))

    def cells(self, span: Span, tenant: str, model: str) -> list[tuple[Cell, Sum]]:
        """What is to be added up over a span: whole hours from the rollup, the rest from lines.

        Args:
            span: The span of time.
            tenant: Restricts to one; empty does not.
            model: Restricts to one; empty does not.

        Raises:
            LedgerUnavailable: It cannot be read.
        """
        hours, edges = covering(span)
        found: list[tuple[Cell, Sum]] = []
        with self._database.reading() as connection:
            if hours is not None:
                query = _within(sql.select(SPEND), SPEND, SPEND.c.hour_us, hours, tenant, model)
                found.extend(cell_of(row) for row in connection.execute(query))
            for edge in edges:
                column = LINES.c.observed_at_us
                query = _within(sql.select(LINES), LINES, column, edge, tenant, model)
                rows = connection.execute(query)
                found.extend(fold(line_of(row) for row in rows).items())
        return found

    def reprice(self, prices: PriceTable) -> int:
        """Prices lines that had no price and have one now; returns how many.

        Raises:
            LedgerUnavailable: Some may have been priced; the rest waits.
        """
        done, last = 0, ""
        while True:
            with self._database.writing() as connection:
                query = (
                    sql.select(LINES)
                    .where(LINES.c.price_version.is_(None), LINES.c.line_id > last)
                    .order_by(LINES.c.line_id)
                    .limit(REPRICE_LINES)
                    # Two that reprice at once would move a line's amount twice (PostgreSQL).
                    .with_for_update()
                )
                lines = [line_of(row)[0] for row in connection.execute(query)]
                if not lines:
                    return done
                last = lines[-1].line_id
                done += _set_prices(connection, lines, prices)

    def unpriced_lines(self) -> dict[str, int]:
        """Lines without a price, by model."""
        query = sql.select(SPEND.c.model, sql.func.sum(SPEND.c.lines)).where(SPEND.c.version == "")
        with self._database.reading() as connection:
            rows = connection.execute(query.group_by(SPEND.c.model))
            return {model: int(lines) for model, lines in rows if lines}

    def to_alert(self) -> list[MissingPrice]:
        """Models without a price of which nobody was told."""
        query = sql.select(MISSING_PRICES).where(MISSING_PRICES.c.alerted == 0)
        with self._database.reading() as connection:
            return [MissingPrice(r.model, r.since_us, r.reason) for r in connection.execute(query)]

    def alerted(self, model: str) -> None:
        """Keeps that people were told."""
        with self._database.writing() as connection:
            connection.execute(
                MISSING_PRICES.update().where(MISSING_PRICES.c.model == model).values(alerted=1)
            )

    def to_resolve(self) -> list[MissingPrice]:
        """Models that people were told of and whose lines are all priced now."""
        waiting = sql.select(LINES.c.model).where(LINES.c.price_version.is_(None)).distinct()
        query = sql.select(MISSING_PRICES).where(MISSING_PRICES.c.model.not_in(waiting))
        with self._database.reading() as connection:
            return [MissingPrice(r.model, r.since_us, r.reason) for r in connection.execute(query)]

    def resolved(self, model: str) -> None:
        """Forgets a model whose lines are priced."""
        with self._database.writing() as connection:
            connection.execute(MISSING_PRICES.delete().where(MISSING_PRICES.c.model == model))


def _known(connection: Connection, entries: Sequence[Entry]) -> set[str]:
    ids = [entry.line.line_id for entry in entries]
    known: set[str] = set()
    for start in range(0, len(ids), QUERY_IDS):
        wanted = LINES.c.line_id.in_(ids[start : start + QUERY_IDS])
        known.update(connection.scalars(sql.select(LINES.c.line_id).where(wanted)))
    return known


def _next_offsets(connection: Connection, entries: Sequence[Entry]) -> dict[Partition, int]:
    table = APPLIED_OFFSETS
    wanted = {tuple(entry.partition) for entry in entries}
    # Locked: an owner that lost the partition may still be writing (PostgreSQL).
    query = (
        sql.select(table)
        .where(sql.tuple_(table.c.topic, table.c.partition).in_(wanted))
        .with_for_update()
    )
    return {Partition(r.topic, r.partition): r.next_offset for r in connection.execute(query)}


def _move_offsets(
    connection: Connection, before: Mapping[Partition, int], entries: Sequence[Entry]
) -> None:
    table = APPLIED_OFFSETS
    # Backwards too: a topic that is made anew begins again.
    after = {entry.partition: entry.offset + 1 for entry in entries}
    for partition, offset in after.items():
        key = {"topic": partition.topic, "partition": partition.number}
        if partition not in before:
            connection.execute(table.insert().values(**key, next_offset=offset))
        elif before[partition] != offset:
            update = table.update().where(
                table.c.topic == partition.topic, table.c.partition == partition.number
            )
            connection.execute(update.values(next_offset=offset))


def _note_missing(connection: Connection, fresh: Sequence[Entry]) -> None:
    table = MISSING_PRICES
    missing: dict[str, MissingPrice] = {}
    for entry in fresh:
        if isinstance(entry.price, Unpriced):
            found = MissingPrice(entry.line.model, entry.line.observed_at_us, entry.price.reason)
            missing.setdefault(entry.line.model, found)
    known = set(connection.scalars(sql.select(table.c.model).where(table.c.model.in_(missing))))
    for model, found in missing.items():
        if model not in known:
            connection.execute(table.insert().values(**found._asdict(), alerted=0))


def _set_prices(connection: Connection, lines: Sequence[Line], prices: PriceTable) -> int:
    moved: dict[Cell, Sum] = {}
    done = 0
    for line in lines:
        found = price(line, prices)
        if not isinstance(found, Priced):
            continue
        connection.execute(
            LINES.update().where(LINES.c.line_id == line.line_id).values(**price_columns(found))
        )
        # From the cell of unpriced lines to that of its version.
        for cell, added in fold([(line, found)]).items():
            moved[cell] = moved.get(cell, Sum()) + added
        for cell, taken in fold([(line, Unpriced(""))]).items():
            moved[cell] = moved.get(cell, Sum()) + -taken
        done += 1
    add_to_rollup(connection, moved)
    return done


def _within(
    query: sql.Select[Any],
    table: sql.Table,
    time: sql.Column[Any],
    span: Span,
    tenant: str,
    model: str,
) -> sql.Select[Any]:
    if span.from_us is not None:
        query = query.where(time >= span.from_us)
    if span.until_us is not None:
        query = query.where(time < span.until_us)
    if tenant:
        query = query.where(table.c.tenant == tenant)
    return query.where(table.c.model == model) if model else query
