"""The composition root of ingest: builds the parts, starts them in order, stops them in reverse."""

from __future__ import annotations

import asyncio
import datetime as dt
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import uvloop

from penstock.kafka.broker import KafkaBroker
from penstock.kafka.consumer import ReadAhead, TransactionalConsumer
from penstock.kafka.ends import LogEnds
from penstock.kafka.halts import HaltAlerts, Resumes
from penstock.kafka.ports import LogError
from penstock.kafka.probe import KafkaProbe
from penstock.kafka.publisher import KafkaPublisher
from penstock.kafka.reader import LogReader, Start
from penstock.kafka.watch import ConsumerWatch
from penstock.measures import Kind, Measures
from penstock.memory import collect_seldom
from penstock.records import Record
from penstock.routing import RouteTable
from penstock.rpc.server import Server, Service
from penstock.telemetry import configure_logs, configure_traces, logger, serve_metrics
from penstock.topics import topic_of
from penstock.v1 import inference_service_pb2_grpc
from penstock_ingest import metrics
from penstock_ingest.admission.pipeline import Admission
from penstock_ingest.admission.quota import TenantQuota
from penstock_ingest.admission.shedding import Shedding
from penstock_ingest.desk import SOURCE, Desk
from penstock_ingest.doors.http import make_http
from penstock_ingest.doors.kafka_door import KafkaDoor
from penstock_ingest.doors.servicer import SERVICE_NAME, InferenceServicer
from penstock_ingest.doors.web import WebServer
from penstock_ingest.health.board import Board, Policy
from penstock_ingest.health.incidents import ModelIncidents
from penstock_ingest.health.prober import Prober
from penstock_ingest.health.readiness import Readiness
from penstock_ingest.log_view import LogView
from penstock_ingest.settings import IngestSettings
from penstock_ingest.waiting.index import KnownIds, ResponseIndex
from penstock_ingest.waiting.waiters import Waiters

__all__ = ["App", "run"]

log = logger(__name__)

RETRY_S = (0.5, 10.0)  # first and longest wait for a Kafka that is not there yet
LEAVE_S = 5.0  # what leaving the group may take beyond the drain
SAY_S = 10.0  # how often a wait that goes on is logged


def run(settings: IngestSettings) -> None:
    """Serves until SIGTERM or SIGINT, then drains within the settings' bound.

    Raises:
        OSError: A port is taken.
        ExceptionGroup: A part ended that should not have.
    """
    configure_logs(SOURCE, settings.log_level)
    configure_traces(SOURCE, settings)
    if settings.metrics_port:
        serve_metrics(settings.host, settings.metrics_port)
    collect_seldom()
    uvloop.run(_serve(settings))


