"""The replica that holds an engine: a Ray Serve deployment's class."""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from pathlib import Path

from ray import serve

from penstock.memory import collect_seldom
from penstock.rpc.server import Server, Service
from penstock.telemetry import logger
from penstock.v1 import engine_service_pb2_grpc
from penstock_inference import metrics
from penstock_inference.adapters.keeper import AdapterKeeper
from penstock_inference.adapters.wanted import WantedAdapters, finder_of
from penstock_inference.engines.generation import AdapterHost, Engine
from penstock_inference.engines.models import Model, ScriptedModel, UpstreamModel, VllmModel
from penstock_inference.engines.recording import Recording
from penstock_inference.engines.scripted import ScriptedEngine
from penstock_inference.engines.speed import Speed
from penstock_inference.replicas.replica import observe, rank_of, reachable
from penstock_inference.scaling.directory import ANNOUNCE_S, Announcement, DirectoryClient
from penstock_inference.scaling.directory_actor import DirectoryHandle
from penstock_inference.settings import InferenceSettings
from penstock_inference.streams.engine_servicer import EngineServicer
from penstock_inference.streams.pool import MAX_MESSAGE_BYTES

__all__ = ["EngineReplica"]

log = logger(__name__)


def make_engine(model: Model) -> Engine:
    """The engine of a declared model."""
    match model:
        case ScriptedModel():
            return ScriptedEngine(
                first_token_s=model.first_token_s,
                token_s=model.token_s,
                max_tokens=model.tokens,
                slots=model.max_running,
                diverge=model.diverge,
                poison=model.poison,
                recording=Recording(Path(model.recording)) if model.recording else None,
            )
        case VllmModel():
            from penstock_inference.engines.vllm_engine import VllmEngine

            return VllmEngine(model)
        case UpstreamModel():
            from penstock_inference.engines.upstream_engine import UpstreamEngine

            return UpstreamEngine(model)


class EngineReplica:
    """Holds an engine, serves its stream and announces it.

    Duties: (1) load the engine, (2) serve pumps, (3) tell the directory address and load every
    second, (4) keep the adapters that routes want, (5) tell Serve whether it still generates,
    (6) start anew when a measure wants it, (7) withdraw before it ends.

    Args:
        settings: Of the service.
        model: The base model to serve.
        place: The model's place among the models, from 1; its metrics' ports follow from it.
    """

    async def __init__(  # type: ignore[misc]
        self, settings: InferenceSettings, model: Model, place: int
    ) -> None:
        self._settings = settings
        self._model = model
        context = serve.get_replica_context()
        self._replica_id = context.replica_id.unique_id
        observe("inference-engine", settings, place=place, rank=rank_of(context))
        self._engine = make_engine(model)
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
        self._address = f"{reachable(settings.host)}:{port}"
        self._directory: DirectoryClient = DirectoryHandle()
        self._speed = Speed()
        # The measure by which it is to start anew.
        self._leaving = ""
        self._tasks = [asyncio.create_task(self._announce()), *self._keep_adapters()]
        collect_seldom()
        log.info("engine serves", model=model.name, replica=self._replica_id, address=self._address)

    def _keep_adapters(self) -> list[asyncio.Task[None]]:
        if not isinstance(self._engine, AdapterHost):
            return []
        settings, servicer = self._settings, self._servicer
        wanted = WantedAdapters(settings.kafka_bootstrap, settings.topic_prefix, self._model.name)
        keeper = AdapterKeeper(
            self._engine,
            finder_of(self._model),
            desired=lambda: wanted.names,
            in_use=lambda: servicer.adapters_in_use,
            idle_s=settings.adapter_idle_s,
        )
        return [asyncio.create_task(wanted.run()), asyncio.create_task(keeper.run())]

    async def _announce(self) -> None:
        while not (self._servicer.lost or self._leaving):
            running = self._servicer.running
            self._speed.look(running, _generated_tokens(), time.monotonic())
            try:
                self._leaving = await self._directory.announce(
                    Announcement(
                        replica_id=self._replica_id,
                        address=self._address,
                        model=self._model.name,
                        load_tokens=self._servicer.load_tokens,
                        adapters=tuple(self._servicer.adapters),
                        slots=self._servicer.slots,
                        running=running,
                        seconds_per_token=self._speed.seconds_per_token,
                    )
                )
            except Exception as error:  # noqa: BLE001 - the actor restarts; say it again then
                log.warning("not announced", error=repr(error))
            if not self._leaving:
                await asyncio.sleep(ANNOUNCE_S)
        if self._leaving:
            log.warning(
                "the engine starts anew", measure=self._leaving, running=self._servicer.running
            )
        await self._directory.withdraw(self._replica_id)

    async def check_health(self) -> None:
        """Serve restarts the replica when this raises."""
        if self._servicer.lost:
            raise RuntimeError("the engine is lost")
        if self._leaving:
            # Pumps send it nothing more. Serve asks thrice, lets it end what it has, and starts
            # another in its place.
            raise RuntimeError(f"the engine starts anew, by measure {self._leaving}")
        for task in self._tasks:
            if task.done():
                raise RuntimeError(f"a task of the engine's replica ended: {task!r}")
        await self._engine.check()

    async def __del__(self) -> None:
        if not hasattr(self, "_tasks"):  # the constructor failed
            return
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(Exception):
            await self._directory.withdraw(self._replica_id)
        await self._server.stop(self._settings.drain_s)
        await self._engine.stop()


def _generated_tokens() -> float:
    (metric,) = metrics.GENERATED_TOKENS.collect()
    return sum(each.value for each in metric.samples if each.name.endswith("_total"))
