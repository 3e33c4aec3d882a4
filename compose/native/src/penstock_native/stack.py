"""The whole stack on one machine: Kafka and the services under supervisord.

In tests and benchmarks:

    with Stack.ephemeral(services=("kafka", "ingest"), env={...}) as stack:
        stack.env["PENSTOCK_KAFKA_BOOTSTRAP"]
        stack.kill("ingest")  # supervisord starts it again

With `brokers=3` Kafka is a cluster, whose nodes are the services kafka-1, kafka-2 and kafka-3.
"""

import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Self

from penstock_native import mlflow
from penstock_native.cluster import KAFKA, Node, bootstrap_of, free_nodes, heap_mib, nodes_of
from penstock_native.errors import CommandError, NativeError, StartError
from penstock_native.kafka import Door
from penstock_native.ports import (
    LOOPBACK,
    free_port,
    free_ports,
    is_free,
    kafka_answers,
    listens,
    wait_until,
)
from penstock_native.processes import alive, end, identify, marked, tree
from penstock_native.settings import (
    KEPT,
    ROOT,
    number_of,
    place_retrain,
    port_variables,
    stack_environment,
)
from penstock_native.supervise import Program, ProgramState, Supervisor

_log = logging.getLogger(__name__)

SERVICES = ("ingest", "inference", "cost", "drift", "retrain")

# How long a service may take to stop: a pump drains what its engine is answering.
_STOP_WAIT_S = {KAFKA: 20, "inference": 30}
# Of several Kafka nodes the last ones can't stop in order: they would wait for a quorum.
_CLUSTER_STOP_WAIT_S = 5
_STOP_MARGIN_S = 60
_MARK = "PENSTOCK_NATIVE_STACK"
_KAFKA_TIMEOUT_S = 180.0  # a first run fetches the jars
# Ten for the pumps and ten for each model's engines; no test has more than five models.
_INFERENCE_METRICS = 60
_READY_TIMEOUT_S = 240.0  # vLLM alone takes up to 80 s
# A service that was started this often while the stack came up will not come up by itself.
_STARTS_LIMIT = 4


