"""The stage `dataset` of a job: what was collected until now becomes what is trained on."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from penstock.telemetry import logger
from penstock_retrain.dataset.building import Selection, select_dataset
from penstock_retrain.dataset.errors import DatasetError, NotEnough, TeacherError
from penstock_retrain.dataset.findings import Drift, Findings
from penstock_retrain.dataset.policy import DatasetPolicy
from penstock_retrain.dataset.store import FileStore
from penstock_retrain.dataset.writing import DATASET
from penstock_retrain.jobs.stages import Desk, Outcome, Progress, Report, StageBroken, StageResult
from penstock_retrain.jobs.states import CauseKind, Job, JobState

__all__ = ["DatasetStage", "Settling"]

log = logger(__name__)

SETTLE_S = 60.0
AGAIN_S = 10.0


class Settling(Protocol):
    """Who collects."""

    async def settle(self, timeout_s: float) -> bool:
        """See `penstock_retrain.dataset.collector.Collector`."""
        ...


class DatasetStage:
    """Makes a job's dataset.

    The instant until which rows count is kept first, so a run again chooses from the same rows.
    With fewer than the policy asks for it waits, and looks again.

    Args:
        desk: Where that instant is kept.
        store: Where the collector's files are.
        folder: Datasets go below it, one directory for each job.
        findings: What drift found.
        collector: Brings what is on the log into files first; None where another process does.
        policy_of: The part `dataset` of a job's policy, with defaults filled in.
        clock_ms: Milliseconds since 1970.
        sleep: Waits for seconds.
    """

    def __init__(
        self,
        desk: Desk,
        store: FileStore,
        folder: Path,
        findings: Findings,
        collector: Settling | None = None,
        *,
        policy_of: Callable[[str], DatasetPolicy] = DatasetPolicy.parse,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._desk = desk
        self._store = store
        self._folder = folder
        self._findings = findings
        self._collector = collector
        self._policy_of = policy_of
        self._clock_ms = clock_ms
        self._sleep = sleep

    async def run(self, job: Job, progress: Report) -> StageResult:
        """See `penstock_retrain.jobs.stages.Stage`."""
        try:
            policy = self._policy_of(job.policy)
        except DatasetError as error:
            raise StageBroken(f"the policy: {error}") from error
        asked = job.result(JobState.DATASET).get("asked")
        if asked is None:
            asked = await self._ask(job)
            job = await self._desk.keep(job, {"asked": asked})
        while True:
            try:
                return await self._select(job, policy, asked, progress)
            except NotEnough as error:
                now_ms = self._clock_ms()
                if now_ms >= asked["asked_ms"] + policy.wait_s * 1000:
                    raise StageBroken(str(error)) from error
                progress(Progress(f"{error}; waiting for more"))
            await self._sleep(AGAIN_S)
            asked = {**asked, "until_ms": self._clock_ms()}
            job = await self._desk.note(job, {"asked": asked})

    async def _select(
        self, job: Job, policy: DatasetPolicy, asked: Mapping[str, Any], progress: Report
    ) -> StageResult:
        await self._settle(progress)
        selection = Selection(
            job.model,
            policy,
            until_ms=asked["until_ms"],
            onset_ms=asked["onset_ms"],
            drifted=tuple(asked["drifted"]),
        )
        try:
            dataset = await select_dataset(
                self._store,
                selection,
                self._path(job),
                report=lambda message: progress(Progress(message)),
            )
        except (TeacherError, NotEnough):
            raise  # the teacher may be back in a while, and more will have been said
        except DatasetError as error:
            raise StageBroken(str(error)) from error
        return StageResult(Outcome.DONE, dataset.facts())

    async def clean(self, job: Job) -> None:
        """Removes what is no dataset; what is one stays, for lineage."""
        path = self._path(job)

        def remove() -> None:
            if path.exists() and not (path / DATASET).exists():
                shutil.rmtree(path)

        await asyncio.to_thread(remove)

    async def _ask(self, job: Job) -> dict[str, Any]:
        drift = Drift()
        if job.cause.kind is CauseKind.INCIDENT:
            drift = await self._findings.of(job.cause.id, job.model)
        now_ms = self._clock_ms()
        return {
            "asked_ms": now_ms,
            "until_ms": now_ms,
            "onset_ms": drift.onset_ms,
            "drifted": list(drift.segments),
        }

    async def _settle(self, progress: Report) -> None:
        if self._collector is None:
            return
        progress(Progress("bringing what is on the log into files"))
        if not await self._collector.settle(SETTLE_S):
            # What is not in a file yet is left out; the dataset says which offsets it has.
            log.warning("the collector lags behind the log")

    def _path(self, job: Job) -> Path:
        return self._folder / job.id
