"""Starting processes that can't outlive their parent, and ending whole trees of them."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock_native.ports import wait_until

LEASH = Path(__file__).with_name("leash.py")


def leashed(
    command: Sequence[str], *, parent: int, signal_number: int, reap: bool = False
) -> list[str]:
    """Return the command that runs `command` under the leash (see `leash`).

    A parent of 0 skips the check that the parent still lives: for commands in a configuration file,
    written before their parent's id is known.
    """
    flags = ["--reap"] if reap else []
    head = [sys.executable, "-I", "-S", str(LEASH), *flags, str(int(signal_number)), str(parent)]
    return [*head, *command]


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    outlive: bool = False,
    signal_number: int = signal.SIGKILL,
    reap: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, its output appended to `log`.

    It gets `signal_number` when this process dies, unless `outlive`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started: list[subprocess.Popen[bytes]] = []
    failed: list[OSError] = []
    ready = threading.Event()
    full = leashed(
        command,
        parent=0 if outlive else os.getpid(),
        signal_number=0 if outlive else signal_number,
        reap=reap,
    )

    def own() -> None:
        try:
            with log.open("ab") as output:
                started.append(
                    subprocess.Popen(  # noqa: S603 - the callers' own commands
                        full,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=None if environment is None else dict(environment),
                        start_new_session=True,
                    )
                )
        except OSError as error:
            failed.append(error)
        ready.set()
        if started and not outlive:
            started[0].wait()

    # The kernel counts the *thread* that started a child as its parent: a thread that lasts as
    # long as the child, so that the end of a caller's worker thread doesn't end the child.
    threading.Thread(target=own, name=f"leash {log.stem}", daemon=True).start()
    ready.wait()
    if failed:
        raise failed[0]
    return started[0]


@dataclass(frozen=True)
class Identity:
    """A process as itself: the start time tells it from a later one with the same id."""

    pid: int
    started: int


def identify(pid: int) -> Identity | None:
    """Return the identity of a live process; None when it is gone or a zombie."""
    fields = _stat(pid)
    if fields is None or fields[0] in {"Z", "X"}:
        return None
    return Identity(pid, int(fields[19]))


def tree(root: int) -> set[Identity]:
    """Return the live descendants of a process and itself, as they are now."""
    children: dict[int, list[int]] = {}
    for pid in _all_pids():
        fields = _stat(pid)
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(pid)
    found: set[Identity] = set()
    todo = [root]
    while todo:
        pid = todo.pop()
        todo.extend(children.get(pid, ()))
        identity = identify(pid)
        if identity is not None:
            found.add(identity)
    return found


def marked(name: str, value: str) -> set[Identity]:
    """Return the live processes whose starting environment has `name=value`."""
    wanted = f"{name}={value}".encode()
    found = set()
    for pid in _all_pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        identity = identify(pid) if wanted in environment else None
        if identity is not None and pid != os.getpid():
            found.add(identity)
    return found


def end(processes: Iterable[Identity], grace_s: float = 0.0) -> None:
    """End processes by id: SIGTERM, `grace_s` to comply, SIGKILL. Blocks until they are gone."""
    left = {process for process in processes if alive(process)}
    if grace_s > 0:
        _signal(left, signal.SIGTERM)
        wait_until(lambda: not any(map(alive, left)), grace_s)
    _signal(left, signal.SIGKILL)
    wait_until(lambda: not any(map(alive, left)), timeout_s=10)


def alive(process: Identity) -> bool:
    """Tell whether this very process still runs."""
    return identify(process.pid) == process


def _signal(processes: Iterable[Identity], number: signal.Signals) -> None:
    for process in processes:
        if alive(process):
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                continue


def _all_pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208 - names


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the command's name in parentheses, and may hold spaces and parentheses.
    return text.rpartition(")")[2].split()
