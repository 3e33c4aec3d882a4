"""A retrain database with a clock of its own, for tests."""

from __future__ import annotations

from typing import Any

from penstock.sql import Database
from penstock.v1 import route_pb2
from penstock_retrain.errors import RetrainUnavailable
from penstock_retrain.jobs.outbox import Outbox
from penstock_retrain.jobs.policy import merged_document, parse_policy
from penstock_retrain.jobs.stages import RouteChange
from penstock_retrain.jobs.states import Cause, CauseKind, Event, Facts, Job, JobState, Trigger
from penstock_retrain.jobs.store import JobStore
from penstock_retrain.registry.store import Registry

LEASE_US = 10_000_000

# What stages would find out, in so far as others need it.
FOUND: dict[JobState, Facts] = {
    JobState.DATASET: {"digest": "d" * 64, "rows": 100, "sources": {"responses/0": [3, 102]}},
    JobState.TRAINING: {"kind": "adapter", "base_model": "triage", "dir": "/nowhere"},
    JobState.EVALUATING: {"passed": True},
}


def registered(name: str) -> Facts:
    return {"name": name, "base_model": "triage", "adapter": name, "digest": "f" * 64, "card": "#"}


class Place:
    """Jobs, registry and outbox of one database."""

    def __init__(self, url: str) -> None:
        self.database = Database(url, "the test's database", RetrainUnavailable)
        self.store = JobStore(self.database)
        self.registry = Registry(self.database)
        self.outbox = Outbox(self.database)
        self.now_us = 1_000_000

    def close(self) -> None:
        self.database.close()

    def tick(self, by_us: int = 1_000_000) -> int:
        self.now_us += by_us
        return self.now_us

    def routed(self, model: str = "triage", version: int = 1) -> None:
        champion = route_pb2.Variant(
            name=f"{model}-base",
            base_model=model,
            weight=100,
            stage=route_pb2.STAGE_CHAMPION,
        )
        self.outbox.observe([route_pb2.Route(model=model, version=version, variants=[champion])])

    def open(self, job_id: str = "job-1", model: str = "triage", policy: str = "") -> Job:
        document = merged_document(policy)
        parsed = parse_policy(document)
        made = Job(
            job_id,
            model,
            Cause(CauseKind.MANUAL, by="me"),
            document,
            self.tick(),
            self.now_us,
            approvals=parsed.approvals,
            max_attempts=parsed.attempts.max,
        )
        return self.store.open_job(made)

    def claim(self, owner: str = "one") -> Job:
        """The newest job that can be run; what has ended before is left alone."""
        return self.store.claim(owner, self.tick(), LEASE_US, 100)[-1]

    def event(self, trigger: Trigger, **fields: Any) -> Event:
        return Event(trigger, self.tick(), **fields)

    def apply(
        self, job: Job, trigger: Trigger, change: RouteChange | None = None, **fields: Any
    ) -> Job:
        return self.store.apply(job, self.event(trigger, **fields), change)

    def done(self, job: Job) -> Job:
        """The job after the end of its stage, with what the stage would find out."""
        facts = FOUND.get(job.state, {})
        if job.state is JobState.REGISTERING:
            version = self.registry.by_job(job.id)
            assert version is not None
            facts = registered(version.name)
        return self.apply(job, Trigger.DONE, facts=facts)

    def to(self, state: JobState, job_id: str = "job-1", model: str = "triage") -> Job:
        """A new job, claimed, that has come to a state."""
        self.open(job_id, model)
        job = self.apply(self.claim(), Trigger.STARTED)
        while job.state is not state:
            job = self.done(job)
        return job

    def shares(self, model: str = "triage") -> dict[str, tuple[str, int]]:
        """Stage and weight of each variant on the newest route that is known."""
        route = self.outbox.head(model)
        assert route is not None
        return {
            v.name: (route_pb2.Stage.Name(v.stage).removeprefix("STAGE_"), v.weight)
            for v in route.variants
        }
