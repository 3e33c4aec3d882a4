"""Topics of one's own on the session's Kafka, and the command beside them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from penstock.cli.app import app
from penstock.kafka.admin import KafkaAdmin, Sizes, plan
from penstock.kafka.dlq import dead_letter
from penstock.kafka.publisher import KafkaPublisher
from penstock.kafka.reader import LogReader, Start
from penstock.records import Outgoing, Partition, Record
from penstock.topics import TOPICS
from penstock.v1 import admitted_pb2

MARKER = b"MARKER-of-a-prompt"


class Place:
    """Topics of its own on the session's Kafka, and the command beside them."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.prefix = f"d{uuid.uuid4().hex[:8]}"

    def topic(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    async def command(self, *arguments: str, env: Mapping[str, str] | None = None) -> Result:
        env = {
            "PENSTOCK_KAFKA_BOOTSTRAP": self.bootstrap,
            "PENSTOCK_TOPIC_PREFIX": self.prefix,
            "PENSTOCK_COST_GRPC_PORT": "1",
            "COLUMNS": "200",
            **(env or {}),
        }
        result = await asyncio.to_thread(CliRunner().invoke, app, list(arguments), env=env)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result

    async def done(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        result = await self.command(*arguments, env=env)
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    async def publish(self, *records: Outgoing) -> None:
        publisher = KafkaPublisher(self.bootstrap, "test")
        await publisher.start()
        await publisher.publish(records)
        await publisher.stop()

    async def read(self, name: str) -> list[Record]:
        reader = LogReader(self.bootstrap, self.topic(name), start=Start.BEGINNING)
        records: list[Record] = []
        task = asyncio.create_task(reader.run(records.append))
        await asyncio.wait_for(reader.caught_up.wait(), 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return records

    async def bury(self, name: str, value: bytes, **more: Any) -> None:
        """A letter as if a record of that topic had died."""
        headers = (("content-type", b"application/protobuf"), ("mine", b"\xff\x00"))
        record = Record(Partition(self.topic(name), 1), 41, b"key", value, headers, 1_000)
        kept = {"service": "inference", "reason": "it died", "error": None, "attempts": 3} | more
        await self.publish(dead_letter(record, dlq_topic=self.topic("dlq"), **kept))


async def make_place(bootstrap: str) -> Place:
    """A place with every topic, two partitions each where there is a choice."""
    place = Place(bootstrap)
    async with KafkaAdmin(bootstrap) as admin:
        changes = plan(TOPICS, place.prefix, Sizes(work=2), {})
        await admin.apply(changes, {}, 1)
    return place


def admitted(request_id: str, **more: Any) -> admitted_pb2.AdmittedRequest:
    made = admitted_pb2.AdmittedRequest(request_id=request_id, variant="base", **more)
    made.request.model = "triage"
    made.request.tenant = "acme"
    made.request.prompt = MARKER.decode()
    made.published_at.GetCurrentTime()
    made.deadline.FromMilliseconds(made.published_at.ToMilliseconds() + 20_000)
    return made
