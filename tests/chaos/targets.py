"""Finds what a fault hits: processes of the stack, and nodes of Kafka by what they do."""

from __future__ import annotations

import random
import re
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka.admin import AdminClient

from penstock_native.ports import LOOPBACK
from penstock_native.processes import tree
from penstock_native.stack import Stack

GROUP, TRANSACTION = 0, 1
_FIND_COORDINATOR, _VERSION = 10, 1
# The consumers of the request plane; a transactional id is <group>-<topic>-<partition>.
GROUPS = {"penstock-inference": "admitted", "penstock-ingest": "requests"}


def replicas(stack: Stack, deployment: str) -> list[int]:
    """The processes of a Serve deployment's replicas, by the titles that Ray gives them."""
    # Whatever the application, the model and the running method: "ray::ServeReplica:app:pump.run",
    # "ray::ServeReplica:engine-triage:engine-triage".
    wanted = re.compile(rf"ray::ServeReplica:[^:]+:{deployment}(-[^.]+)?(\.|$)")
    found = []
    for process in tree(stack.pid("inference")):
        try:
            title = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")[0].decode()
        except OSError:
            continue
        if wanted.match(title):
            found.append(process.pid)
    return sorted(found)


def ray_environment(stack: Stack) -> dict[str, str]:
    """What a driver needs in its environment to join the stack's own Ray.

    Raises:
        LookupError: Ray does not run.
    """
    for process in tree(stack.pid("inference")):
        home = Path(f"/proc/{process.pid}")
        try:
            arguments = (home / "cmdline").read_bytes().decode().split("\0")
            environment = (home / "environ").read_bytes().decode().split("\0")
        except OSError:
            continue
        for argument in arguments:
            if argument.startswith("--gcs-address="):
                # Ray asks for its token or not, as the machine has one or not; so must we.
                mode = [line for line in environment if line.startswith("RAY_AUTH_MODE=")]
                lines = [f"RAY_ADDRESS={argument.partition('=')[2]}", *mode]
                return dict(line.split("=", 1) for line in lines)
    raise LookupError("none of the stack's processes knows of a Ray")


class Brokers:
    """Kafka's nodes as the cluster itself describes them."""

    def __init__(self, stack: Stack) -> None:
        self._ports: Mapping[str, int] = stack.kafka_ports
        self._prefix = stack.env.get("PENSTOCK_TOPIC_PREFIX", "penstock")
        self._admin = AdminClient({"bootstrap.servers": stack.kafka_bootstrap, "log_level": 2})

    def leader(self, draw: random.Random) -> tuple[str, str]:
        """A node that leads a partition of `admitted` or `responses`, and which partition."""
        topic = f"{self._prefix}.{draw.choice(('admitted', 'responses'))}"
        partitions = self._admin.list_topics(topic, timeout=20).topics[topic].partitions
        partition = draw.choice(sorted(partitions))
        return f"kafka-{partitions[partition].leader}", f"{topic}-{partition}"

    def group_coordinator(self, draw: random.Random) -> tuple[str, str]:
        """The node that coordinates a consumer group of the request plane, and which group."""
        group = draw.choice(sorted(GROUPS))
        return f"kafka-{self._coordinator(group, GROUP)}", group

    def transaction_coordinator(self, draw: random.Random) -> tuple[str, str]:
        """The node that coordinates the transactions of a partition's owner, and its id."""
        group = draw.choice(sorted(GROUPS))
        topic = f"{self._prefix}.{GROUPS[group]}"
        partitions = self._admin.list_topics(topic, timeout=20).topics[topic].partitions
        name = f"{group}-{topic}-{draw.choice(sorted(partitions))}"
        return f"kafka-{self._coordinator(name, TRANSACTION)}", name

    def whole(self) -> bool:
        """Whether every copy of every partition is in sync on all nodes."""
        try:
            topics = self._admin.list_topics(timeout=5).topics.values()
        except Exception:  # noqa: BLE001 - a node that is away is what is being looked for
            return False
        return all(
            len(partition.isrs) == len(partition.replicas)
            for topic in topics
            for partition in topic.partitions.values()
        )

    def _coordinator(self, key: str, kind: int) -> int:
        for port in self._ports.values():
            try:
                return find_coordinator(port, key, kind)
            except (OSError, LookupError):
                continue
        raise LookupError(f"no node knows the coordinator of {key}")


def find_coordinator(port: int, key: str, kind: int) -> int:
    """Asks a node for the coordinator of a group or a transactional id: FindCoordinator, v1.

    Raises:
        OSError: The node does not answer.
        LookupError: It knows of none now.
    """
    client, name = b"chaos", key.encode()
    body = struct.pack(">hhih", _FIND_COORDINATOR, _VERSION, 1, len(client)) + client
    body += struct.pack(">h", len(name)) + name + struct.pack(">b", kind)
    with socket.create_connection((LOOPBACK, port), timeout=2) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        # size, correlation id, throttle time: four bytes each; error code and message's length: two
        answers = connection.makefile("rb")
        head = answers.read(16)
        error, message = struct.unpack(">hh", head[12:16])
        rest = answers.read(max(message, 0) + 4)
    if error:
        raise LookupError(f"FindCoordinator for {key}: error {error}")
    return int(struct.unpack(">i", rest[-4:])[0])
