"""Builds the service: jobs, their stages and routes, the registry, and the gRPC door."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial

from penstock.errors import Unavailable
from penstock.kafka.broker import KafkaBroker
from penstock.kafka.consumer import TransactionalConsumer
from penstock.kafka.ends import LogEnds
from penstock.kafka.halts import HaltAlerts, Resumes
from penstock.kafka.publisher import KafkaPublisher
from penstock.kafka.reader import LogReader, Start
from penstock.kafka.transactions import TransactionalPublisher
from penstock.kafka.watch import ConsumerWatch
from penstock.records import Record
from penstock.rpc.server import Server, Service
from penstock.settings import SettingsError
from penstock.signing import KeyFileError, SigningKey
from penstock.sql import Database
from penstock.telemetry import configure_logs, configure_traces, logger, serve_metrics
from penstock.topics import topic_of
from penstock.v1 import rollouts_service_pb2, rollouts_service_pb2_grpc
from penstock_retrain.composition import Parts, compose_stages
from penstock_retrain.dataset.collector import Collector, CollectorConfig
from penstock_retrain.drift_door import DriftDoor
from penstock_retrain.errors import RetrainUnavailable
from penstock_retrain.jobs.desk import SqlDesk
from penstock_retrain.jobs.feed import JobFeed
from penstock_retrain.jobs.leases import Leases
from penstock_retrain.jobs.news import News
from penstock_retrain.jobs.opening import Opening
from penstock_retrain.jobs.outbox import Outbox
from penstock_retrain.jobs.policy import PolicyError, parse_policy
from penstock_retrain.jobs.route_plan import base_of
from penstock_retrain.jobs.route_publisher import RoutePublisher
from penstock_retrain.jobs.route_view import RouteView
from penstock_retrain.jobs.runner import Runner
from penstock_retrain.jobs.stages import Progress, Stage
from penstock_retrain.jobs.states import Job, JobState
from penstock_retrain.jobs.store import JobStore
from penstock_retrain.registry.lineage import LineageReader
from penstock_retrain.registry.mirror import MirrorError, Mirroring
from penstock_retrain.registry.store import Registry
from penstock_retrain.servicer import RolloutsServicer
from penstock_retrain.settings import RetrainSettings

__all__ = ["serve"]

log = logger(__name__)

GRACE_S = 5.0
DRAIN_S = 5.0
OBSERVE_RETRY_S = 1.0


async def serve(
    settings: RetrainSettings,
    compose: Callable[[Parts], Mapping[JobState, Stage]] = compose_stages,
) -> None:
    """Runs until SIGTERM or SIGINT.

    Raises:
        SettingsError: A setting cannot be used.
        RetrainUnavailable: The database cannot be used.
        ExceptionGroup: Kafka cannot be reached, or a part ended that should not have. The
            supervisor starts the process again, and its jobs go on where they were.
    """
    configure_logs("retrain", settings.log_level)
    configure_traces("retrain", settings)
    document = _policy(settings)
    key = await asyncio.to_thread(_key, settings)
    database = Database(settings.database_url, "retrain's database", RetrainUnavailable)
    store = await asyncio.to_thread(JobStore, database)
    service = _Service(settings, database, store, document, key, compose)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if settings.metrics_port:
        serve_metrics(settings.host, settings.metrics_port)
    await service.run(stop)


class _Service:
    """The parts of one process; see `penstock_retrain.jobs.runner.Listener` for the two verbs."""

    def __init__(
        self,
        settings: RetrainSettings,
        database: Database,
        store: JobStore,
        document: str,
        key: SigningKey,
        compose: Callable[[Parts], Mapping[JobState, Stage]],
    ) -> None:
        self._settings = settings
        owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._database, self._store = database, store
        self._registry = Registry(self._database)
        self._outbox = Outbox(self._database)
        self._view, self._feed = RouteView(), JobFeed()
        bootstrap = settings.kafka_bootstrap
        self._publisher = KafkaPublisher(bootstrap, "penstock-retrain")
        self._routes = RoutePublisher(
            self._outbox,
            Leases(self._database, owner),
            self._view,
            lambda model: TransactionalPublisher(
                bootstrap,
                "penstock-retrain-routes",
                f"{settings.topic_prefix}-retrain-routes-{model}",
            ),
            self._topic("routes"),
            moved=self.moved,
        )
        self._news = News(self._store, self._publisher, self._topic)
        desk = SqlDesk(self._store, self._outbox, self._view, self.moved)
        self._collector = _collector(settings)
        self._collecting: asyncio.Task[None] | None = None
        stages = compose(Parts(settings, desk, self._registry, key, self._collector, self._serving))
        self._runner = Runner(
            self._store,
            stages,
            owner,
            self,
            concurrent=settings.concurrent_jobs,
            lease_s=settings.lease_s,
            clean_after_s=settings.clean_after_s,
        )
        opening = Opening(self._store, lambda: document)
        self._server = _server(settings, self._servicer(opening))
        group = f"{settings.topic_prefix}-retrain"
        self._consumer = TransactionalConsumer(
            KafkaBroker(bootstrap, "penstock-retrain"),
            topic=self._topic("drift"),
            group=group,
            handler=DriftDoor(opening, self._topic("dlq"), self.moved),
            halts=HaltAlerts("retrain", group, self._topic("alerts")),
        )
        self._resumes = Resumes(group, self._topic("drift"), self._consumer.resume)
        self._mirroring = _mirroring(settings, self._registry, self._store)
        self._consuming = False

    def moved(self) -> None:
        """Has news told, routes carried out, and jobs looked for, now."""
        self._news.wake()
        self._routes.wake()
        self._runner.wake()

    def progressed(self, job: Job, progress: Progress) -> None:
        """Has progress told."""
        self._news.progressed(job, progress)

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, then gives everything back in order."""
        await self._publisher.start()
        try:
            async with asyncio.TaskGroup() as parts:
                working = parts.create_task(self._work(stop))
                stopped = parts.create_task(stop.wait())
                await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
                stopped.cancel()
                await self._server.stop(GRACE_S)
                # One that never began would be waited for in vain.
                if self._consuming:
                    await self._consumer.stop(DRAIN_S)
                if self._collecting is not None and stop.is_set():
                    # What it holds becomes files first; it bounds that by itself.
                    await asyncio.wait([self._collecting])
                working.cancel()
        finally:
            await self._publisher.stop()
            await asyncio.to_thread(self._database.close)

    async def _work(self, stop: asyncio.Event) -> None:
        port = await self._server.start()
        async with asyncio.TaskGroup() as parts:
            routes = self._read(parts, "routes", Start.BEGINNING, self._view.on_record)
            self._read(parts, "jobs", Start.END, self._feed.on_record)
            self._read(parts, "control", Start.BEGINNING, self._resumes.take)
            # No route may be made of one that was overtaken while nobody looked.
            await routes.wait()
            await self._observe_once()
            parts.create_task(self._observe())
            parts.create_task(self._routes.run())
            parts.create_task(self._news.run())
            parts.create_task(self._runner.run())
            if self._mirroring is not None:
                parts.create_task(self._mirroring.run())
            self._collecting = parts.create_task(self._collector.run(stop))
            self._consuming = True
            parts.create_task(self._consumer.run())
            ends = LogEnds(self._settings.kafka_bootstrap, self._topic("drift"))
            parts.create_task(ConsumerWatch.of(self._consumer, ends).run())
            await self._server.set_ready(True)
            log.info("serving", port=port)

    async def _observe(self) -> None:
        while True:
            await self._view.changed()
            try:
                await self._observe_once()
            except Unavailable as error:
                log.warning("routes wait to be noted", error=str(error))
                await asyncio.sleep(OBSERVE_RETRY_S)

    async def _observe_once(self) -> None:
        ended, routes = self._view.take_ended(), self._view.take_new()
        try:
            if ended:
                await asyncio.to_thread(self._outbox.forget, ended, time.time_ns() // 1000)
            await asyncio.to_thread(self._outbox.observe, routes)
        except BaseException:
            self._view.put_back(routes, ended)
            raise

    def _read(
        self, parts: asyncio.TaskGroup, name: str, start: Start, take: Callable[[Record], None]
    ) -> asyncio.Event:
        reader = LogReader(self._settings.kafka_bootstrap, self._topic(name), start=start)
        parts.create_task(reader.run(take))
        return reader.caught_up

    def _servicer(self, opening: Opening) -> RolloutsServicer:
        lineage = LineageReader(self._registry, self._store, self._outbox)
        return RolloutsServicer(
            self._store, opening, self._registry, lineage, self._feed, self.moved
        )

    def _serving(self, model: str) -> str:
        route = self._view.held(model)
        return base_of(route) if route is not None else ""

    def _topic(self, name: str) -> str:
        return topic_of(name).full_name(self._settings.topic_prefix)


def _policy(settings: RetrainSettings) -> str:
    if settings.policy is None:
        return ""
    try:
        document = settings.policy.read_text(encoding="utf-8")
        parse_policy(document)
    except (OSError, UnicodeDecodeError, PolicyError) as error:
        raise SettingsError(f"PENSTOCK_RETRAIN_POLICY={settings.policy}: {error}") from error
    return document


def _key(settings: RetrainSettings) -> SigningKey:
    try:
        return SigningKey.load_or_make(settings.signing_key)
    except KeyFileError as error:
        raise SettingsError(f"PENSTOCK_RETRAIN_SIGNING_KEY: {error}") from error


def _collector(settings: RetrainSettings) -> Collector:
    config = CollectorConfig(
        settings.kafka_bootstrap,
        settings.topic_prefix,
        settings.collected_url,
        keep_days=settings.collected_keep_days,
    )
    try:
        return Collector(config)
    except (ValueError, ImportError) as error:
        raise SettingsError(
            f"PENSTOCK_RETRAIN_COLLECTED_URL={settings.collected_url}: {error}"
        ) from error


def _mirroring(settings: RetrainSettings, registry: Registry, store: JobStore) -> Mirroring | None:
    if not settings.mlflow_uri:
        return None
    from penstock_retrain.registry.mlflow_mirror import MlflowMirror

    try:
        return Mirroring(registry, store, MlflowMirror(settings.mlflow_uri))
    except MirrorError as error:
        raise SettingsError(
            f"PENSTOCK_RETRAIN_MLFLOW_URI={settings.mlflow_uri}: {error}"
        ) from error


def _server(settings: RetrainSettings, servicer: RolloutsServicer) -> Server:
    name = rollouts_service_pb2.DESCRIPTOR.services_by_name["Rollouts"].full_name
    register = partial(rollouts_service_pb2_grpc.add_RolloutsServicer_to_server, servicer)
    return Server([Service(name, register)], host=settings.host, port=settings.grpc_port)
