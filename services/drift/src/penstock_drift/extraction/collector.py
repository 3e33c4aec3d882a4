"""Puts the extraction together: consumers, joins, ticks, policies."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping

from penstock.kafka.broker import KafkaBroker
from penstock.kafka.consumer import ReadAhead, TransactionalConsumer
from penstock.kafka.ends import LogEnds
from penstock.kafka.halts import HaltAlerts, Resumes
from penstock.kafka.ports import LogError, Publisher
from penstock.kafka.reader import LogReader, Start
from penstock.kafka.watch import ConsumerWatch
from penstock.pricing import PriceTable, PriceTableError
from penstock.records import Record
from penstock.telemetry import logger
from penstock.topics import topic_of
from penstock_drift.extraction.cursor import KafkaCursor
from penstock_drift.extraction.extract import Extraction, Plan, plan_of
from penstock_drift.extraction.idle import IdleSources, Topic
from penstock_drift.extraction.joins import Join, Table
from penstock_drift.extraction.lines import Lines, Step
from penstock_drift.extraction.steps import (
    FeedbackStep,
    Parts,
    ResponseStep,
    admitted_name,
    response_name,
)
from penstock_drift.policy.document import Policy
from penstock_drift.policy.relay import Relay
from penstock_drift.records.signal_wire import SignalWriter
from penstock_drift.settings import DriftSettings
from penstock_drift.signals.catalogue import CATALOGUE
from penstock_drift.signals.language import language_of

__all__ = ["Collector", "prices_of"]

log = logger(__name__)

SOURCES = ("responses", "feedback")
RETRY_S = 2.0
DRAIN_S = 5.0
LEAVE_S = 5.0
READ_AHEAD = ReadAhead(records=2000, value_bytes=32 * 1024 * 1024)
COUNT_S = 30.0


def prices_of(settings: DriftSettings) -> PriceTable | None:
    """The price table; None where there is none, and then costs are not watched."""
    try:
        return PriceTable.parse(settings.prices.read_text(encoding="utf-8"))
    except (OSError, PriceTableError) as error:
        log.warning("costs are not watched", path=str(settings.prices), error=str(error))
        return None


class Collector:
    """Draws signals from `responses` and `feedback` into `signals`, each record exactly once.

    1. Policies are read to their end, and brought into `signals`, as routes are.
    2. Two groups consume; each record's observations and ticks are committed with its offset.
    3. Sources without traffic tell their ticks by the clock.

    Args:
        settings: Where Kafka is, and how long joins remember.
        publisher: Writes policies, routes and the ticks of idle sources; started by the caller.
    """

    def __init__(self, settings: DriftSettings, publisher: Publisher) -> None:
        self._settings = settings
        self._publisher = publisher
        self._ends = {
            name: LogEnds(settings.kafka_bootstrap, self._topic(name))
            for name in (*SOURCES, "signals")
        }
        self._writer = SignalWriter(self._topic("signals"), 0)
        self._relay = Relay(self._writer, publisher)
        self._sources = 0
        self._consuming = False
        self._planned: tuple[Policy, Plan] | None = None
        self._parts = Parts(
            Extraction(prices_of(settings)), self._writer, self._plan, lambda: self._sources
        )
        self._lines = {name: self._make_lines(name) for name in SOURCES}
        self._consumers = {name: self._make_consumer(name) for name in SOURCES}

    @property
    def writer(self) -> SignalWriter:
        """Makes records of `signals`; it knows the partitions once the collector runs."""
        return self._writer

    def policy(self) -> Policy:
        """The policy in force."""
        return self._relay.policy

    async def run(self, stop: asyncio.Event) -> None:
        """Draws until `stop` is set, then ends what is under way.

        Raises:
            ExceptionGroup: A part ended that should not have.
        """
        # Loads the language model before anything waits for it.
        await asyncio.to_thread(language_of, "which language may this be?")
        try:
            async with asyncio.TaskGroup() as parts:
                working = parts.create_task(self._work())
                await _first(stop, working)
                await self._drain()
                working.cancel()
        finally:
            # Only now: whoever still works would connect again.
            await asyncio.gather(*(lines.close() for lines in self._lines.values()))
            await asyncio.gather(*(ends.stop() for ends in self._ends.values()))
        log.info("drawing stopped")

    async def _work(self) -> None:
        await self._count_patiently()
        policies, routes, commands = (
            LogReader(self._settings.kafka_bootstrap, self._topic(name), start=Start.BEGINNING)
            for name in ("policies", "routes", "control")
        )
        resumes = [
            Resumes(self._group(name), self._topic(name), self._consumers[name].resume)
            for name in SOURCES
        ]

        def resume(record: Record) -> None:
            for each in resumes:
                each.take(record)

        idle = IdleSources(
            [
                Topic(name, self._consumers[name].standing, self._lines[name], self._ends[name])
                for name in SOURCES
            ],
            self._parts,
            self._publisher,
        )
        async with asyncio.TaskGroup() as parts:
            parts.create_task(policies.run(self._relay.take_policy))
            parts.create_task(routes.run(self._relay.take_route))
            parts.create_task(commands.run(resume))
            await policies.caught_up.wait()
            parts.create_task(self._relay.run())
            self._consuming = True
            for name in SOURCES:
                consumer = self._consumers[name]
                parts.create_task(consumer.run())
                watch = ConsumerWatch.of(consumer, self._ends[name])
                parts.create_task(watch.run())
            parts.create_task(idle.run())
            parts.create_task(self._recount())
            log.info("drawing signals", sources=self._sources, partitions=self._writer.partitions)

    async def _drain(self) -> None:
        async def stop(consumer: TransactionalConsumer) -> None:
            try:
                async with asyncio.timeout(DRAIN_S + LEAVE_S):
                    await consumer.stop(DRAIN_S)
            except TimeoutError:
                # What is not committed is delivered again, to whoever owns the partition then.
                log.warning("a consumer did not stop in time")

        if self._consuming:
            await asyncio.gather(*(stop(consumer) for consumer in self._consumers.values()))

    def _plan(self) -> Plan:
        policy = self._relay.policy
        if self._planned is None or self._planned[0] is not policy:
            self._planned = policy, plan_of(policy, CATALOGUE)
        return self._planned[1]

    def _make_lines(self, name: str) -> Lines:
        return Lines(
            functools.partial(self._make_step, name),
            dlq=self._topic("dlq"),
            group=self._group(name),
        )

    def _make_step(self, name: str, number: int) -> Step:
        s = self._settings
        other, ttl_s = (
            ("admitted", s.request_ttl_s)
            if name == "responses"
            else ("responses", s.feedback_ttl_s)
        )
        cursor = KafkaCursor(s.kafka_bootstrap, self._topic(other), number)
        table = Table(round(ttl_s * 1000), s.join_bytes)
        if name == "responses":
            return ResponseStep(self._parts, Join(cursor, table, admitted_name, once=True), number)
        return FeedbackStep(self._parts, Join(cursor, table, response_name, once=False), number)

    def _make_consumer(self, name: str) -> TransactionalConsumer:
        group = self._group(name)
        return TransactionalConsumer(
            KafkaBroker(self._settings.kafka_bootstrap, f"penstock-drift-{name}"),
            topic=self._topic(name),
            group=group,
            handler=self._lines[name],
            read_ahead=READ_AHEAD,
            halts=HaltAlerts("drift", group, self._topic("alerts")),
        )

    async def _count_patiently(self) -> None:
        while True:
            try:
                await self._count()
            except LogError as error:
                log.warning("waiting for Kafka", error=str(error))
            if self._sources and self._writer.partitions:
                return
            log.warning("waiting for topics; create them with: penstock topics apply")
            await asyncio.sleep(RETRY_S)

    async def _recount(self) -> None:
        # Partitions may be added while this runs.
        while True:
            await asyncio.sleep(COUNT_S)
            try:
                await self._count()
            except LogError as error:
                log.warning("partitions are not known", error=str(error))

    async def _count(self) -> None:
        ends: Mapping[str, Mapping[int, int]] = {
            name: await each.read() for name, each in self._ends.items()
        }
        self._sources = sum(len(ends[name]) for name in SOURCES)
        self._relay.count(len(ends["signals"]))

    def _topic(self, name: str) -> str:
        return topic_of(name).full_name(self._settings.topic_prefix)

    def _group(self, name: str) -> str:
        return f"{self._settings.topic_prefix}-drift-{name}"


async def _first(stop: asyncio.Event, working: asyncio.Task[None]) -> None:
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([stopped, working], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
