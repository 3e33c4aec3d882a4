"""Several Kafka nodes as one cluster on loopback: three copies of everything, two suffice to write.

In tests:

    with KafkaCluster(tmp_path) as cluster:
        producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, acks="all")
        cluster.servers[0].kill()  # the others go on
        cluster.servers[0].start()

`Stack` runs the same nodes under its supervisor (`Stack.ephemeral(brokers=3)`).
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock_native.errors import NativeError
from penstock_native.kafka import Door, KafkaServer
from penstock_native.ports import LOOPBACK, free_port, free_ports
from penstock_native.settings import number_of, stack_defaults

KAFKA = "kafka"
_START_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Node:
    """Where a node of a cluster listens."""

    id: int
    port: int
    controller_port: int
    door: Door | None = None

    @property
    def voter(self) -> str:
        """How the controllers' quorum names it."""
        return f"{self.id}@{LOOPBACK}:{self.controller_port}"


def bootstrap_of(nodes: Sequence[Node]) -> str:
    """Return the addresses of the nodes, for clients."""
    return ",".join(f"{LOOPBACK}:{node.port}" for node in nodes)


def nodes_of(env: Mapping[str, str]) -> tuple[Node, ...]:
    """Read the nodes of a stack from its settings.

    They listen where PENSTOCK_KAFKA_BOOTSTRAP says, one address for each; their controllers on
    PENSTOCK_NATIVE_CONTROLLER_PORT and the ports above it.

    Raises:
        NativeError: There are more or fewer addresses than nodes, or one is not on this machine.
    """
    count = number_of(env, "PENSTOCK_NATIVE_KAFKA_BROKERS")
    addresses = env["PENSTOCK_KAFKA_BOOTSTRAP"].split(",")
    if len(addresses) != count:
        raise NativeError(
            f"PENSTOCK_NATIVE_KAFKA_BROKERS={count}, but PENSTOCK_KAFKA_BOOTSTRAP has "
            f"{len(addresses)}: write one {LOOPBACK}:port for each broker"
        )
    controller = number_of(env, "PENSTOCK_NATIVE_CONTROLLER_PORT")
    return tuple(
        Node(index + 1, _own_port(address.strip()), controller + index)
        for index, address in enumerate(addresses)
    )


def _own_port(address: str) -> int:
    host, _, port = address.rpartition(":")
    # Elsewhere the services would speak to another Kafka than the one that is started for them.
    if host not in (LOOPBACK, "localhost") or not port.isdecimal():
        raise NativeError(
            f"PENSTOCK_KAFKA_BOOTSTRAP has {address!r}, where this stack's own Kafka cannot "
            f"listen: write {LOOPBACK}:port, or unset it"
        )
    return int(port)


def free_nodes(count: int) -> dict[str, str]:
    """Return settings that put so many nodes on free ports.

    Raises:
        OSError: There are no free ports.
    """
    addresses = ",".join(f"{LOOPBACK}:{free_port()}" for _ in range(count))
    return {
        "PENSTOCK_NATIVE_KAFKA_BROKERS": str(count),
        "PENSTOCK_KAFKA_BOOTSTRAP": addresses,
        "PENSTOCK_NATIVE_CONTROLLER_PORT": str(free_ports(count)[0]),
    }


def heap_mib(env: Mapping[str, str], nodes: int) -> int:
    """Return the heap of each of so many nodes, from a stack's settings."""
    name = "KAFKA" if nodes == 1 else "KAFKA_CLUSTER"
    return number_of(env, f"PENSTOCK_NATIVE_{name}_HEAP_MIB")


class KafkaCluster:
    """Nodes as processes of this one; each is a `KafkaServer` that can be killed and started.

    Data live in `state_dir` and outlive kills and restarts. Not thread-safe.
    """

    def __init__(
        self,
        state_dir: Path,
        nodes: int = 3,
        *,
        version: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        env = {**stack_defaults(), **free_nodes(nodes)}
        self.nodes = nodes_of(env)
        self.servers = tuple(
            KafkaServer(
                state_dir / f"{KAFKA}-{node.id}",
                node.port,
                controller_port=node.controller_port,
                heap_mib=heap_mib(env, nodes),
                version=version,
                settings=settings,
                node_id=node.id,
                voters=[each.voter for each in self.nodes],
            )
            for node in self.nodes
        )

    @property
    def bootstrap(self) -> str:
        """The addresses for clients."""
        return bootstrap_of(self.nodes)

    def start(self) -> None:
        """Start every node that does not run, and block until each knows of all.

        Raises:
            StartError: One did not come up; the message names its log.
        """
        for server in self.servers:
            server.launch()
        for server in self.servers:
            server.await_up(_START_TIMEOUT_S, nodes=len(self.servers))

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self.kill)
            self.start()
            undo.pop_all()
        return self

    def kill(self) -> None:
        """End every node at once, as a power cut would; the data stay.

        There is no stop in order: the last nodes would wait for a quorum that has gone.
        """
        for server in self.servers:
            server.kill()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
