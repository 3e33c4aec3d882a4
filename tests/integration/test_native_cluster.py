"""Three Kafka nodes: everything is there three times, and two suffice to go on."""

from collections.abc import Iterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from penstock.kafka.admin import KafkaAdmin, Sizes, plan
from penstock.kafka.broker import KafkaMembership
from penstock.kafka.ports import Position
from penstock.records import Partition
from penstock.topics import TOPICS
from penstock_native.kafka import Door
from penstock_native.ports import LOOPBACK, free_port, kafka_answers, wait_until
from penstock_native.stack import Stack

pytestmark = pytest.mark.integration

TOPIC = "penstock.feedback"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    # Nothing stands between: a door that advertises its own port is a listener like the first.
    ports = [free_port() for _ in range(3)]
    doors = [Door(port, advertised=port) for port in ports]
    with Stack.ephemeral(services=("kafka",), brokers=3, doors=doors) as running:
        yield running


async def test_every_topic_has_three_copies(stack: Stack) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_bootstrap)
    await admin.start()
    try:
        topics = await admin.describe_topics()
    finally:
        await admin.close()
    copies = {topic["topic"]: len(p["replicas"]) for topic in topics for p in topic["partitions"]}
    assert set(copies.values()) == {3}
    assert TOPIC in copies


async def test_topics_are_there_when_they_were_applied_whichever_node_is_asked(
    stack: Stack,
) -> None:
    """Nodes follow the controller one after another: none may say that a new one is unknown."""
    sizes = Sizes(work=1)
    for number in range(5):
        async with KafkaAdmin(stack.kafka_bootstrap) as admin:
            changes = plan(TOPICS, f"p{number}", sizes, {})
            await admin.apply(changes, {}, replication=3)
            assert len(await admin.observe(f"p{number}")) == len(TOPICS)


async def test_services_come_by_the_doors(stack: Stack) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.env["PENSTOCK_KAFKA_BOOTSTRAP"])
    await admin.start()
    try:
        brokers = (await admin.describe_cluster())["brokers"]
    finally:
        await admin.close()
    addresses = {f"{broker['host']}:{broker['port']}" for broker in brokers}
    assert addresses == set(stack.env["PENSTOCK_KAFKA_BOOTSTRAP"].split(","))
    assert not addresses & set(stack.kafka_bootstrap.split(","))


async def test_acknowledged_records_survive_the_kill_of_any_node(stack: Stack) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=stack.kafka_bootstrap, acks="all", enable_idempotence=True
    )
    await producer.start()
    try:
        for node, port in stack.kafka_ports.items():
            await producer.send_and_wait(TOPIC, f"before {node}".encode(), partition=0)
            killed = stack.kill(node)
            await producer.send_and_wait(TOPIC, f"without {node}".encode(), partition=0)
            assert wait_until(lambda node=node, killed=killed: stack.pid(node) != killed, 60)
            assert wait_until(lambda port=port: kafka_answers(port, nodes=3), timeout_s=60)
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(
        TOPIC, bootstrap_servers=stack.kafka_bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        values = [(await consumer.getone()).value.decode() for _ in range(6)]
    finally:
        await consumer.stop()
    assert values == [
        f"{when} {node}" for node in stack.kafka_ports for when in ("before", "without")
    ]


async def test_a_node_that_is_not_the_coordinator_gives_no_position_away(stack: Stack) -> None:
    partition, group = Partition(TOPIC, 1), "moved"
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.kafka_bootstrap, group_id=group)
    await consumer.start()
    membership = KafkaMembership(consumer, stack.kafka_bootstrap, "test", group)
    try:
        ownership = await membership.take(partition)
        await ownership.commit([], 41, "kept")
        await ownership.release()
        for node in (1, 2, 3):  # two of them answer with an error and no partitions
            consumer._coordinator.coordinator_id = node
            ownership = await membership.take(partition)
            await ownership.release()
            assert ownership.position == Position(41, "kept")
    finally:
        await consumer.stop()


def test_node_says_where_it_listens(stack: Stack) -> None:
    port = stack.kafka_ports["kafka-1"]
    assert stack.kafka_bootstrap.startswith(f"{LOOPBACK}:{port},")
