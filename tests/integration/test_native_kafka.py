"""The native Kafka node: formatted once, keeps its data through a kill."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from penstock_native.errors import StartError
from penstock_native.kafka import KafkaServer
from penstock_native.ports import kafka_answers, wait_until
from penstock_native.processes import identify

pytestmark = pytest.mark.integration


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[KafkaServer]:
    """A node that a test may kill."""
    with KafkaServer(tmp_path) as server:
        yield server


async def _create(server: KafkaServer, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=server.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    await admin.close()


async def _send(server: KafkaServer, topic: str, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=server.bootstrap, acks="all")
    await producer.start()
    try:
        await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def _read(server: KafkaServer, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=server.bootstrap,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        return [(await asyncio.wait_for(consumer.getone(), timeout=20)).value for _ in range(count)]
    finally:
        await consumer.stop()


async def test_acknowledged_records_survive_kills(own_kafka: KafkaServer) -> None:
    topic, bootstrap = "survives", own_kafka.bootstrap
    await _create(own_kafka, topic)
    identity = (own_kafka.state_dir / "data" / "meta.properties").read_bytes()
    expected = [str(generation).encode() for generation in range(2)]
    for value in expected:
        await _send(own_kafka, topic, value)
        own_kafka.kill()
        assert own_kafka.pid is None
        own_kafka.start()
    assert own_kafka.bootstrap == bootstrap
    assert await _read(own_kafka, topic, len(expected)) == expected
    assert (own_kafka.state_dir / "data" / "meta.properties").read_bytes() == identity


def test_restart_in_order_answers_again(own_kafka: KafkaServer) -> None:
    before = own_kafka.pid
    own_kafka.restart()
    assert own_kafka.pid not in {None, before}
    assert kafka_answers(own_kafka.port)


def test_taken_port_is_named(kafka: KafkaServer, tmp_path: Path) -> None:
    with pytest.raises(StartError, match=f"port {kafka.port} is taken"):
        KafkaServer(tmp_path, kafka.port).start()


def test_node_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; from penstock_native.kafka import KafkaServer\n"
        f"k = KafkaServer(pathlib.Path({str(tmp_path)!r})); k.start()\n"
        "print(k.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        node = identify(int(starter.stdout.readline()))
        assert node is not None
        os.kill(starter.pid, signal.SIGKILL)
        starter.wait()
        assert wait_until(lambda: identify(node.pid) != node, timeout_s=60)
