"""What drift does besides finding: its doors, remedies, the self-test. A composition root.

None of it is in the way of fold and judge: it reads their topics without a group, or in a group of
its own, and any worker can do it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial

from penstock.incidents import AlertBook, name_of
from penstock.kafka.broker import KafkaBroker
from penstock.kafka.consumer import TransactionalConsumer
from penstock.kafka.ends import LogEnds
from penstock.kafka.halts import HaltAlerts, Resumes
from penstock.kafka.ports import Publisher
from penstock.kafka.reader import LogReader, Start
from penstock.kafka.watch import ConsumerWatch
from penstock.records import Record
from penstock.rpc.server import Server, Service
from penstock.telemetry import logger
from penstock.topics import topic_of
from penstock.v1 import drift_service_pb2, drift_service_pb2_grpc
from penstock_drift import metrics
from penstock_drift.notify.alertmanager import Forwarder, addresses
from penstock_drift.policy.document import Policy, Severity
from penstock_drift.records.signal_wire import SignalWriter
from penstock_drift.remedies.agent import RemedyAgent
from penstock_drift.remedies.view import RemedyView
from penstock_drift.selftest.agent import SelfTestAgent
from penstock_drift.servicer import DriftServicer
from penstock_drift.settings import DriftSettings
from penstock_drift.signals.catalogue import CATALOGUE
from penstock_drift.views.feed import IncidentFeed, SignalView
from penstock_drift.views.statuses import SavedStatuses

__all__ = ["Doors"]

log = logger(__name__)

GRACE_S = 5.0
DRAIN_S = 5.0
COUNT_S = 10.0


class Doors:
    """The gRPC door, Alertmanager, remedies and the self-test of one worker.

    Args:
        settings: Where Kafka and Alertmanagers are, and what to listen on.
        publisher: Writes the self-test's values and alerts.
        policy: Gives the policy in force.
        writer: Makes records of `signals`.

    Raises:
        SettingsError: An Alertmanager's address is none.
    """

    def __init__(
        self,
        settings: DriftSettings,
        publisher: Publisher,
        policy: Callable[[], Policy],
        writer: SignalWriter,
    ) -> None:
        self._settings = settings
        self._feed, self._view, self._remedies = IncidentFeed(), SignalView(), RemedyView()
        targets = addresses(settings.alertmanager_url)
        self._forwarder = (
            Forwarder(self._feed, targets, repeat_s=settings.alertmanager_repeat_s)
            if targets
            else None
        )
        self._self_test = SelfTestAgent(writer, publisher, policy, self._topic("alerts"))
        servicer = DriftServicer(self._feed, self._view, SavedStatuses(CATALOGUE, policy))
        self._server = _server(settings, servicer)
        group = f"{settings.topic_prefix}-drift-remedies"
        self._consumer = TransactionalConsumer(
            KafkaBroker(settings.kafka_bootstrap, "penstock-drift-remedies"),
            topic=self._topic("drift"),
            group=group,
            handler=RemedyAgent(self._remedies, policy, settings.topic_prefix),
            halts=HaltAlerts("drift", group, self._topic("alerts")),
        )
        self._resumes = Resumes(group, self._topic("drift"), self._consumer.resume)
        self._consuming = False

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until `stop` is set, then ends what is under way.

        Raises:
            ExceptionGroup: A part ended that should not have.
        """
        async with asyncio.TaskGroup() as parts:
            working = parts.create_task(self._work())
            stopped = parts.create_task(stop.wait())
            await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            await self._server.stop(GRACE_S)
            # One that never began would be waited for in vain.
            if self._consuming:
                await self._consumer.stop(DRAIN_S)
            working.cancel()

    async def _work(self) -> None:
        port = await self._server.start()
        async with asyncio.TaskGroup() as parts:
            caught_up = [
                self._read(parts, name, start, *takers)
                for name, start, takers in (
                    (
                        "alerts",
                        Start.BEGINNING,
                        (self._feed.on_alert, self._remedies.on_alert, self._self_test.on_alert),
                    ),
                    ("alert_actions", Start.BEGINNING, (self._feed.on_action,)),
                    ("drift_state", Start.BEGINNING, (self._view.on_state,)),
                    ("drift", Start.BEGINNING, (self._view.on_event, self._self_test.on_event)),
                    ("evidence", Start.END, (self._self_test.on_evidence,)),
                    ("routes", Start.BEGINNING, (self._remedies.on_route,)),
                    ("control", Start.BEGINNING, (self._resumes.take,)),
                )
            ]
            # A remedy must not be carried out twice for want of having read that it was.
            await asyncio.gather(*(each.wait() for each in caught_up))
            await self._server.set_ready(True)
            log.info("serving", port=port)
            self._consuming = True
            parts.create_task(self._consumer.run())
            ends = LogEnds(self._settings.kafka_bootstrap, self._topic("drift"))
            parts.create_task(ConsumerWatch.of(self._consumer, ends).run())
            parts.create_task(self._self_test.run())
            parts.create_task(self._count())
            if self._forwarder is not None:
                parts.create_task(self._forwarder.run())

    def _read(
        self,
        parts: asyncio.TaskGroup,
        name: str,
        start: Start,
        *takers: Callable[[Record], None],
    ) -> asyncio.Event:
        reader = LogReader(self._settings.kafka_bootstrap, self._topic(name), start=start)

        def on_record(record: Record) -> None:
            for take in takers:
                take(record)

        parts.create_task(reader.run(on_record))
        return reader.caught_up

    async def _count(self) -> None:
        while True:
            _show(self._feed.book)
            await asyncio.sleep(COUNT_S)

    def _topic(self, name: str) -> str:
        return topic_of(name).full_name(self._settings.topic_prefix)


def _show(book: AlertBook) -> None:
    open_ = Counter(name_of(incident.severity) for incident in book.incidents(resolved=False))
    for severity in Severity:
        metrics.OPEN_INCIDENTS.labels(severity.value).set(open_[severity.value])
    judged = book.judged("drift")
    for verdict in ("real", "false", "unjudged"):
        metrics.JUDGED_INCIDENTS.labels(verdict).set(getattr(judged, verdict))
    metrics.FALSE_ALARM_RATE.set(judged.rate)


def _server(settings: DriftSettings, servicer: DriftServicer) -> Server:
    name = drift_service_pb2.DESCRIPTOR.services_by_name["Drift"].full_name
    register = partial(drift_service_pb2_grpc.add_DriftServicer_to_server, servicer)
    return Server([Service(name, register)], host=settings.host, port=settings.grpc_port)
