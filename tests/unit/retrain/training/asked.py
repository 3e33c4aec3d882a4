"""A training request, and what came of it, for tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from penstock_retrain.jobs.states import Job
from penstock_retrain.training.policy import TrainingPolicy
from penstock_retrain.training.request import Kind, Trained, TrainingRequest


class KeepingDesk:
    """Keeps facts in the job, without a database."""

    async def keep(self, job: Job, facts: Any, *, step: Any = None, change: Any = None) -> Job:
        results = {**job.results, job.state: {**job.result(job.state), **facts}}
        return dataclasses.replace(job, results=results)

    async def note(self, job: Job, facts: Any) -> Job:
        return await self.keep(job, facts)

    async def standing(self, job: Job, candidate: Any) -> Any:
        raise AssertionError


def request(policy: dict[str, Any] | None = None, **changes: Any) -> TrainingRequest:
    made = TrainingRequest(
        job_id="job-1",
        base_model="triage",
        base_path=Path("/models/triage"),
        dataset_path=Path("/datasets/job-1"),
        dataset_digest="d" * 64,
        policy=TrainingPolicy.of(policy or {}),
        code={"package": "penstock-retrain 1", "source": "s" * 64},
    )
    return dataclasses.replace(made, **changes)


def trained(of: TrainingRequest, **changes: Any) -> Trained:
    made = Trained(
        request_digest=of.digest,
        kind=Kind.ADAPTER,
        steps=30,
        best_step=27,
        rows=160,
        held_out_rows=20,
        left_out={"too_long": 2},
        base_digest="b" * 64,
        metrics={"held_out_loss": 0.5, "held_out_loss_before": 2.0},
        packages={"trl": "1.16.0"},
    )
    return dataclasses.replace(made, **changes)
