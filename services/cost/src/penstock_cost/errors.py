"""The errors of cost, each saying what to do next."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.errors import Unavailable
from penstock.rpc.errors import FailedPrecondition

__all__ = ["LedgerUnavailable", "PricesMissing"]


class LedgerUnavailable(Unavailable):
    """The database could not do it; nothing of the call was written. Try again."""


class PricesMissing(FailedPrecondition):
    """Lines of the span have no price, so its sum is unknown."""

    def __init__(self, models: Iterable[str], lines: int) -> None:
        super().__init__(
            f"{lines} lines have no price, of these models: {', '.join(sorted(set(models)))}. Add "
            "the prices to the price table (PENSTOCK_COST_PRICES) and restart the cost service, "
            "which prices the lines when it starts",
            field="model",
        )
