"""The replica that runs a pump: a Ray Serve deployment's class."""

from __future__ import annotations

import asyncio

from ray import serve

from penstock.kafka.broker import KafkaBroker
from penstock.kafka.consumer import TransactionalConsumer
from penstock.kafka.publisher import KafkaPublisher
from penstock.telemetry import logger
from penstock.topics import topic_of
from penstock_inference.answers import Answers
from penstock_inference.directory_actor import DirectoryHandle
from penstock_inference.pool import EnginePool
from penstock_inference.pump import Pump
from penstock_inference.replica import observe, rank_of
from penstock_inference.settings import InferenceSettings
from penstock_inference.tokens import TokenSender

__all__ = ["PumpReplica"]

log = logger(__name__)

GROUP = "penstock-inference"


class PumpReplica:
    """Consumes `admitted` and writes what engines answer.

    Duties: (1) join the group, (2) follow the directory, (3) send tokens, (4) tell Serve whether
    the consumer runs, (5) drain before it ends.
    """

    async def __init__(self, settings: InferenceSettings) -> None:  # type: ignore[misc]
        self._settings = settings
        rank = rank_of(serve.get_replica_context())
        observe("inference-pump", settings, place=0, rank=rank)
        bootstrap = settings.kafka_bootstrap
        self._publisher = await _started(KafkaPublisher(bootstrap, "penstock-tokens", linger_ms=5))
        tokens = TokenSender(self._publisher)
        self._pool = EnginePool(DirectoryHandle(), settings.model_name)
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


async def _started(publisher: KafkaPublisher) -> KafkaPublisher:
    await publisher.start()
    return publisher
