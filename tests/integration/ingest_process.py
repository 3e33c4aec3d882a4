"""Ingest as a process on a real Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

from penstock.codec import encode
from penstock.kafka.admin import KafkaAdmin, Sizes, plan
from penstock.kafka.publisher import KafkaPublisher
from penstock.kafka.reader import LogReader, Start
from penstock.records import Outgoing, Record
from penstock.topics import TOPICS
from penstock.v1 import route_pb2
from penstock_native.kafka import KafkaServer
from penstock_native.ports import free_port
from penstock_native.processes import spawn

__all__ = ["Ingest", "running", "until"]


class Ingest:
    """One ingest process after another, with the same settings and a topic prefix of its own."""

    def __init__(self, bootstrap: str, prefix: str, log: Path, settings: Mapping[str, str]) -> None:
        self.prefix = prefix
        self.bootstrap = bootstrap
        self.http_port, self.grpc_port = free_port(), free_port()
        self.log = log
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        settings = {
            "PENSTOCK_KAFKA_BOOTSTRAP": self.bootstrap,
            "PENSTOCK_TOPIC_PREFIX": self.prefix,
            "PENSTOCK_INGEST_HTTP_PORT": str(self.http_port),
            "PENSTOCK_INGEST_GRPC_PORT": str(self.grpc_port),
            "PENSTOCK_INGEST_METRICS_PORT": "0",
            "PENSTOCK_INGEST_PROBE_INTERVAL_S": "0",  # there is nothing that would answer
        }
        self.process = spawn(
            [sys.executable, "-m", "penstock_ingest"],
            log=self.log,
            environment={**os.environ, **settings, **self.settings},
        )

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    async def until_ready(self) -> None:
        await until(lambda: self.status() == 200, lambda: self.log.read_text()[-3000:])

    def status(self) -> int:
        try:
            url = f"http://127.0.0.1:{self.http_port}/health/ready"
            with urllib.request.urlopen(url, timeout=2) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    async def publish(self, records: Sequence[Outgoing]) -> None:
        publisher = KafkaPublisher(self.bootstrap, "test", linger_ms=5)
        await publisher.start()
        await publisher.publish(records)
        await publisher.stop()

    def request(
        self, value: bytes, key: str, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Outgoing:
        return Outgoing(f"{self.prefix}.requests", key.encode(), value, headers)

    async def route(self, version: int = 1, *, champion: str = "base", shadow: int = 0) -> None:
        route = route_pb2.Route(model="triage", version=version)
        route.variants.add(name=champion, base_model="m", weight=1, stage=route_pb2.STAGE_CHAMPION)
        if shadow:
            route.variants.add(
                name="shadow", base_model="m", weight=shadow, stage=route_pb2.STAGE_SHADOW
            )
        topic = f"{self.prefix}.routes"
        await self.publish([encode(route, topic=topic, key="triage", source="test")])

    async def read(self, topic: str) -> list[Record]:
        """Everything that is committed now."""
        reader = LogReader(self.bootstrap, f"{self.prefix}.{topic}", start=Start.BEGINNING)
        records: list[Record] = []
        task = asyncio.create_task(reader.run(records.append))
        await asyncio.wait_for(reader.caught_up.wait(), 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return records


async def until(condition: Callable[[], bool], why: Callable[[], str], limit_s: float = 60) -> None:
    give_up = time.monotonic() + limit_s
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < give_up, why()
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def running(
    kafka: KafkaServer, prefix: str, log: Path, **settings: str
) -> AsyncIterator[Ingest]:
    """An ingest with topics of its own; killed at the end."""
    async with KafkaAdmin(kafka.bootstrap) as admin:
        observed = await admin.observe(prefix)
        await admin.apply(plan(TOPICS, prefix, Sizes(), observed), observed, 1)
    process = Ingest(kafka.bootstrap, prefix, log, settings)
    process.start()
    try:
        yield process
    finally:
        if process.process is not None and process.process.poll() is None:
            process.kill()
