"""Retrain services on real Kafka with topics, a route and a database of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.codec import decode
from penstock.v1 import route_pb2
from penstock_native.ports import free_port
from tests.integration.operator_place import Place

PATIENCE_S = 90
PROCESS = Path(__file__).with_name("retrain_process.py")


class Retrain(Place):
    """Retrain services on one database, with topics of their own."""

    def __init__(self, bootstrap: str, home: Path) -> None:
        super().__init__(bootstrap)
        self.home = home
        self.processes: list[asyncio.subprocess.Process] = []
        self.port = 0

    async def start(
        self, *, kill: str = "", sleep: str = "", stages: str = "small"
    ) -> asyncio.subprocess.Process:
        self.port = free_port()
        env = os.environ | {
            "PENSTOCK_KAFKA_BOOTSTRAP": self.bootstrap,
            "PENSTOCK_TOPIC_PREFIX": self.prefix,
            "PENSTOCK_RETRAIN_GRPC_PORT": str(self.port),
            "PENSTOCK_RETRAIN_METRICS_PORT": "0",
            "PENSTOCK_RETRAIN_DATABASE_URL": f"sqlite:///{self.home}/retrain.sqlite",
            "PENSTOCK_RETRAIN_ADAPTERS_DIR": str(self.home / "adapters"),
            "PENSTOCK_RETRAIN_MODELS_DIR": str(self.home / "models"),
            "PENSTOCK_RETRAIN_WORK_DIR": str(self.home / "work"),
            "PENSTOCK_RETRAIN_COLLECTED_URL": str(self.home / "collected"),
            "PENSTOCK_RETRAIN_SIGNING_KEY": str(self.home / "keys" / "registry.pem"),
            "PENSTOCK_RETRAIN_LEASE_S": "2",
            "PENSTOCK_RETRAIN_CLEAN_AFTER_S": "1",
        }
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(PROCESS),
                str(self.home),
                kill,
                sleep,
                stages,
                env=env,
                stderr=log,
            )
        self.processes.append(process)
        return process

    @property
    def log(self) -> Path:
        return self.home / "retrain.log"

    async def end(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def say(self, *arguments: str) -> Any:
        env = {"PENSTOCK_RETRAIN_GRPC_PORT": str(self.port)}
        return await self.command(*arguments, env=env)

    async def said(self, *arguments: str) -> str:
        """What a command prints, once the service answers."""
        async with asyncio.timeout(PATIENCE_S):
            while (result := await self.say(*arguments)).exit_code == 3:
                await asyncio.sleep(0.3)
        assert result.exit_code == 0, result.output + self.log.read_text()[-5000:]
        return str(result.stdout)

    async def jobs(self) -> list[dict[str, Any]]:
        return [
            json.loads(line) for line in (await self.said("jobs", "list", "--json")).splitlines()
        ]

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The newest job, once it is so."""
        found: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not (found := await self.jobs()) or not condition(found[0]):
                    await asyncio.sleep(0.2)
        except TimeoutError:
            pytest.fail(f"{found}\n{self.log.read_text()[-5000:]}")
        return found[0]

    async def routes(self) -> list[route_pb2.Route]:
        return [decode(record, route_pb2.Route) for record in await self.read("routes")]

    def adapters(self) -> list[str]:
        directory = self.home / "adapters"
        return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


@contextlib.asynccontextmanager
async def retrain_with_route(bootstrap: str, home: Path) -> AsyncIterator[Retrain]:
    """A place where `triage` is answered by one champion."""
    made = Retrain(bootstrap, home)
    await made.done("topics", "apply")
    champion = {
        "name": "triage-base",
        "base_model": "triage",
        "weight": 100,
        "stage": "STAGE_CHAMPION",
    }
    routes = home / "routes.json"
    routes.write_text(json.dumps([{"model": "triage", "version": 1, "variants": [champion]}]))
    await made.done("routes", "apply", str(routes))
    try:
        yield made
    finally:
        await made.end()


def shares(route: route_pb2.Route) -> dict[str, tuple[int, int]]:
    return {variant.name: (variant.stage, variant.weight) for variant in route.variants}
