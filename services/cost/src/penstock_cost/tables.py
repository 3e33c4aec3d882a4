"""The ledger's tables, for SQLite and PostgreSQL alike."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, text
from sqlalchemy.types import TypeDecorator

from penstock.pricing import plain

__all__ = ["APPLIED_OFFSETS", "LEDGER", "LINES", "METADATA", "MISSING_PRICES", "SPEND"]


class ExactDecimal(TypeDecorator[Decimal]):
    """A decimal number as text: SQLite's own numbers are binary and round."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Any) -> str | None:
        """See SQLAlchemy."""
        return None if value is None else plain(value)

    def process_result_value(self, value: str | None, dialect: Any) -> Decimal | None:
        """See SQLAlchemy."""
        return None if value is None else Decimal(value)


METADATA = MetaData()

# One row: the ledger's identity, which names the consumer group that fills it.
LEDGER = Table("ledger", METADATA, Column("ledger_id", String, primary_key=True))

LINES = Table(
    "ledger_lines",
    METADATA,
    Column("line_id", String, primary_key=True),
    Column("topic", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("request_id", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("tenant", String, nullable=False),
    Column("model", String, nullable=False),
    Column("variant", String, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("observed_at_us", BigInteger, nullable=False, index=True),
    # All three null while the line has no price.
    Column("amount_usd", ExactDecimal),
    Column("price_version", String, index=True),
    Column("avoided_usd", ExactDecimal),
    # What a cache hit did not have to use.
    Column("avoided_prompt_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("avoided_cached_prompt_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("avoided_completion_tokens", BigInteger, nullable=False, server_default=text("0")),
)

# Sums of lines by UTC hour, kept in the transaction of the lines. Version "" is unpriced. Made
# from the lines alone: a ledger of an older version gets it anew (`upgrade.py`).
SPEND = Table(
    "spend",
    METADATA,
    Column("tenant", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("variant", String, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("hour_us", BigInteger, primary_key=True, autoincrement=False),
    Column("version", String, primary_key=True),
    Column("amount_usd", ExactDecimal, nullable=False),
    Column("lines", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("avoided_usd", ExactDecimal, nullable=False),
)

# Where the ledger stands in each partition of `usage`, kept in the transaction of the lines. For
# people, and a lock; whether a line is booked is told by its id alone.
APPLIED_OFFSETS = Table(
    "applied_offsets",
    METADATA,
    Column("topic", String, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),
)

# Models that lines wait for a price of, and whether the alert about it was written.
MISSING_PRICES = Table(
    "missing_prices",
    METADATA,
    Column("model", String, primary_key=True),
    Column("since_us", BigInteger, nullable=False),
    Column("reason", String, nullable=False),
    Column("alerted", Integer, nullable=False),
)
