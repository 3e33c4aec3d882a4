"""The replica that runs a pump: a Ray Serve deployment's class."""

from __future__ import annotations

import asyncio
import datetime as dt
from functools import partial

from ray import serve

from penstock.codec import decode
from penstock.errors import InvalidRequest
from penstock.kafka.broker import KafkaBroker
from penstock.kafka.consumer import ReadAhead, TransactionalConsumer
from penstock.kafka.ends import LogEnds
from penstock.kafka.halts import HaltAlerts, resume_applies
from penstock.kafka.publisher import KafkaPublisher
from penstock.kafka.reader import LogReader, Start
from penstock.kafka.watch import ConsumerWatch
from penstock.memory import collect_seldom
from penstock.records import Partition, Record
from penstock.routing import RouteTable
from penstock.telemetry import logger
from penstock.topics import topic_of
from penstock.v1 import admitted_pb2, control_pb2, route_pb2
from penstock_inference.caching.answer_cache import make_answer_cache
from penstock_inference.pump.answers import Answers
from penstock_inference.pump.control import CancelledIds, Commands, ControlReader
from penstock_inference.pump.pump import Pump
from penstock_inference.pump.steward import Steward
from penstock_inference.pump.tokens import TokenSender
from penstock_inference.replicas.replica import observe, rank_of
from penstock_inference.scaling.decision import share_out
from penstock_inference.scaling.directory import ANNOUNCE_S
from penstock_inference.scaling.directory_actor import DirectoryHandle
from penstock_inference.settings import InferenceSettings
from penstock_inference.streams.pool import EnginePool

__all__ = ["PumpReplica"]

log = logger(__name__)

SERVICE = "inference"
CAUGHT_UP_S = 60.0


class PumpReplica:
    """Consumes `admitted` and writes what engines answer.

    Duties: (1) know routes and commands before the first request, (2) join the group, (3) follow
    the directory, (4) send tokens, (5) tell Serve whether it makes progress, (6) drain before it
    ends.
    """

    async def __init__(self, settings: InferenceSettings) -> None:  # type: ignore[misc]
        self._settings = settings
        context = serve.get_replica_context()
        rank, self._name = rank_of(context), context.replica_id.unique_id
        observe("inference-pump", settings, place=0, rank=rank)
        bootstrap, prefix = settings.kafka_bootstrap, settings.topic_prefix
        self._group = f"{prefix}-inference"
        self._publisher = await _started(KafkaPublisher(bootstrap, "penstock-tokens", linger_ms=0))
        tokens = TokenSender(self._publisher)
        self._routes = RouteTable()
        cancelled = CancelledIds()
        self._directory = DirectoryHandle()
        self._pool = EnginePool(self._directory)
        self._pump = Pump(
            self._pool,
            Answers(prefix, self._group),
            self._routes,
            on_chunk=tokens.offer,
            cache=make_answer_cache(settings),
            cancelled=partial(_covers, cancelled),
            max_tokens=settings.max_tokens_in_flight,
        )
        topic = topic_of("admitted").full_name(prefix)
        self._consumer = TransactionalConsumer(
            KafkaBroker(bootstrap, "penstock-pump", instance_id=f"penstock-pump-{rank}"),
            topic=topic,
            group=self._group,
            handler=self._pump,
            read_ahead=ReadAhead(settings.read_ahead_records, settings.read_ahead_mib * 2**20),
            halts=HaltAlerts(SERVICE, self._group, topic_of("alerts").full_name(prefix)),
        )
        self._models = settings.base_models()
        self._steward = Steward(
            self._directory,
            self._publisher,
            topic_of("control").full_name(prefix),
            {model.name: model.replicas.max for model in self._models},
        )
        commands = Commands(
            cancelled,
            on_cancel=self._pump.cancel,
            on_resume=self._resume,
            on_measure=self._steward.take,
        )
        control = ControlReader(bootstrap, prefix, commands)
        routes = LogReader(bootstrap, topic_of("routes").full_name(prefix), start=Start.BEGINNING)
        self._tasks = [
            asyncio.create_task(tokens.run()),
            asyncio.create_task(control.run()),
            asyncio.create_task(routes.run(self._route)),
        ]
        await control.caught_up(CAUGHT_UP_S)
        await asyncio.wait_for(routes.caught_up.wait(), CAUGHT_UP_S)
        await self._pool.start(self._pump)
        self._tasks.append(asyncio.create_task(self._consumer.run()))
        self._tasks.append(asyncio.create_task(self._report()))
        watch = ConsumerWatch.of(self._consumer, LogEnds(bootstrap, topic))
        self._tasks.append(asyncio.create_task(watch.run()))
        collect_seldom()
        log.info("pump runs", bootstrap=bootstrap, rank=rank)

    def _route(self, record: Record) -> None:
        if record.value is None:
            self._routes.remove((record.key or b"").decode("utf-8", "replace"))
        else:
            try:
                self._routes.apply(decode(record, route_pb2.Route))
            except InvalidRequest as error:
                log.error("a route is passed over", reason=error.message, offset=record.offset)
                return
        self._pump.routes_changed()

    def _resume(self, resume: control_pb2.Resume) -> None:
        topic = topic_of("admitted").full_name(self._settings.topic_prefix)
        number = resume.partition if resume.HasField("partition") else None
        if resume_applies(
            resume, group=self._group, partition=Partition(topic, number or 0), halted_at_ms=0
        ):
            self._consumer.resume(number, resume.requested_at.ToMilliseconds())

    async def _report(self) -> None:
        """Tells the directory every second what work is ahead and which measures are in force."""
        models = [model.name for model in self._models]
        while True:
            standing = self._consumer.standing()
            work = share_out(
                self._pump.runnable(),
                held=sum(each.held for each in standing),
                unread=sum(each.unread for each in standing if not each.halted),
                models=models,
            )
            try:
                await self._directory.report(self._name, work, self._steward.wishes())
                await self._steward.choose()
            except Exception as error:  # noqa: BLE001 - the actor restarts; say it again then
                log.warning("work ahead not reported", error=repr(error))
            await asyncio.sleep(ANNOUNCE_S)

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
        for task in self._tasks:
            task.cancel()
        await self._publisher.stop()


def _covers(cancelled: CancelledIds, admitted: admitted_pb2.AdmittedRequest) -> bool:
    if not len(cancelled):
        return False
    at = admitted.admitted_at
    return cancelled.covers(admitted.request_id, admitted.request.tenant, at.ToDatetime(dt.UTC))


async def _started(publisher: KafkaPublisher) -> KafkaPublisher:
    await publisher.start()
    return publisher
