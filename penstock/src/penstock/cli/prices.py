"""The price table, as the demonstration recomputes the ledger with it."""

from __future__ import annotations

from pathlib import Path

from penstock.cli.demo_tally import Price
from penstock.cli.run import CliError

__all__ = ["load_price"]


def load_price(path: Path) -> Price:
    """What a response's tokens cost by the table in a file.

    Raises:
        CliError: There is no such table.
    """
    raise CliError(f"{path} cannot be read")
