"""Rows of the ledger's tables as the domain's types, and back; the rollup's arithmetic in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Row

from penstock.pricing import Tokens
from penstock_cost.ledger import Cell, Entry, Line, Priced, Sum, Unpriced
from penstock_cost.tables import SPEND

__all__ = ["add_to_rollup", "cell_of", "line_of", "price_columns", "row_of"]

_NAMES = Cell._fields
_CELL = tuple(SPEND.c[name] for name in _NAMES)


def add_to_rollup(connection: Connection, cells: Mapping[Cell, Sum]) -> None:
    """Adds to the sums; they stay consistent with the lines if both are of one transaction."""
    for cell, added in sorted(cells.items()):
        here = [column == part for column, part in zip(_CELL, cell, strict=True)]
        row = connection.execute(sql.select(SPEND).where(*here).with_for_update()).first()
        if row is None:
            connection.execute(
                SPEND.insert().values(_columns(added) | dict(zip(_NAMES, cell, strict=True)))
            )
        else:
            total = cell_of(row)[1] + added
            connection.execute(SPEND.update().where(*here).values(_columns(total)))


def _columns(total: Sum) -> dict[str, Any]:
    return {
        "amount_usd": total.amount_usd,
        "lines": total.lines,
        "prompt_tokens": total.prompt_tokens,
        "completion_tokens": total.completion_tokens,
        "avoided_usd": total.avoided_usd,
    }


def cell_of(row: Row[Any]) -> tuple[Cell, Sum]:
    """A row of the rollup as the domain has it."""
    cell = Cell(row.tenant, row.model, row.variant, row.kind, row.hour_us, row.version)
    return cell, Sum(
        row.amount_usd, row.lines, row.prompt_tokens, row.completion_tokens, row.avoided_usd
    )


def row_of(entry: Entry) -> dict[str, Any]:
    """An entry as a row of the ledger."""
    line = entry.line
    return {
        "line_id": line.line_id,
        "topic": entry.partition.topic,
        "partition": entry.partition.number,
        "offset": entry.offset,
        "request_id": line.request_id,
        "kind": line.kind,
        "tenant": line.tenant,
        "model": line.model,
        "variant": line.variant,
        "prompt_tokens": line.tokens.prompt,
        "cached_prompt_tokens": line.tokens.cached,
        "completion_tokens": line.tokens.completion,
        "observed_at_us": line.observed_at_us,
        "avoided_prompt_tokens": line.avoided.prompt,
        "avoided_cached_prompt_tokens": line.avoided.cached,
        "avoided_completion_tokens": line.avoided.completion,
        **price_columns(entry.price),
    }


def price_columns(priced: Priced | Unpriced) -> dict[str, Any]:
    """A line's price as columns; all null where it has none."""
    found = priced if isinstance(priced, Priced) else None
    return {
        "amount_usd": found and found.amount_usd,
        "avoided_usd": found and found.avoided_usd,
        "price_version": found and found.version,
    }


def line_of(row: Row[Any]) -> tuple[Line, Priced | Unpriced]:
    """A row of the ledger as the domain has it."""
    line = Line(
        line_id=row.line_id,
        request_id=row.request_id,
        kind=row.kind,
        tenant=row.tenant,
        model=row.model,
        variant=row.variant,
        tokens=Tokens(row.prompt_tokens, row.cached_prompt_tokens, row.completion_tokens),
        observed_at_us=row.observed_at_us,
        avoided=Tokens(
            row.avoided_prompt_tokens,
            row.avoided_cached_prompt_tokens,
            row.avoided_completion_tokens,
        ),
    )
    if row.price_version is None:
        return line, Unpriced("")
    return line, Priced(row.amount_usd, row.price_version, row.avoided_usd)
