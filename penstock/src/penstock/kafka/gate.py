"""Holds a consumer that met its limit on dead letters until somebody lets it go on."""

from __future__ import annotations

import asyncio
import datetime as dt
import time

from penstock.kafka import metrics
from penstock.kafka.guard import DeadLetters
from penstock.kafka.halts import HaltAlerts, Resumes, resume_command
from penstock.kafka.limits import Breach
from penstock.kafka.ports import Publisher
from penstock.kafka.reader import LogReader, Start
from penstock.records import Partition
from penstock.settings import Settings
from penstock.telemetry import logger
from penstock.topics import topic_of

__all__ = ["ResumeGate", "dead_letters"]

log = logger(__name__)

# The command's time is the clock of whoever types it; its record is looked for from before the
# halt on, and `requested_at` decides.
SKEW = dt.timedelta(minutes=5)


def dead_letters(
    settings: Settings, publisher: Publisher, *, service: str, group: str
) -> DeadLetters:
    """Where a service's dead letters go, with a gate that `penstock consumers resume` opens.

    Args:
        settings: Where Kafka is, and what topics' names begin with.
        publisher: Writes letters and alerts.
        service: Who gives records up.
        group: Its consumer group.
    """
    prefix = settings.topic_prefix
    alerts = HaltAlerts(service, group, topic_of("alerts").full_name(prefix))
    control = topic_of("control").full_name(prefix)
    gate = ResumeGate(settings.kafka_bootstrap, publisher, alerts, control)
    return DeadLetters(publisher, topic_of("dlq").full_name(prefix), service, group, gate)


class ResumeGate:
    """Tells people of a halt and waits for their command, for consumers without a transaction.

    The halt lives in this process only: a restart, as a deploy of the mended service is one, tries
    again with an empty window, and halts again if nothing was mended.

    Args:
        bootstrap: Kafka's bootstrap servers.
        publisher: Writes the alerts.
        alerts: Makes them.
        control: The full name of `control`.
    """

    def __init__(
        self, bootstrap: str, publisher: Publisher, alerts: HaltAlerts, control: str
    ) -> None:
        self._bootstrap = bootstrap
        self._publisher = publisher
        self._alerts = alerts
        self._control = control

    async def hold(self, partition: Partition, breach: Breach) -> None:
        """Returns when a `Resume` that is later than the halt was read.

        Raises:
            LogError: An alert could not be written.
        """
        halted_at_ms = time.time_ns() // 1_000_000
        log.error(
            "the consumer halts",
            topic=partition.topic,
            partition=partition.number,
            reason=str(breach),
            remedy=resume_command(self._alerts.group, partition),
        )
        halted = metrics.HALTED.labels(*partition)
        halted.set(1)
        try:
            await self._publisher.publish(self._alerts.opened(partition, breach, halted_at_ms))
            await self._command(partition, halted_at_ms)
            await self._publisher.publish(self._alerts.resolved(partition, halted_at_ms))
        finally:
            halted.set(0)
        log.warning("the consumer goes on", topic=partition.topic, partition=partition.number)

    async def _command(self, partition: Partition, halted_at_ms: int) -> None:
        found = asyncio.Event()

        def resume(number: int | None, at_ms: int) -> None:
            if number in (None, partition.number) and at_ms > halted_at_ms:
                found.set()

        commands = Resumes(self._alerts.group, partition.topic, resume)
        start = Start.at(dt.datetime.fromtimestamp(halted_at_ms / 1000, dt.UTC) - SKEW)
        reader = LogReader(self._bootstrap, self._control, start=start)
        reading = asyncio.create_task(reader.run(commands.take))
        try:
            await found.wait()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
