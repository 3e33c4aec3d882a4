"""How often Kafka itself loses a transaction's marker: `python -m tests.chaos.markers --nodes 1`.

Writers commit small transactions with offsets, one transactional id each, as the pumps do. In each
round writers and one Kafka node get SIGKILL within milliseconds of each other; the node comes back,
the writers do not. What was open then has to be ended by the coordinator alone, within the
transactions' timeout of 5 s. A partition whose committed readers cannot reach its end half a minute
later has lost a marker: they wait there for ever, restarts included. A round that finds one goes on
with a fresh cluster.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, NewTopic

from penstock_native.cluster import KafkaCluster
from penstock_native.settings import ROOT
from tests.chaos.record import ends_of

WRITERS = 8
INPUT, OUTPUTS = "input", ("answers", "lines")
GROUP = "markers"
WRITE_S = (4.0, 6.0)
SETTLE_S = 6.0  # past the transactions' timeout


def say(text: str) -> None:
    """Prints a line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def write(bootstrap: str, number: int) -> None:
    """Commits one transaction after another until it is killed."""
    while True:
        producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            transactional_id=f"{GROUP}-{number}",
            transaction_timeout_ms=5_000,
            acks="all",
        )
        try:
            await producer.start()
            for position in range(1_000_000):
                await producer.begin_transaction()
                sent = [
                    await producer.send(topic, value=b"x" * 200, key=str(position).encode())
                    for topic in (*OUTPUTS, OUTPUTS[0])
                ]
                await asyncio.gather(*sent)
                await producer.send_offsets_to_transaction(
                    {TopicPartition(INPUT, number): OffsetAndMetadata(position, "")}, GROUP
                )
                await producer.commit_transaction()
        except KafkaError:
            await asyncio.sleep(0.2)
        finally:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(producer.stop(), 3)


def stuck(bootstrap: str) -> list[str]:
    """Partitions whose committed readers do not reach the end, after half a minute's patience."""
    places = [Place(topic, number) for topic in OUTPUTS for number in range(WRITERS)]
    places += [Place("__consumer_offsets", number) for number in range(8)]
    return [
        f"{topic}-{partition}: {stable} of {end}"
        for (topic, partition), (end, stable) in sorted(ends_of(bootstrap, places).items())
        if end != stable
    ]


def fresh(nodes: int, home: Path) -> KafkaCluster:
    """A cluster with the topics."""
    cluster = KafkaCluster(home, nodes)
    cluster.start()
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 2})
    topics = [NewTopic(name, WRITERS, min(3, nodes)) for name in (INPUT, *OUTPUTS)]
    for made in admin.create_topics(topics).values():
        made.result()
    time.sleep(2)
    return cluster


def one_round(cluster: KafkaCluster, draw: random.Random) -> dict[str, object]:
    """Kills writers and a node, brings the node back, and looks."""
    command = [sys.executable, "-m", "tests.chaos.markers", "--write", cluster.bootstrap]
    writers = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    time.sleep(draw.uniform(*WRITE_S))
    server = draw.choice(cluster.servers)
    for kill in draw.sample([writers.kill, server.kill], 2):
        kill()
    writers.wait()
    killed = time.monotonic()
    server.start(timeout_s=120)
    back_s = time.monotonic() - killed
    time.sleep(SETTLE_S)
    return {"back_s": round(back_s, 1), "stuck": stuck(cluster.bootstrap)}


def main() -> None:
    """Runs the rounds, or the writers of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", help="the writers alone, to these addresses")
    options = parser.parse_args()
    if options.write:

        async def writers() -> None:
            await asyncio.gather(*(write(options.write, number) for number in range(WRITERS)))

        asyncio.run(writers())
    draw = random.Random(options.seed)
    bad = 0
    with (
        tempfile.TemporaryDirectory(prefix="penstock-markers-") as home,
        contextlib.ExitStack() as up,
    ):
        cluster = fresh(options.nodes, Path(home) / "0")
        up.callback(lambda: cluster.kill())
        for number in range(1, options.rounds + 1):
            found = one_round(cluster, draw)
            say(json.dumps({"round": number, **found}))
            if found["stuck"]:
                bad += 1
                cluster.kill()
                cluster = fresh(options.nodes, Path(home) / str(number))
    say(f"{bad} of {options.rounds} rounds lost a marker, with {options.nodes} nodes")


if __name__ == "__main__":
    main()