class Stack:
    """A stack with one state directory, up or down; any number of objects may speak of it.

    `env` holds the variables that its processes get, and that a client of it needs.
    """

    def __init__(
        self,
        state_dir: Path | None = None,
        *,
        services: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        doors: Sequence[Door] = (),
    ) -> None:
        self.env = stack_environment(env)
        chosen = state_dir or Path(self.env["PENSTOCK_NATIVE_STATE_DIR"])
        self.state_dir = (ROOT / chosen).resolve()
        wanted = tuple(services) if services is not None else (KAFKA, *_beside(), *installed())
        unknown = set(wanted) - {KAFKA, mlflow.NAME, *SERVICES}
        if unknown:
            raise NativeError(f"no such service: {', '.join(sorted(unknown))}")
        self._nodes = self._plan_kafka(doors) if KAFKA in wanted else {}
        self.services = (*self._nodes, *(name for name in wanted if name != KAFKA))
        self.env[_MARK] = str(self.state_dir)
        self.env["PENSTOCK_NATIVE_STATE_DIR"] = str(self.state_dir)
        if not self.env.get("PENSTOCK_COST_DATABASE_URL"):
            self.env["PENSTOCK_COST_DATABASE_URL"] = f"sqlite:///{self.state_dir / 'cost.sqlite'}"
        if mlflow.NAME in self.services:
            mlflow.place(self.env)
        place_retrain(self.env, self.state_dir)
        # The services run by this interpreter find its tools whatever the caller's PATH is.
        self.env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{self.env.get('PATH', '')}"
        self.env.setdefault("PYTHONUNBUFFERED", "1")
        if "inference" not in self.services:
            # Nothing would answer: ingest is ready when it takes requests.
            self.env.setdefault("PENSTOCK_INGEST_PROBE_INTERVAL_S", "0")
        self._supervisor = Supervisor(self.state_dir, ROOT)

    @classmethod
    @contextmanager
    def ephemeral(
        cls,
        services: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        *,
        brokers: int = 1,
        doors: Sequence[Door] = (),
        ready_timeout_s: float = _READY_TIMEOUT_S,
    ) -> Iterator[Self]:
        """Bring up a stack on free ports with fresh data; take it down and remove it afterwards.

        It ends with this process, even when that is killed. Where it listens and what it keeps
        is its own or said by `env`, whatever the process environment says of another stack.

        Args:
            services: Which ones; all of penstock's that are installed if left out.
            env: Settings that differ from `compose/.env` and from the process environment.
            brokers: Kafka's nodes.
            doors: One for each node: the services then reach Kafka by what the doors advertise.
            ready_timeout_s: How long it may take until it is ready.

        Raises:
            StartError: It did not come up; the message ends with the log of what failed.
        """
        state_dir = Path(tempfile.mkdtemp(prefix="penstock-"))
        ports = {name: str(free_port()) for name in port_variables()}
        # Its pumps and engines show theirs on the ports that follow.
        ports["PENSTOCK_INFERENCE_METRICS_PORT"] = str(free_ports(_INFERENCE_METRICS)[0])
        hosts = {f"PENSTOCK_{service.upper()}_HOST": LOOPBACK for service in SERVICES}
        own = {**dict.fromkeys(KEPT, ""), **hosts, **ports, **free_nodes(brokers)}
        wanted = services if services is not None else (KAFKA, *installed())
        stack = cls(state_dir, services=wanted, env={**own, **(env or {})}, doors=doors)
        try:
            stack.up(outlive=False, ready_timeout_s=ready_timeout_s)
            yield stack
        finally:
            stack.down()
            shutil.rmtree(state_dir, ignore_errors=True)

    def up(self, *, outlive: bool = True, ready_timeout_s: float = _READY_TIMEOUT_S) -> bool:
        """Start everything and block until it is ready; False when it was up already.

        Raises:
            StartError: Something did not come up; the message names its log. What did come up
                is left running, to be looked at.
        """
        if self.is_up():
            return False
        self._check_ports()
        _log.info("starting supervisord in %s", self.state_dir)
        self._supervisor.launch(self._programs(), self.env, outlive=outlive)
        if self._nodes:
            self._start_kafka()
            self._apply()
        for service in self.services:
            if service not in self._nodes:
                self.start(service)
        self._wait_ready(ready_timeout_s)
        return True

    def down(self) -> bool:
        """Stop everything and block until no process is left; False when nothing ran."""
        pid = self._supervisor.pid()
        # Listed before anything stops: afterwards a grandchild may have lost the link to us.
        processes = tree(pid) if pid is not None else set()
        if pid is not None:
            supervisor = identify(pid)
            _log.info("stopping")
            self._supervisor.shutdown()
            limit = sum(map(self._stop_wait_s, self.services)) + _STOP_MARGIN_S
            wait_until(lambda: supervisor is None or not alive(supervisor), timeout_s=limit)
        left = processes | marked(_MARK, str(self.state_dir))
        end(left, grace_s=3.0)
        return pid is not None or bool(left)

    def is_up(self) -> bool:
        """Tell whether its supervisord runs."""
        return self._supervisor.pid() is not None

    def states(self) -> list[ProgramState]:
        """Return the state of every service; empty when the stack is down."""
        return self._supervisor.states() if self.is_up() else []

    def pid(self, service: str) -> int:
        """Return the process id of a running service.

        Raises:
            NativeError: It does not run.
        """
        for state in self.states():
            if state.name == service and state.pid:
                return state.pid
        raise NativeError(f"{service} does not run: see {self.log_path(service)}")

    def kill(self, service: str) -> int:
        """Send SIGKILL to a service's process group, as a crash would; return the old pid.

        supervisord starts it again at once. The other processes of its group are gone too.
        """
        pid = self.pid(service)
        os.killpg(pid, signal.SIGKILL)
        return pid

    def stop(self, service: str) -> None:
        """Stop a service in order and block until it has ended; it stays stopped."""
        self._supervisor.stop(service)

    def start(self, service: str) -> None:
        """Start a stopped service; returns without waiting for it to be ready."""
        self._supervisor.start(service)

    def log_path(self, service: str) -> Path:
        """Return the file that holds a service's output."""
        return self._supervisor.log_dir / f"{service}.log"

    def log(self, service: str) -> str:
        """Return a service's output so far; empty before its first start."""
        path = self.log_path(service)
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def ready(self) -> bool:
        """Tell whether every service runs and shows its metrics, and ingest says it is ready.

        Which it does when every model has answered a request.
        """
        states = {state.name: state.running for state in self.states()}
        if not all(states.get(name) and self._shows_metrics(name) for name in self.services):
            return False
        if "ingest" not in self.services:
            return True
        url = f"http://{LOOPBACK}:{self.env['PENSTOCK_INGEST_HTTP_PORT']}/health/ready"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def penstock(self, *arguments: str) -> str:
        """Standard output of the `penstock` command, run against this stack.

        Raises:
            CommandError: It ended with another code than 0; has what it said.
        """
        _log.info("penstock %s", " ".join(arguments))
        result = subprocess.run(  # noqa: S603 - our own command
            [str(Path(sys.executable).with_name("penstock")), *arguments],
            env=self.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise CommandError(
                f"`penstock {' '.join(arguments)}` failed ({result.returncode}):\n"
                f"{result.stdout}{result.stderr}"
            )
        return result.stdout

    def _shows_metrics(self, service: str) -> bool:
        if service == mlflow.NAME:
            return listens(int(self.env["PENSTOCK_MLFLOW_HTTP_PORT"]))
        # Each opens this port once its settings are read and its parts are built.
        port = int(self.env.get(f"PENSTOCK_{service.upper()}_METRICS_PORT", 0))
        return port == 0 or listens(port)

    @property
    def kafka_bootstrap(self) -> str:
        """The addresses of Kafka's nodes themselves, where services come by doors."""
        return bootstrap_of(list(self._nodes.values()))

    @property
    def kafka_ports(self) -> dict[str, int]:
        """The ports of Kafka's nodes, by service."""
        return {name: node.port for name, node in self._nodes.items()}

    def _plan_kafka(self, doors: Sequence[Door]) -> dict[str, Node]:
        nodes = nodes_of(self.env)
        if len(nodes) > 1:
            self.env.setdefault("PENSTOCK_CLI_REPLICATION_FACTOR", str(min(3, len(nodes))))
        if doors:
            nodes = tuple(replace(node, door=door) for node, door in zip(nodes, doors, strict=True))
            advertised = (f"{LOOPBACK}:{door.advertised}" for door in doors)
            self.env["PENSTOCK_KAFKA_BOOTSTRAP"] = ",".join(advertised)
        return {f"{KAFKA}-{node.id}" if len(nodes) > 1 else KAFKA: node for node in nodes}

    def _stop_wait_s(self, name: str) -> int:
        if name in self._nodes and len(self._nodes) > 1:
            return _CLUSTER_STOP_WAIT_S
        return _STOP_WAIT_S.get(name, 10)

    def _programs(self) -> list[Program]:
        return [
            Program(
                name,
                self._command(name),
                stop_wait_s=self._stop_wait_s(name),
            )
            for name in self.services
        ]

    def _command(self, name: str) -> tuple[str, ...]:
        if name == mlflow.NAME:
            return mlflow.command(self.state_dir, self.env)
        node = self._nodes.get(name)
        if node is None:
            return (sys.executable, "-m", f"penstock_{name}")
        options = {
            "--state-dir": str(self.state_dir / name),
            "--port": str(node.port),
            "--controller-port": str(node.controller_port),
            "--heap-mib": str(heap_mib(self.env, len(self._nodes))),
            "--node-id": str(node.id),
            "--voters": ",".join(each.voter for each in self._nodes.values()),
        }
        if node.door is not None:
            options["--door"] = f"{node.door.port}:{node.door.advertised}"
        return (
            sys.executable,
            "-m",
            "penstock_native.kafka",
            *chain.from_iterable(options.items()),
        )

    def _check_ports(self) -> None:
        wanted = [
            (name, number_of(self.env, name))
            for name in port_variables()
            if name.split("_")[1].lower() in self.services
        ]
        for node in self._nodes.values():
            wanted.append(("PENSTOCK_KAFKA_BOOTSTRAP", node.port))
            wanted.append(("PENSTOCK_NATIVE_CONTROLLER_PORT", node.controller_port))
        for name, port in wanted:
            if not is_free(port):
                raise StartError(
                    f"port {port} ({name}) is taken: stop what listens there, or set {name} "
                    "to another, in compose/.env or in the environment"
                )

    def _start_kafka(self) -> None:
        _log.info("starting kafka on %s (a first run fetches it)", self.kafka_bootstrap)
        for service in self._nodes:
            self.start(service)
        count = len(self._nodes)
        self._wait(
            lambda: all(kafka_answers(node.port, nodes=count) for node in self._nodes.values()),
            tuple(self._nodes),
            _KAFKA_TIMEOUT_S,
        )

    def _apply(self) -> None:
        self.penstock("topics", "apply")
        routes = ROOT / self.env["PENSTOCK_NATIVE_ROUTES"]
        if routes.exists():
            # A stack that comes up again may have moved on from its first routes.
            self.penstock("routes", "apply", "--keep-newer", str(routes))
        else:
            _log.warning("%s is not there: no routes applied", routes)

    def _wait_ready(self, timeout_s: float) -> None:
        names = [service for service in self.services if service not in self._nodes]
        if names:
            _log.info("waiting for %s", ", ".join(names))
        self._wait(self.ready, self.services, timeout_s)

    def _wait(
        self, condition: Callable[[], bool], services: Sequence[str], timeout_s: float
    ) -> None:
        starts: dict[str, set[int]] = {service: set() for service in services}

        def settled() -> bool:
            return condition() or self._failed(starts)

        done = wait_until(settled, timeout_s, every_s=0.2)
        if done and not self._failed(starts):
            return
        waiting = [state.name for state in self.states() if not state.running] or list(services)
        guilty = [name for name, pids in starts.items() if len(pids) >= _STARTS_LIMIT] or waiting
        logs = "\n".join(f"{self.log_path(name)}:\n{self.log(name)[-1500:]}" for name in guilty)
        raise StartError(f"{', '.join(guilty)} did not come up; the end of the log:\n{logs}")

    def _failed(self, starts: dict[str, set[int]]) -> bool:
        states = [state for state in self.states() if state.name in starts]
        for state in states:
            if state.pid:
                starts[state.name].add(state.pid)
        return any(
            state.state == "FATAL" or len(starts[state.name]) >= _STARTS_LIMIT for state in states
        )


def installed() -> tuple[str, ...]:
    """Return the services that can be run: those whose package has a `__main__`."""
    return tuple(name for name in SERVICES if _has_main(f"penstock_{name}"))


def _beside() -> tuple[str, ...]:
    """What runs beside the services where it is installed."""
    return (mlflow.NAME,) if mlflow.installed() else ()


def _has_main(package: str) -> bool:
    try:
        return importlib.util.find_spec(f"{package}.__main__") is not None
    except ModuleNotFoundError:
        return False
