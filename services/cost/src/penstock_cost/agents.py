"""The edge to the log: records of `usage` become entries of the ledger, a batch at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.pricing import PriceTable
from penstock.records import Record
from penstock_cost import metrics
from penstock_cost.alerts import Alerts
from penstock_cost.ledger import Entry, price
from penstock_cost.store import LedgerStore
from penstock_cost.wire import line_of

__all__ = ["UsageAgent"]


class UsageAgent:
    """Books usage lines. Idempotent: the store drops what was booked before.

    Args:
        store: The ledger.
        prices: What tokens cost.
        alerts: Tells people of models without a price.
    """

    def __init__(self, store: LedgerStore, prices: PriceTable, alerts: Alerts) -> None:
        self._store = store
        self._prices = prices
        self._alerts = alerts

    async def handle(self, records: Sequence[Record]) -> None:
        """Returns when the batch is in the database, and people were told what has no price.

        Raises:
            InvalidRequest: A record is no usage line; nothing was booked.
            LedgerUnavailable: The database failed; nothing was booked.
            LogError: An alert could not be written; the batch is booked.
        """
        entries = [self._entry(record) for record in records]
        with metrics.BATCH_SECONDS.time():
            # A transaction blocks, and the loop answers heartbeats and RPCs meanwhile.
            applied = await asyncio.to_thread(self._store.apply, entries)
        for outcome, lines in applied._asdict().items():
            metrics.LINES.labels(outcome).inc(lines)
        if applied.unpriced:
            await self._alerts.open()

    def _entry(self, record: Record) -> Entry:
        line = line_of(record)
        return Entry(record.partition, record.offset, line, price(line, self._prices))
