"""The retrain service as a process with small stages, which kills or stops itself where told.

Everything is the service's own but some stages, whose work is small (`small`: shadow and canary,
too; `own`: those are the service's): jobs, registering, routes, SQL, Kafka and gRPC are what runs
in production.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from sqlalchemy.engine import Connection

from penstock.kafka import transactions
from penstock.kafka.broker import send_all
from penstock.records import Outgoing
from penstock.sql import Database
from penstock.v1 import route_pb2
from penstock_retrain.app import serve
from penstock_retrain.composition import Parts, compose_stages
from penstock_retrain.jobs.effects import candidate_of
from penstock_retrain.jobs.stages import (
    Outcome,
    Progress,
    RouteChange,
    RouteChangeKind,
    Stage,
    StageResult,
)
from penstock_retrain.jobs.states import Job, JobState
from penstock_retrain.settings import RetrainSettings

S, K = JobState, RouteChangeKind
STEPS = (5.0, 50.0)


class Point:
    """Where this process ends itself, once: `training:during`."""

    def __init__(self, where: str, marker: Path) -> None:
        self._where, self._marker = where, marker

    def __call__(self, where: str) -> None:
        if where == self._where and not self._marker.exists():
            self._marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Small:
    """A stage whose work is small; what it does is `work`, in which it may be killed."""

    def __init__(self, state: JobState, parts: Parts, point: Point, hold: Path) -> None:
        self._state, self._parts, self._point, self._hold = state, parts, point, hold

    async def run(self, job: Job, progress: Callable[[Progress], None]) -> StageResult:
        self._point(f"{self._state}:before")
        progress(Progress("working", 1, 2, 1.0, {"loss": 0.5}))
        result = await self._work(job)
        self._point(f"{self._state}:after")
        return result

    async def clean(self, job: Job) -> None:
        run = self._run(job)
        if job.state is not S.PROMOTED and run.exists():
            for path in run.iterdir():
                path.unlink()
            run.rmdir()

    async def _work(self, job: Job) -> StageResult:
        match self._state:
            case S.DATASET:
                facts = {"digest": "d" * 64, "rows": 3, "sources": {"responses/0": [0, 2]}}
                await self._parts.desk.keep(job, {"rows": 1})
                self._point("dataset:during")
                return StageResult(Outcome.DONE, facts)
            case S.TRAINING:
                return self._train(job)
            case S.EVALUATING:
                self._point("evaluating:during")
                if self._says("reject"):
                    return StageResult(Outcome.REFUSED, {"passed": False}, "not good enough")
                return StageResult(Outcome.DONE, {"passed": True})
            case S.SHADOW:
                return await self._shadow(job)
            case _:
                return await self._canary(job)

    def _run(self, job: Job) -> Path:
        return self._parts.settings.work_dir / job.id

    def _train(self, job: Job) -> StageResult:
        run = self._run(job)
        run.mkdir(parents=True, exist_ok=True)
        (run / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
        self._point("training:during")
        (run / "adapter_model.safetensors").write_bytes(b"weights")
        facts = {"kind": "adapter", "base_model": "triage", "dir": str(run)}
        return StageResult(Outcome.DONE, facts)

    async def _shadow(self, job: Job) -> StageResult:
        candidate = candidate_of(job)
        assert candidate is not None
        if not job.result(S.SHADOW):
            change = RouteChange(K.SHADOW, candidate, 100)
            job = await self._parts.desk.keep(job, {"since": 1}, change=change)
        self._point("shadow:during")
        return StageResult(Outcome.DONE, {"compared": 3})

    async def _canary(self, job: Job) -> StageResult:
        candidate = candidate_of(job)
        assert candidate is not None
        for step, percent in enumerate(STEPS, 1):
            if job.step < step:
                change = RouteChange(K.SPLIT, candidate, percent)
                job = await self._parts.desk.keep(job, {"step": step}, step=step, change=change)
            self._point(f"canary:step{step}")
        while self._hold.exists():
            await asyncio.sleep(0.05)
        if self._says("worse"):
            return StageResult(Outcome.ROLL_BACK, {"e_value": 0.1}, "worse")
        return StageResult(Outcome.PROMOTE, {"e_value": 25.0})

    def _says(self, verdict: str) -> bool:
        """Whether the test wants the candidate to end so."""
        return self._hold.with_name(verdict).exists()


class DeadlyRegistering:
    """The service's own stage, killed around its work."""

    def __init__(self, stage: Stage, point: Point) -> None:
        self._stage, self._point = stage, point

    async def run(self, job: Job, progress: Callable[[Progress], None]) -> StageResult:
        self._point("registering:before")
        result = await self._stage.run(job, progress)
        self._point("registering:after")
        return result

    async def clean(self, job: Job) -> None:
        await self._stage.clean(job)


def composed(home: Path, where: str, stages: str) -> Callable[[Parts], Mapping[JobState, Stage]]:
    point = Point(where, home / "killed")

    def compose(parts: Parts) -> Mapping[JobState, Stage]:
        own = compose_stages(parts)
        small: tuple[JobState, ...] = (S.DATASET, S.TRAINING, S.EVALUATING)
        if stages == "small":
            small += (S.SHADOW, S.CANARY)
        made: dict[JobState, Stage] = dict(own) | {
            state: Small(state, parts, point, home / "hold") for state in small
        }
        made[S.REGISTERING] = DeadlyRegistering(own[S.REGISTERING], point)
        return made

    return compose


def sleep_at(where: str, home: Path) -> None:
    """Has this process stop (SIGSTOP) at the second step's route, before or after sending it."""

    # A process that sleeps within a transaction of SQLite holds everybody up: not what is tested.
    writing = threading.RLock()
    own_writing = Database.writing

    @contextlib.contextmanager
    def alone(database: Database) -> Iterator[Connection]:
        with writing, own_writing(database) as connection:
            yield connection

    def stop(records: Sequence[Outgoing]) -> None:
        marker = home / "stopped"
        if marker.exists():
            return
        for record in records:
            route = route_pb2.Route.FromString(record.value or b"")
            candidates = [v for v in route.variants if v.stage == route_pb2.STAGE_CANDIDATE]
            if any(v.weight == 5000 for v in candidates):
                with writing:
                    marker.touch()
                    os.kill(os.getpid(), signal.SIGSTOP)

    async def sleepy(producer: object, records: Sequence[Outgoing]) -> None:
        if where == "before":
            stop(records)
        await send_all(producer, records)
        if where == "within":
            stop(records)

    transactions.send_all = sleepy
    Database.writing = alone  # type: ignore[method-assign]


if __name__ == "__main__":
    home_, (kill, sleep, stages_) = Path(sys.argv[1]), sys.argv[2:]
    if sleep:
        sleep_at(sleep, home_)
    asyncio.run(serve(RetrainSettings.load(), composed(home_, kill, stages_)))
