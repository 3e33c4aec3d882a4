"""The replica that holds an engine: a Ray Serve deployment's class."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

from ray import serve

from penstock.rpc.server import Server, Service
from penstock.telemetry import logger
from penstock.v1 import engine_service_pb2_grpc
from penstock_inference.directory import ANNOUNCE_S, Announcement, DirectoryClient
from penstock_inference.directory_actor import DirectoryHandle
from penstock_inference.engine_servicer import EngineServicer
from penstock_inference.generation import Engine
from penstock_inference.pool import MAX_MESSAGE_BYTES
from penstock_inference.replica import observe, rank_of, reachable
from penstock_inference.scripted import ScriptedEngine
from penstock_inference.settings import InferenceSettings

__all__ = ["EngineReplica"]

log = logger(__name__)

ENGINE_METRICS_OFFSET = 10


def make_engine(settings: InferenceSettings) -> Engine:
    """The engine that the settings name."""
    if settings.engine == "scripted":
        return ScriptedEngine(
            first_token_s=settings.scripted_first_token_s,
            token_s=settings.scripted_token_s,
            max_tokens=settings.scripted_tokens,
            slots=settings.scripted_slots,
            diverge=settings.scripted_diverge,
            poison=settings.scripted_poison,
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
        observe("inference-engine", settings, ENGINE_METRICS_OFFSET + rank_of(context))
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
        self._address = f"{reachable(settings.host)}:{port}"
        self._directory: DirectoryClient = DirectoryHandle()
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