async def _serve(settings: IngestSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await App(settings).run(stop)


class App:
    """The service.

    1. Doors listen at once, so that health can be asked, and refuse until the rest is there.
    2. The publisher connects; routes, the index and this instance's replies are read to their end.
    3. Readiness opens the desk; the Kafka door joins its group; variants are probed.
    """

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = s = settings
        self._routes = RouteTable()
        admission = Admission(
            self._routes,
            max_request_bytes=s.max_request_bytes,
            default_timeout_s=s.default_timeout_s,
            max_timeout_s=s.max_timeout_s,
            default_max_tokens=s.default_max_tokens,
        )
        waiters = Waiters(s.max_waiting)
        index = ResponseIndex(s.response_window_s, s.response_window_bytes)
        known = KnownIds(s.response_window_s)
        quota = TenantQuota(s.max_queued_per_tenant)
        metrics.QUEUED.set_function(lambda: float(len(quota)))
        self._measures = Measures()
        shedding = Shedding(self._measures)
        self._publisher = KafkaPublisher(s.kafka_bootstrap, f"penstock-ingest-{s.ordinal}")
        self._desk = Desk(
            admission=admission,
            waiters=waiters,
            index=index,
            known=known,
            quota=quota,
            publisher=self._publisher,
            topic_prefix=s.topic_prefix,
            reply_partition=s.ordinal,
            clock=_now,
            return_s=s.return_s,
            shedding=shedding,
        )
        board = Board(Policy(s.probe_interval_s, s.probe_failures, s.probe_patience_s))
        incidents = ModelIncidents(
            self._publisher, topic_prefix=s.topic_prefix, ordinal=s.ordinal, clock=_now
        )
        self._prober = Prober(
            board,
            self._routes,
            self._publisher,
            incidents,
            topic_prefix=s.topic_prefix,
            reply_partition=s.ordinal,
            timeout_s=s.probe_timeout_s,
            closed=lambda: self._desk.closed,
            clock=_now,
        )
        self._view = LogView(
            routes=self._routes,
            waiters=waiters,
            index=index,
            known=known,
            quota=quota,
            clock=_now,
            probes=self._prober.reply,
            answered=board.seen,
            alerts=incidents.read,
        )
        servicer = InferenceServicer(self._desk)
        register = partial(inference_service_pb2_grpc.add_InferenceServicer_to_server, servicer)
        self._grpc = Server([Service(SERVICE_NAME, register)], host=s.host, port=s.grpc_port)
        self._probe = KafkaProbe(s.kafka_bootstrap)
        self._readiness = Readiness(
            self._desk,
            self._routes,
            board,
            self._log_answers,
            self._grpc.set_ready,
            probed=s.probe_interval_s > 0,
        )
        web = make_http(
            self._desk, max_request_bytes=s.max_request_bytes, health=self._readiness.body
        )
        self._web = WebServer(web, host=s.host, port=s.http_port)
        door = KafkaDoor(
            admission=admission,
            known=known,
            quota=quota,
            topic_prefix=s.topic_prefix,
            clock=_now,
            shedding=shedding,
        )
        client_id = f"penstock-ingest-{s.ordinal}"
        group = f"{s.topic_prefix}-ingest"
        self._consumer = TransactionalConsumer(
            KafkaBroker(s.kafka_bootstrap, client_id, instance_id=client_id),
            topic=self._topic("requests"),
            group=group,
            handler=door,
            read_ahead=ReadAhead(records=s.kafka_in_flight),
            halts=HaltAlerts("ingest", group, self._topic("alerts")),
        )
        self._resumes = Resumes(group, self._topic("requests"), self._consumer.resume)
        self._readers = self._make_readers()
        self._opening: list[asyncio.Task[None]] = []
        self._reading: list[asyncio.Task[None]] = []
        self._consuming: asyncio.Task[None] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until `stop` is set.

        Raises:
            OSError: A port is taken.
            ExceptionGroup: A part ended that should not have.
        """
        grpc_port = await self._grpc.start()
        http_port = await self._web.start()
        log.info("listening", host=self._settings.host, grpc=grpc_port, http=http_port)
        async with asyncio.TaskGroup() as parts:
            self._opening.append(parts.create_task(self._start(parts)))
            await stop.wait()
            await self._stop()
        await self._publisher.stop()
        log.info("stopped")

    async def _start(self, parts: asyncio.TaskGroup) -> None:
        await self._connect()
        for reader, take in self._readers:
            self._reading.append(parts.create_task(reader.run(take)))
        caught_up = [reader.caught_up.is_set for reader, _ in self._readers]
        await _until(lambda: all(done() for done in caught_up), "the log is read to its end")
        await _until(
            lambda: len(self._routes) > 0, "a route is there; write one: penstock routes apply"
        )
        self._opening.append(parts.create_task(self._readiness.run()))
        if self._settings.probe_interval_s:
            self._opening.append(parts.create_task(self._prober.run()))
        if self._settings.kafka_door:
            self._consuming = parts.create_task(self._consumer.run())
            topic = self._topic("requests")
            ends = LogEnds(self._settings.kafka_bootstrap, topic)
            watch = ConsumerWatch.of(self._consumer, ends)
            self._opening.append(parts.create_task(watch.run()))

    async def _stop(self) -> None:
        drain_s = self._settings.drain_s
        log.info("stopping", bound_s=drain_s)
        # First, so that neither opens the desk again.
        for task in self._opening:
            task.cancel()
        await self._readiness.set("stopping")
        self._desk.stop()
        # The readers go on: calls under way still wait for what they bring.
        await asyncio.gather(
            self._stop_consuming(drain_s), self._grpc.stop(drain_s), self._web.stop(drain_s)
        )
        for task in self._reading:
            task.cancel()

    async def _log_answers(self) -> bool:
        # A broker may answer while what this instance writes does not get through.
        return self._publisher.can_write and await self._probe.answers()

    async def _stop_consuming(self, drain_s: float) -> None:
        if self._consuming is None:
            return
        try:
            async with asyncio.timeout(drain_s + LEAVE_S):
                await self._consumer.stop(drain_s)
        except TimeoutError:
            # What is not committed is delivered again, to whoever owns the partition then.
            log.warning("the Kafka door did not stop in time")
            self._consuming.cancel()

    async def _connect(self) -> None:
        wait_s = RETRY_S[0]
        while True:
            try:
                await self._publisher.start()
            except LogError as error:
                log.warning("waiting for Kafka", wait_s=wait_s, error=str(error))
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_S[1])
            else:
                return

    def _make_readers(self) -> list[tuple[LogReader, Callable[[Record], None]]]:
        """Readers with those who take their records in, for the life of the process."""
        s, view = self._settings, self._view
        window = Start.at(_now() - dt.timedelta(seconds=s.response_window_s))
        own = [s.ordinal]

        def reader(name: str, **how: Any) -> LogReader:
            return LogReader(s.kafka_bootstrap, self._topic(name), **how)

        return [
            (reader("routes", start=Start.BEGINNING), view.route),
            (reader("admitted", start=window), view.admitted),
            (reader("responses", start=window), view.response),
            (reader("replies", start=Start.END, partitions=own), view.reply),
            (reader("alerts", start=Start.BEGINNING), view.alert),
            (reader("control", start=Start.BEGINNING), self._command),
            (
                reader("tokens", start=Start.END, partitions=own, read_committed=False),
                view.chunk,
            ),
        ]

    def _command(self, record: Record) -> None:
        self._resumes.take(record)
        if self._measures.take(record):
            for each in self._measures.in_force(_now(), Kind.SHED):
                log.warning(
                    "requests are shed",
                    model=each.model,
                    measure=each.measure_id,
                    until=each.until.isoformat(),
                    requested_by=each.requested_by,
                )

    def _topic(self, name: str) -> str:
        return topic_of(name).full_name(self._settings.topic_prefix)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


async def _until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition that others bring about, and says so while it lasts."""
    loop = asyncio.get_running_loop()
    say_at = loop.time() + SAY_S
    while not condition():
        if loop.time() >= say_at:
            log.warning("waiting until", condition=what)
            say_at = loop.time() + SAY_S
        await asyncio.sleep(0.05)
