"""The stage `training` of a job: its dataset becomes weights, in a process under Ray."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from pathlib import Path
from typing import Any

from penstock.telemetry import logger
from penstock_retrain.bases import Bases
from penstock_retrain.code import code_version
from penstock_retrain.jobs.policy import PolicyError, parse_policy
from penstock_retrain.jobs.stages import Outcome, Progress, Report, StageBroken, StageResult
from penstock_retrain.jobs.states import Job, JobState
from penstock_retrain.training.driver import command
from penstock_retrain.training.errors import TrainingFailed, TrainingImpossible
from penstock_retrain.training.policy import TrainingPolicy
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
    that was not goes on from its last checkpoint.

    Args:
        folder: Trainings go below it, one directory for each job. Where Ray is a cluster, its
            nodes see it under the same path, as they do datasets and base models.
        resources: What a training may use.
        bases: Where base models are.
    """

    def __init__(self, folder: Path, resources: Resources, bases: Bases) -> None:
        self._folder = folder
        self._resources = resources
        self._bases = bases

    async def run(self, job: Job, progress: Report) -> StageResult:
        """See `penstock_retrain.jobs.stages.Stage`."""
        try:
            request = self._request(job)
        except (PolicyError, TrainingImpossible) as error:
            raise StageBroken(f"the policy: {error}") from error
        run = self._run(job)
        trained = await asyncio.to_thread(run.trained, request)
        if trained is None:
            await asyncio.to_thread(run.prepare, request)
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
        await asyncio.to_thread(run.remove)
        await asyncio.to_thread(shutil.rmtree, ray_folder(run.path), ignore_errors=True)

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

    def _request(self, job: Job) -> TrainingRequest:
        policy = TrainingPolicy.of(parse_policy(job.policy).training)
        base_model = policy.base_model or job.model
        dataset = job.result(JobState.DATASET)
        if not dataset.get("path") or not dataset.get("digest"):
            raise StageBroken(f"job {job.id} has no dataset: the stage before it has to make one")
        return TrainingRequest(
            job_id=job.id,
            base_model=base_model,
            base_path=self._base(base_model),
            dataset_path=Path(str(dataset["path"])).resolve(),
            dataset_digest=str(dataset["digest"]),
            policy=policy,
            code=code_version(__package__),
        )

    def _base(self, name: str) -> Path:
        path = self._bases.path(name)
        if not self._bases.has(name):
            known = ", ".join(sorted(self._bases.named)) or "none"
            raise TrainingImpossible(
                f"training.base_model: {name} has no Hugging Face directory at {path}; name it in "
                f"PENSTOCK_RETRAIN_BASE_MODELS (it names {known}), or another model in the policy"
            )
        return path.resolve()

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
    return {
        "kind": trained.kind.value,
        "base_model": request.base_model,
        "dir": str(run.result),
        "method": policy.method.value,
        "seed": policy.seed,
        "steps": trained.steps,
        "best_step": trained.best_step,
        "epochs": policy.epochs,
        "batch_size": policy.batch_size,
        "learning_rate": policy.peak_rate,
        "rows": trained.rows,
        "held_out_rows": trained.held_out_rows,
        "left_out": dict(trained.left_out),
        "dataset_digest": request.dataset_digest,
        "base_digest": trained.base_digest,
        "request_digest": request.digest,
        "parameters": policy.parameters(),
        "code": dict(request.code),
        "packages": dict(trained.packages),
        "metrics": dict(trained.metrics),
    }
