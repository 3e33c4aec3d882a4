"""The price table, as the demonstration recomputes the ledger with it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

from penstock.cli.demo_tally import Price
from penstock.cli.run import CliError, read_text
from penstock.pricing import PriceTable, PriceTableError, Tokens, cost_of
from penstock.v1 import response_pb2

__all__ = ["load_price", "price_by"]


def load_price(path: Path) -> Price:
    """What a response's tokens cost by the table in a file.

    Raises:
        CliError: There is no such table, or it cannot be used.
    """
    try:
        return price_by(PriceTable.parse(read_text(str(path))))
    except PriceTableError as error:
        raise CliError(f"{path}: {error}") from error


def price_by(table: PriceTable) -> Price:
    """What a response's tokens cost by a table, at the time of the response.

    The function raises UnknownPrice where the table has no price for the response's model.
    """

    def price(response: response_pb2.GenerateResponse) -> Decimal:
        usage = response.usage
        tokens = Tokens(
            prompt=usage.prompt_tokens,
            cached=usage.cached_prompt_tokens,
            completion=usage.completion_tokens,
        )
        when = response.created_at.ToDatetime(dt.UTC)
        return cost_of(table.at(response.model, when), tokens)

    return price
