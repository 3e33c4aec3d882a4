"""A training's directory: what was asked, how far it is, its checkpoints, what came of it.

    request.json      what is trained, on what, how
    progress.jsonl    a line per report, from all processes that worked on it
    checkpoints/      of the trainer
    before.json       what the base model measures
    result/           the weights and training.json; renamed into place, so all of it or nothing
    outcome.json      why it ended without a result

One process works on it at a time: it holds a lock on `lock`, which has its process id. That file is
never removed: who waits for one that is gone would not keep out who makes a new one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from penstock_retrain.jobs.stages import Progress
from penstock_retrain.training.errors import TrainingFailed, TrainingImpossible
from penstock_retrain.training.request import Trained, TrainingRequest

__all__ = ["ProgressLog", "Run", "ray_folder"]

POLL_S = 0.2
TRAINED = "training.json"


class Run:
    """The directory of one job's training.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.result = path / "result"
        self.half = path / "result.half"
        self.log = path / "process.log"
        self.progress = path / "progress.jsonl"
        self._request = path / "request.json"
        self._outcome = path / "outcome.json"
        self._before = path / "before.json"
        self._lock = path / "lock"

    def prepare(self, request: TrainingRequest) -> None:
        """Writes what is asked; what was done for another request is removed. Idempotent.

        Raises:
            TrainingFailed: Another process works for the other request.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._asks(request):
            with self._guarded(0):
                # First: what is half removed is nobody's.
                self._request.unlink(missing_ok=True)
                self._empty(keep=())
        self._outcome.unlink(missing_ok=True)
        _write(self._request, request.document())

    def request(self) -> TrainingRequest:
        """What is asked.

        Raises:
            TrainingFailed: Nothing is, or it cannot be read.
        """
        try:
            return TrainingRequest.of(_read(self._request))
        except (OSError, ValueError, KeyError, TypeError, TrainingImpossible) as error:
            raise TrainingFailed(f"{self._request} is no request: {error!r}") from error

    def trained(self, request: TrainingRequest) -> Trained | None:
        """What came of it; None while it has not ended, or where another request's did."""
        try:
            trained = Trained.of(_read(self.result / TRAINED))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return trained if trained.request_digest == request.digest else None

    def finish(self, request: TrainingRequest, trained: Trained) -> None:
        """Puts what `half` holds in its place, with what is known of it."""
        _write(self.half / TRAINED, trained.document(request))
        for path in self.half.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)  # engines may run as another user
        shutil.rmtree(self.result, ignore_errors=True)
        self.half.rename(self.result)

    def refuse(self, reason: str) -> None:
        """Says that it is impossible, and why."""
        _write(self._outcome, {"impossible": reason})

    def refusal(self) -> str | None:
        """Why it is impossible; None where nobody said so."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(_read(self._outcome)["impossible"])
        return None

    def keep_before(self, metrics: Mapping[str, float]) -> None:
        """Keeps what the base model measures, for whoever continues."""
        _write(self._before, dict(metrics))

    def before(self) -> dict[str, float] | None:
        """What the base model measures; None where it was not measured."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return {str(name): float(value) for name, value in _read(self._before).items()}
        return None

    @contextlib.contextmanager
    def held(self, timeout_s: float) -> Iterator[None]:
        """Keeps other processes away from the directory.

        Waits for one that has it, and says so: a service that slept through its claim may train
        here still, and what comes of that is what is asked.

        Raises:
            TrainingFailed: Another one has it for longer than `timeout_s`.
        """
        with self._guarded(timeout_s) as file:
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    @contextlib.contextmanager
    def _guarded(self, timeout_s: float) -> Iterator[IO[str]]:
        """The lock's file, locked and empty: nobody works here yet."""
        with self._lock.open("a+") as file:
            until = time.monotonic() + timeout_s
            locked = _locked(file.fileno())
            if not locked and timeout_s > 0:
                self.report(Progress("waiting for another process that trains here"))
            while not (locked or _locked(file.fileno())):
                if time.monotonic() > until:
                    raise TrainingFailed(f"another process trains in {self.path}")
                time.sleep(POLL_S)
            file.truncate(0)
            yield file

    @property
    def worker_pid(self) -> int | None:
        """The process that works on it, or did last."""
        with contextlib.suppress(OSError, ValueError):
            return int(self._lock.read_text())
        return None

    def report(self, progress: Progress) -> None:
        """Adds a line to the progress."""
        line = json.dumps({"at_s": time.time(), **dataclasses.asdict(progress)})
        with self.progress.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def remove(self) -> None:
        """Removes all but what says how it went.

        Raises:
            TrainingFailed: Another process has it.
        """
        if not self.path.is_dir():
            return
        with self._guarded(0):
            said = self.result / TRAINED
            if said.is_file():
                said.replace(self.path / TRAINED)
            self._empty(keep=(self._request.name, self.progress.name, TRAINED))

    def _empty(self, keep: tuple[str, ...]) -> None:
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in (*keep, self._lock.name):
                path.unlink()

    def _asks(self, request: TrainingRequest) -> bool:
        try:
            return self.request().digest == request.digest
        except TrainingFailed:
            return not any(self.path.iterdir())


def ray_folder(run: Path) -> Path:
    """Below which a Ray of this training's own keeps its sockets and logs.

    Not in its directory: a socket's path has 107 characters at most, and Ray's own part takes 65.
    """
    name = hashlib.sha256(str(run).encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"penstock-{name}"


class ProgressLog:
    """Reads what is added to a training's progress.

    Args:
        path: The file, which may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def new(self) -> list[Progress]:
        """Whole lines that came since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [progress for line in whole.splitlines() if (progress := _progress(line))]


def _progress(line: bytes) -> Progress | None:
    try:
        said = json.loads(line)
        del said["at_s"]
        return Progress(**said)
    except (ValueError, KeyError, TypeError):
        return None  # half a line of a killed process, with the next one's behind it


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, document: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(document, indent=1, sort_keys=True), encoding="utf-8")
    temporary.replace(path)
