"""Alerts about models without a price: one opened per model, resolved when its lines are priced."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable

from penstock.kafka.halts import alert_record
from penstock.kafka.ports import Publisher
from penstock.telemetry import logger
from penstock.v1 import alert_pb2
from penstock_cost import metrics
from penstock_cost.store import LedgerStore
from penstock_cost.wire import missing_price_alert

__all__ = ["Alerts"]

log = logger(__name__)


class Alerts:
    """Tells people what the ledger notes. At least once: a repeat carries the same alert id.

    Args:
        store: What is to be told, and what was.
        publisher: Writes the alerts.
        topic: The full name of `alerts`.
        clock: The time now, UTC.
    """

    def __init__(
        self,
        store: LedgerStore,
        publisher: Publisher,
        topic: str,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._topic = topic
        self._clock = clock

    async def open(self) -> None:
        """Tells of each model without a price that nobody was told of.

        Raises:
            LogError: One could not be written; it is told the next time.
        """
        for model, lines in (await asyncio.to_thread(self._store.unpriced_lines)).items():
            metrics.UNPRICED.labels(model).set(lines)
        for missing in await asyncio.to_thread(self._store.to_alert):
            log.error("a model has no price", model=missing.model, reason=missing.reason)
            alert = missing_price_alert(missing.model, missing.reason, missing.since_us)
            await self._publish(alert)
            await asyncio.to_thread(self._store.alerted, missing.model)

    async def resolve(self) -> None:
        """Tells of each model whose lines are priced now.

        Raises:
            LogError: One could not be written; it is told the next time.
        """
        for missing in await asyncio.to_thread(self._store.to_resolve):
            log.info("a model has its price", model=missing.model)
            alert = missing_price_alert(
                missing.model, missing.reason, missing.since_us, resolved_at=self._clock()
            )
            await self._publish(alert)
            await asyncio.to_thread(self._store.resolved, missing.model)

    async def _publish(self, alert: alert_pb2.Alert) -> None:
        await self._publisher.publish([alert_record(alert, self._topic)])
