"""supervisord as a library: its configuration, its start, and calls to it over its unix socket."""

import hashlib
import os
import shlex
import signal
import sys
import tempfile
import xmlrpc.client
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from penstock_native.errors import NativeError, StartError
from penstock_native.ports import wait_until
from penstock_native.processes import leashed, spawn

# Linux takes 107 bytes for a socket's path, and supervisord binds `<path>.<its pid>` first.
_SOCKET_PATH_LIMIT = 95

_PID_FILE = "supervisord.pid"
_BAD_NAME, _ALREADY_STARTED, _NOT_RUNNING = 10, 60, 70


@dataclass(frozen=True)
class Program:
    """What supervisord runs: a command, and how long it may take to stop."""

    name: str
    command: tuple[str, ...]
    stop_wait_s: int = 10
    autostart: bool = False


@dataclass(frozen=True)
class ProgramState:
    """What supervisord says about one program: its state's name, pid (0: none), start time."""

    name: str
    state: str
    pid: int
    started_at_s: int
    now_s: int
    error: str

    @property
    def running(self) -> bool:
        """Whether it has stayed up for its first second."""
        return self.state == "RUNNING"


def socket_path(state_dir: Path) -> Path:
    """Return where the control socket goes: the state directory, or a short one if that is deep."""
    path = state_dir / "supervisor.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
        return path
    digest = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"penstock-{os.getuid()}-{digest}" / "s.sock"


class Supervisor:
    """One supervisord: its processes are leashed to it, and it restarts those that end."""

    def __init__(self, state_dir: Path, directory: Path) -> None:
        self._state_dir = state_dir
        self._directory = directory
        self.socket = socket_path(state_dir)
        self.log_dir = state_dir / "log"
        self.log_path = self.log_dir / "supervisord.log"

    def launch(
        self, programs: Sequence[Program], environment: Mapping[str, str], *, outlive: bool
    ) -> None:
        """Start supervisord and block until it takes calls.

        Raises:
            StartError: It did not come up; the message names its log.
        """
        self.log_dir.mkdir(parents=True, exist_ok=True)
        self._make_socket_dir()
        configuration = self._state_dir / "supervisord.conf"
        configuration.write_text(self._configuration(programs), encoding="utf-8")
        process = spawn(
            [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(configuration)],
            log=self.log_dir / "supervisord.out.log",
            environment=environment,
            outlive=outlive,
            signal_number=signal.SIGTERM,  # it stops its programs in order
            reap=True,
        )
        wait_until(lambda: process.poll() is not None or self.pid() is not None, timeout_s=20)
        if self.pid() is None:
            raise StartError(f"supervisord did not come up: see {self.log_path}")

    def pid(self) -> int | None:
        """Return supervisord's process id; None when it does not run."""
        try:
            with self._calls() as supervisor:
                return int(supervisor.getPID())
        except xmlrpc.client.Fault:
            # It is on its way down, and takes no more calls.
            return int((self._state_dir / _PID_FILE).read_text(encoding="utf-8"))
        except (OSError, HTTPException):
            return None

    def states(self) -> list[ProgramState]:
        """Return the state of every program."""
        with self._calls() as supervisor:
            return [
                ProgramState(
                    name=info["name"],
                    state=info["statename"],
                    pid=info["pid"],
                    started_at_s=info["start"],
                    now_s=info["now"],
                    error=info["spawnerr"],
                )
                for info in supervisor.getAllProcessInfo()
            ]

    def start(self, name: str) -> None:
        """Start a program without waiting for it; does nothing when it runs."""
        with self._calls() as supervisor, _faults(name, but=_ALREADY_STARTED):
            supervisor.startProcess(name, False)

    def stop(self, name: str) -> None:
        """Stop a program and block until it has ended; does nothing when it does not run."""
        with self._calls() as supervisor, _faults(name, but=_NOT_RUNNING):
            supervisor.stopProcess(name)

    def shutdown(self) -> None:
        """Ask supervisord to stop everything and end; returns at once."""
        with self._calls() as supervisor:
            supervisor.shutdown()

    @contextmanager
    def _calls(self) -> Iterator[Any]:
        with closing(SupervisorTransport(None, None, f"unix://{self.socket}")) as transport:
            proxy: Any = xmlrpc.client.ServerProxy("http://localhost", transport=transport)
            yield proxy.supervisor

    def _make_socket_dir(self) -> None:
        home = self.socket.parent
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if home != self._state_dir and home.stat().st_uid != os.getuid():
            raise NativeError(f"{home} belongs to another user: choose a state directory less deep")

    def _configuration(self, programs: Sequence[Program]) -> str:
        sections = [
            "[supervisord]",
            f"logfile={_plain(self.log_path)}",
            f"pidfile={_plain(self._state_dir / _PID_FILE)}",
            f"directory={_plain(self._directory)}",
            "silent=true",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
            "[unix_http_server]",
            f"file={_plain(self.socket)}",
            "chmod=0700",
        ]
        # supervisord stops one after another, the highest priority first: what the others need,
        # which stands first here, goes last.
        for priority, program in enumerate(programs):
            # Written before supervisord has an id: the leash does not check for its parent.
            command = leashed(program.command, parent=0, signal_number=signal.SIGKILL)
            sections += [
                f"[program:{program.name}]",
                f"command={_plain(shlex.join(command))}",
                f"priority={priority}",
                f"autostart={str(program.autostart).lower()}",
                "autorestart=true",
                "startsecs=1",
                "startretries=5",
                # SIGTERM goes to the service alone: it ends its children in order (Ray's would
                # go first otherwise, and the drain would wait for them). SIGKILL takes them all.
                "killasgroup=true",
                f"stopwaitsecs={program.stop_wait_s}",
                "redirect_stderr=true",
                f"stdout_logfile={_plain(self.log_dir / f'{program.name}.log')}",
                "stdout_logfile_maxbytes=20MB",
                "stdout_logfile_backups=1",
            ]
        return "\n".join(sections) + "\n"


def _plain(text: object) -> str:
    # supervisord expands %(...)s in values.
    return str(text).replace("%", "%%")


@contextmanager
def _faults(name: str, but: int) -> Iterator[None]:
    try:
        yield
    except xmlrpc.client.Fault as fault:
        if fault.faultCode == _BAD_NAME:
            raise NativeError(f"no such service: {name}") from fault
        if fault.faultCode != but:
            raise NativeError(f"{name}: supervisord answers {fault.faultString}") from fault
