"""The two Ray Serve deployments and the directory actor between them.

The pump finds engine replicas through the directory and talks to them on streams of its own; Ray
keeps placement, restarts, health and rollout.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial

import ray
from ray import serve

from penstock.kafka.broker import KafkaBroker
from penstock.kafka.consumer import TransactionalConsumer
from penstock.kafka.publisher import KafkaPublisher
from penstock.rpc.server import Server, Service
from penstock.telemetry import configure_logs, configure_traces, logger, serve_metrics
from penstock.topics import topic_of
from penstock.v1 import engine_service_pb2_grpc
from penstock_inference.answers import Answers
from penstock_inference.directory import (
    ACTOR_NAME,
    ANNOUNCE_S,
    Announcement,
    Directory,
    DirectoryClient,
)
from penstock_inference.engine_servicer import EngineServicer
from penstock_inference.generation import Engine
from penstock_inference.pool import MAX_MESSAGE_BYTES, EnginePool
from penstock_inference.pump import Pump
from penstock_inference.scripted import ScriptedEngine
from penstock_inference.settings import InferenceSettings
from penstock_inference.tokens import TokenSender

__all__ = ["DirectoryActor", "EngineReplica", "PumpReplica", "build"]

log = logger(__name__)

GROUP = "penstock-inference"
ENGINE_METRICS_OFFSET = 10
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - compared with, not bound to


@ray.remote(num_cpus=0, max_restarts=-1)
class DirectoryActor(Directory):
    """The directory as a Ray actor; after a restart it is full again within a second."""


class _DirectoryHandle:
    """The directory actor behind `DirectoryClient`."""

    def __init__(self) -> None:
        self._actor = DirectoryActor.options(  # type: ignore[attr-defined]
            name=ACTOR_NAME, namespace="penstock", get_if_exists=True, lifetime="detached"
        ).remote()

    async def announce(self, announcement: Announcement) -> None:
        await self._actor.announce.remote(announcement)

    async def withdraw(self, replica_id: str) -> None:
        await self._actor.withdraw.remote(replica_id)

    async def live(self) -> Sequence[Announcement]:
        found: Sequence[Announcement] = await self._actor.live.remote()
        return found


def make_engine(settings: InferenceSettings) -> Engine:
    """The engine that the settings name."""
    if settings.engine == "scripted":
        return ScriptedEngine(
            first_token_s=settings.scripted_first_token_s,
            token_s=settings.scripted_token_s,
            max_tokens=settings.scripted_tokens,
        )
    from penstock_inference.vllm_engine import VllmEngine

    return VllmEngine(settings)


class EngineReplica:
    """Holds an engine, serves its stream and announces it.

    Duties: (1) load the engine, (2) serve pumps, (3) tell the directory address and load every
    second, (4) tell Serve whether it still generates, (5) withdraw before it ends.
    """

    async def __init__(self, settings: InferenceSettings) -> None:  # type: ignore[misc]
        self._settings = settings
        context = serve.get_replica_context()
        self._replica_id = context.replica_id.unique_id
        _observe("inference-engine", settings, ENGINE_METRICS_OFFSET + _rank(context))
        self._engine = make_engine(settings)
        await self._engine.start()
        self._servicer = EngineServicer(self._engine)
        service = Service(
            "penstock.v1.Engine",
            partial(engine_service_pb2_grpc.add_EngineServicer_to_server, self._servicer),
        )
        self._server = Server(
            [service], host=settings.host, port=0, max_message_bytes=MAX_MESSAGE_BYTES
        )
        port = await self._server.start()
        await self._server.set_ready(True)
        self._address = f"{_reachable(settings.host)}:{port}"
        self._directory: DirectoryClient = _DirectoryHandle()
        self._announcer = asyncio.create_task(self._announce())
        log.info("engine serves", replica=self._replica_id, address=self._address)

    async def _announce(self) -> None:
        while not self._servicer.lost:
            try:
                await self._directory.announce(
                    Announcement(
                        replica_id=self._replica_id,
                        address=self._address,
                        model=self._settings.model_name,
                        load_tokens=self._servicer.load_tokens,
                    )
                )
            except Exception as error:  # noqa: BLE001 - the actor restarts; say it again then
                log.warning("not announced", error=repr(error))
            await asyncio.sleep(ANNOUNCE_S)
        await self._directory.withdraw(self._replica_id)

    async def check_health(self) -> None:
        """Serve restarts the replica when this raises."""
        if self._servicer.lost:
            raise RuntimeError("the engine is lost")
        await self._engine.check()

    async def __del__(self) -> None:
        if not hasattr(self, "_announcer"):  # the constructor failed
            return
        self._announcer.cancel()
        with contextlib.suppress(Exception):
            await self._directory.withdraw(self._replica_id)
        await self._server.stop(self._settings.drain_s)
        await self._engine.stop()


class PumpReplica:
    """Consumes `admitted` and writes what engines answer.

    Duties: (1) join the group, (2) follow the directory, (3) send tokens, (4) tell Serve whether
    the consumer runs, (5) drain before it ends.
    """

    async def __init__(  # type: ignore[misc]
        self, settings: InferenceSettings, engine: object
    ) -> None:
        # `engine` makes Serve start the engine first; requests go over the pool's streams.
        self._settings = settings
        _observe("inference-pump", settings, _rank(serve.get_replica_context()))
        bootstrap = settings.kafka_bootstrap
        self._publisher = await _started(KafkaPublisher(bootstrap, "penstock-tokens", linger_ms=5))
        tokens = TokenSender(self._publisher)
        self._pool = EnginePool(_DirectoryHandle(), settings.model_name)
        await self._pool.start()
        pump = Pump(
            self._pool,
            Answers(settings.topic_prefix),
            on_chunk=tokens.offer,
            max_in_flight=settings.max_in_flight,
            max_attempts=settings.max_attempts,
        )
        self._consumer = TransactionalConsumer(
            KafkaBroker(bootstrap, "penstock-pump"),
            topic=topic_of("admitted").full_name(settings.topic_prefix),
            group=GROUP,
            handler=pump,
            max_in_flight=settings.read_ahead,
        )
        self._tasks = (
            asyncio.create_task(tokens.run()),
            asyncio.create_task(self._consumer.run()),
        )
        log.info("pump runs", bootstrap=bootstrap)

    async def check_health(self) -> None:
        """Serve restarts the replica when this raises."""
        for task in self._tasks:
            if task.done():
                raise RuntimeError(f"a task of the pump ended: {task!r}")

    async def __del__(self) -> None:
        if not hasattr(self, "_tasks"):  # the constructor failed
            return
        await self._consumer.stop(self._settings.drain_s)
        await self._pool.stop()
        self._tasks[0].cancel()
        await self._publisher.stop()


def build(settings: InferenceSettings) -> serve.Application:
    """The application: engines first, then the pumps that feed them."""
    # Serve's shutdown bound must outlast our own drain.
    bound_s = settings.drain_s + 10
    engine = serve.deployment(
        EngineReplica,
        name="engine",
        num_replicas=settings.engine_replicas,
        ray_actor_options={"num_cpus": settings.engine_cpus, "num_gpus": settings.engine_gpus},
        graceful_shutdown_timeout_s=bound_s,
        health_check_period_s=10,
        health_check_timeout_s=90,
    ).bind(settings)
    return serve.deployment(
        PumpReplica,
        name="pump",
        num_replicas=settings.pump_replicas,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=bound_s,
        health_check_period_s=2,
        health_check_timeout_s=20,
    ).bind(settings, engine)


async def _started(publisher: KafkaPublisher) -> KafkaPublisher:
    await publisher.start()
    return publisher


def _reachable(host: str) -> str:
    """The address under which pumps on other nodes find what is bound to a host."""
    # The application is built on one node and runs on others: only there is the address known.
    return str(ray.util.get_node_ip_address()) if host == EVERY_ADDRESS else host


def _rank(context: object) -> int:
    rank = getattr(context, "rank", 0)
    return int(getattr(rank, "rank", rank) or 0)


def _observe(service: str, settings: InferenceSettings, offset: int) -> None:
    configure_logs(service, settings.log_level)
    configure_traces(service, settings)
    if settings.metrics_port:
        port = settings.metrics_port + offset
        try:
            serve_metrics(settings.host, port)
        except OSError as error:
            # A replica that is being replaced may still hold the port.
            log.warning("metrics are not served", port=port, error=str(error))
