"""Builds the service: extraction, folds, the judge, and the doors, in one loop."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial
from typing import Any

from penstock.kafka.ends import LogEnds
from penstock.kafka.gate import dead_letters
from penstock.kafka.publisher import KafkaPublisher
from penstock.kafka.watch import ConsumerWatch
from penstock.memory import collect_seldom
from penstock.records import Partition
from penstock.streams import consume, make_app, on_assignment, read_to, run
from penstock.telemetry import configure_logs, configure_traces, logger, serve_metrics
from penstock.topics import topic_of
from penstock_drift.channels.bank import CatalogueBank
from penstock_drift.doors import Doors
from penstock_drift.extraction.collector import Collector
from penstock_drift.settings import DriftSettings
from penstock_drift.signals.catalogue import CATALOGUE
from penstock_drift.worker.fold_agent import FoldAgent
from penstock_drift.worker.judge_agent import JudgeAgent
from penstock_drift.worker.state_store import KafkaStateStore
from penstock_drift.worker.turns import Turns

__all__ = ["serve"]

log = logger(__name__)

# A state is read within two minutes, and a handler may have to read one.
STALLED_S = 180.0


async def serve(settings: DriftSettings) -> None:
    """Runs until SIGTERM or SIGINT.

    1. The collector draws `signals` from `responses` and `feedback`, each record exactly once.
    2. Folds, one per partition of `signals`, give evidence; their state is on `drift_state`.
    3. One judge among all workers turns evidence into `drift` and `alerts`.
    4. Doors show it all; remedies and the self-test go by what is on the log.

    Raises:
        SettingsError: A setting cannot be used.
        ExceptionGroup: Kafka cannot be reached, what must be written cannot, or a consumer stood
            still. The supervisor starts the process again, and it goes on where it was.
    """
    configure_logs("drift", settings.log_level)
    configure_traces("drift", settings)
    publisher = KafkaPublisher(settings.kafka_bootstrap, "penstock-drift")
    collector = Collector(settings, publisher)
    doors = Doors(settings, publisher, collector.policy, collector.writer)
    detection = _Detection(settings, publisher)
    stop = asyncio.Event()
    try:
        if settings.metrics_port:
            serve_metrics(settings.host, settings.metrics_port)
        await publisher.start()
        collect_seldom()
        async with asyncio.TaskGroup() as parts:
            parts.create_task(detection.run(stop))
            parts.create_task(collector.run(stop))
            parts.create_task(doors.run(stop))
    finally:
        await publisher.stop()


class _Detection:
    """Folds and judge under faust, each with a watchdog.

    Args:
        settings: Where Kafka is.
        publisher: Writes evidence and dead letters; started by the caller.
    """

    def __init__(self, settings: DriftSettings, publisher: KafkaPublisher) -> None:
        self._settings = settings
        self._publisher = publisher
        self._ends = {
            name: LogEnds(settings.kafka_bootstrap, self._topic(name))
            for name in ("signals", "evidence")
        }
        self._folds = FoldAgent(
            CatalogueBank(CATALOGUE),
            publisher,
            self._fold_store,
            self._partitions,
            settings.topic_prefix,
            save_s=settings.save_s,
        )
        self._judge = JudgeAgent(CATALOGUE, self._judge_store, settings.topic_prefix)

    async def run(self, stop: asyncio.Event) -> None:
        """Folds and judges until a signal comes, and sets `stop` then.

        Raises:
            ExceptionGroup: It could not go on.
        """
        group = f"{self._settings.topic_prefix}-drift"
        app = make_app(group, self._settings)
        turns = {
            "signals": Turns(self._folds.handle, partial(read_to, app, self._topic("signals"))),
            "evidence": Turns(self._judge.handle, partial(read_to, app, self._topic("evidence"))),
        }
        kept_to = {
            "signals": self._folds.tenures.kept_to,
            "evidence": self._judge.tenures.kept_to,
        }
        letters = dead_letters(self._settings, self._publisher, service="drift", group=group)
        for name, handle in turns.items():
            consume(
                app,
                self._topic(name),
                handle,
                dead_letters=letters,
                max_batch=self._settings.max_batch,
                kept_to=kept_to[name],
            )
        on_assignment(app, self._dealt)
        try:
            async with asyncio.TaskGroup() as parts:
                watches = [
                    parts.create_task(self._watch(name, turn).run()) for name, turn in turns.items()
                ]
                await self._run(app)
                for watch in watches:
                    watch.cancel()
        finally:
            stop.set()
            await asyncio.gather(self._folds.tenures.end(), self._judge.tenures.end())
            await asyncio.gather(*(each.stop() for each in self._ends.values()))

    async def _run(self, app: Any) -> None:
        async def started() -> None:
            log.info("folding and judging")

        await run(app, started=started)

    def _watch(self, name: str, turns: Turns) -> ConsumerWatch:
        # Connections of its own: those that stopped hearing of anything would not hear of that.
        ends = LogEnds(self._settings.kafka_bootstrap, self._topic(name))
        return ConsumerWatch(turns.standing, ends, limit_s=STALLED_S)

    def _dealt(self, partitions: Collection[Partition]) -> None:
        self._folds.dealt(partitions)
        self._judge.tenures.dealt(partitions)

    async def _partitions(self) -> int:
        return len(await self._ends["signals"].read())

    def _fold_store(self, number: int) -> KafkaStateStore:
        return self._store("drift_state", number, f"drift-fold-{number}")

    def _judge_store(self) -> KafkaStateStore:
        return self._store("judge_state", 0, "drift-judge")

    def _store(self, name: str, number: int, owner: str) -> KafkaStateStore:
        prefix = self._settings.topic_prefix
        return KafkaStateStore(
            self._settings.kafka_bootstrap, self._topic(name), number, f"{prefix}-{owner}"
        )

    def _topic(self, name: str) -> str:
        return topic_of(name).full_name(self._settings.topic_prefix)
