"""The stage `training` of a job: its dataset becomes weights, in a process under Ray."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.telemetry import logger
from penstock_retrain.bases import Bases, NoBaseModel
from penstock_retrain.code import code_version
from penstock_retrain.jobs.policy import PolicyError, parse_policy
from penstock_retrain.jobs.stages import (
    Desk,
    NotYet,
    Outcome,
    Progress,
    Report,
    StageBroken,
    StageResult,
)
from penstock_retrain.jobs.states import Job, JobState
from penstock_retrain.training.driver import command
from penstock_retrain.training.errors import TrainingFailed, TrainingImpossible
from penstock_retrain.training.importing import take_in
from penstock_retrain.training.policy import MethodName, TrainingPolicy
from penstock_retrain.training.request import Resources, Trained, TrainingRequest
from penstock_retrain.training.runs import ProgressLog, Run, ray_folder

__all__ = ["TrainingStage"]

log = logger(__name__)

POLL_S = 0.5
STOP_S = 5.0
MAX_ERROR = 300


class TrainingStage:
    """Trains what a job's dataset holds, as its policy says.

    What a killed run left is found by the job's id: one that was finished is not run again, one
    that was not goes on from its last checkpoint. The base model is kept when the stage begins: an
    attempt after another champion's promotion trains the same one.

    Args:
        desk: Where that is kept.
        folder: Trainings go below it, one directory for each job. Where Ray is a cluster, its
            nodes see it under the same path, as they do datasets and base models.
        resources: What a training may use.
        bases: Where base models are.
        imports: Where adapters are that were trained elsewhere; None takes none in.
        serving: The engine's model that serves a model's champion now; empty where none does.
    """

    def __init__(
        self,
        desk: Desk,
        folder: Path,
        resources: Resources,
        bases: Bases,
        imports: Path | None = None,
        serving: Callable[[str], str] = lambda model: "",
    ) -> None:
        self._desk = desk
        self._folder = folder
        self._resources = resources
        self._bases = bases
        self._imports = imports
        self._serving = serving

    async def run(self, job: Job, progress: Report) -> StageResult:
        """See `penstock_retrain.jobs.stages.Stage`."""
        try:
            policy = TrainingPolicy.of(parse_policy(job.policy).training)
            job = await self._asked(job, policy)
            request = self._request(job, policy)
        except (PolicyError, TrainingImpossible) as error:
            raise StageBroken(f"the policy: {error}") from error
        run = self._run(job)
        trained = await asyncio.to_thread(run.trained, request)
        if trained is None:
            await asyncio.to_thread(run.prepare, request)
            if request.policy.method is MethodName.IMPORTED:
                await self._import(request, run, progress)
            else:
                await self._train(run, progress)
            trained = await asyncio.to_thread(run.trained, request)
        if trained is None:
            refusal = await asyncio.to_thread(run.refusal)
            if refusal is not None:
                raise StageBroken(refusal)
            raise TrainingFailed(await asyncio.to_thread(_account, run))
        return StageResult(Outcome.DONE, _facts(request, trained, run))

    async def clean(self, job: Job) -> None:
        """Removes weights and checkpoints: what was registered has its own copy.

        What was asked, how it went and what came of it stay, for lineage.
        """
        run = self._run(job)
        try:
            await asyncio.to_thread(run.remove)
        except TrainingFailed as error:
            raise NotYet(str(error)) from error
        await asyncio.to_thread(shutil.rmtree, ray_folder(run.path), ignore_errors=True)

    async def _import(self, request: TrainingRequest, run: Run, progress: Report) -> None:
        progress(Progress("taking in what was trained elsewhere"))
        try:
            await asyncio.to_thread(take_in, request, self._imports, run)
        except TrainingImpossible as error:
            raise StageBroken(str(error)) from error

    async def _train(self, run: Run, progress: Report) -> None:
        """Has a process train, until it ends; it ends with this one."""
        progress(Progress("starting Ray"))
        reports = ProgressLog(run.progress)
        with run.log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command(run.path, self._resources),
                "--until-stdin-ends",
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        ended = asyncio.create_task(process.wait())
        try:
            while not ended.done():
                await asyncio.wait((ended,), timeout=POLL_S)
                for each in await asyncio.to_thread(reports.new):
                    progress(each)
        finally:
            await _stop(process, ended)
        log.info("a training's process ended", run=run.path.name, code=process.returncode)

    async def _asked(self, job: Job, policy: TrainingPolicy) -> Job:
        """The job with the base model in it."""
        if "asked" in job.result(JobState.TRAINING):
            return job
        base_model = policy.base_model or self._serving(job.model) or job.model
        return await self._desk.keep(job, {"asked": {"base_model": base_model}})

    def _request(self, job: Job, policy: TrainingPolicy) -> TrainingRequest:
        base_model = str(job.result(JobState.TRAINING)["asked"]["base_model"])
        try:
            base_path = self._bases.find(base_model)
        except NoBaseModel as error:
            raise TrainingImpossible(f"training.base_model: {error}") from None
        dataset = job.result(JobState.DATASET)
        if not dataset.get("path") or not dataset.get("digest"):
            raise StageBroken(f"job {job.id} has no dataset: the stage before it has to make one")
        return TrainingRequest(
            job_id=job.id,
            base_model=base_model,
            base_path=base_path,
            dataset_path=Path(str(dataset["path"])).resolve(),
            dataset_digest=str(dataset["digest"]),
            policy=policy,
            code=code_version(__package__),
        )

    def _run(self, job: Job) -> Run:
        return Run((self._folder / job.id).resolve())


async def _stop(process: asyncio.subprocess.Process, ended: asyncio.Task[int]) -> None:
    """Ends a process that is still there, with patience and then without."""
    for verb in (process.terminate, process.kill):
        if ended.done():
            return
        with contextlib.suppress(ProcessLookupError):
            verb()
        await asyncio.wait((ended,), timeout=STOP_S)


def _account(run: Run) -> str:
    """Why a process ended without a result, as far as its log says."""
    try:
        lines = run.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    last = lines[-1].strip()[:MAX_ERROR] if lines else "it said nothing"
    return f"the training's process ended without a result: {last} (see {run.log})"


def _facts(request: TrainingRequest, trained: Trained, run: Run) -> dict[str, Any]:
    """What the job keeps: for registering, for the mirror, for the card, for lineage."""
    policy = request.policy
    found = {
        "kind": trained.kind.value,
        "base_model": request.base_model,
        "dir": str(run.result),
        "method": policy.method.value,
        "dataset_digest": request.dataset_digest,
        "base_digest": trained.base_digest,
        "request_digest": request.digest,
        "code": dict(request.code),
        "metrics": dict(trained.metrics),
    }
    if policy.method is MethodName.IMPORTED:
        # Nobody here knows how it was trained, nor on what.
        return {**found, "parameters": policy.imported.model_dump(mode="json")}
    return {
        **found,
        "seed": policy.seed,
        "steps": trained.steps,
        "best_step": trained.best_step,
        "epochs": policy.epochs,
        "batch_size": policy.batch_size,
        "learning_rate": policy.peak_rate,
        "rows": trained.rows,
        "held_out_rows": trained.held_out_rows,
        "left_out": dict(trained.left_out),
        "parameters": policy.parameters(),
        "packages": dict(trained.packages),
    }
