"""Whatever happens to jobs, in whatever order and by whomever: SQL stays of one piece."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from penstock.errors import PenstockError
from penstock.v1 import route_pb2
from penstock_retrain.jobs.effects import candidate_of
from penstock_retrain.jobs.outbox import RouteStatus
from penstock_retrain.jobs.stages import (
    JobMoved,
    RouteChange,
    RouteChangeKind,
    StageBroken,
    Withdrawn,
)
from penstock_retrain.jobs.states import ACTIVE, FINAL, STAGES, Job, JobState, Trigger, allowed
from penstock_retrain.registry.versions import CHALLENGER, CHAMPION, VersionStatus
from tests.unit.retrain.jobs.places import FOUND, LEASE_US, Place, registered

S, T, K = JobState, Trigger, RouteChangeKind
BY_HAND = (T.APPROVED, T.ABORTED, T.CONTINUED, T.PROMOTED_BY_HAND, T.ROLLED_BACK_BY_HAND)
BY_STAGE = tuple(trigger for trigger in Trigger if trigger not in BY_HAND)
REFUSALS = (JobMoved, StageBroken, Withdrawn, PenstockError)


class Jobs(RuleBasedStateMachine):
    """Two runners, a person and another writer of routes, over one database."""

    @initialize()
    def begin(self) -> None:
        self.home = tempfile.TemporaryDirectory()
        self.place = Place(f"sqlite:///{Path(self.home.name)}/retrain.sqlite")
        self.place.routed()
        self.opened = 0
        # What each runner believes it has; one that slept believes what is not so any more.
        self.held: dict[str, Job] = {}

    def teardown(self) -> None:
        if hasattr(self, "place"):
            self.place.close()
            self.home.cleanup()

    def jobs(self) -> list[Job]:
        return self.place.store.newest(before=None, limit=1000)

    @rule(
        approvals=st.sampled_from(["", "approve_before: [canary]", "approve_before: [promotion]"])
    )
    def a_job_is_opened(self, approvals: str) -> None:
        before = [job for job in self.jobs() if job.active]
        try:
            self.place.open(f"job-{self.opened}", policy=approvals)
        except PenstockError:
            assert before
            return
        assert not before
        self.opened += 1

    @rule(owner=st.sampled_from(["one", "two"]), state=st.sampled_from([S.SHADOW, S.CANARY]))
    def a_job_comes_far(self, owner: str, state: JobState) -> None:
        """Seldom reached by single steps, and where most can go wrong."""
        if any(job.active for job in self.jobs()):
            return
        job = self.place.to(state, f"job-{self.opened}")
        self.opened += 1
        candidate = candidate_of(job)
        assert candidate is not None
        kind = K.SHADOW if state is S.SHADOW else K.SPLIT
        self.held[owner] = self.place.apply(job, T.STEPPED, RouteChange(kind, candidate, 20))

    @rule(owner=st.sampled_from(["one", "two"]), slept=st.booleans())
    def a_runner_takes_what_it_can(self, owner: str, slept: bool) -> None:
        now_us = self.place.tick(2 * LEASE_US if slept else 1)
        for job in self.place.store.claim(owner, now_us, LEASE_US, 1):
            if job.active:
                self.held[owner] = job
            else:
                self.place.store.cleaned(job)
                self.place.store.release(job)

    @rule(
        owner=st.sampled_from(["one", "two"]),
        trigger=st.sampled_from(BY_STAGE),
        percent=st.sampled_from([0, 5, 50, 100]),
    )
    def a_runner_writes(self, owner: str, trigger: Trigger, percent: int) -> None:
        job = self.held.get(owner)
        if job is None:
            return
        standing = self.place.store.get(job.id)
        change = None
        candidate = candidate_of(job)
        if trigger is T.STEPPED and percent and candidate and job.state in (S.SHADOW, S.CANARY):
            kind = K.SHADOW if job.state is S.SHADOW else K.SPLIT
            change = RouteChange(kind, candidate, percent)
        version = self.place.registry.by_job(job.id)
        facts = dict(FOUND.get(job.state, {})) if trigger is T.DONE else {}
        if trigger is T.DONE and job.state is S.REGISTERING and version is not None:
            facts = dict(registered(version.name))
        try:
            self.held[owner] = self.place.apply(job, trigger, change, facts=facts)
        except REFUSALS:
            # Nothing of it: neither job nor version nor route.
            assert self.place.store.get(job.id) == standing
            return
        # Only who has the claim, in the state that it knows, has changed anything.
        assert (standing.claim, standing.state) == (job.claim, job.state)

    @rule(owner=st.sampled_from(["one", "two"]))
    def a_stage_ends_well(self, owner: str) -> None:
        if owner in self.held:
            opened = self.held[owner].state is S.OPENED
            self.a_runner_writes(owner, T.STARTED if opened else T.DONE, 0)

    @rule(trigger=st.sampled_from(BY_HAND), which=st.integers(0, 2))
    def a_person_acts(self, trigger: Trigger, which: int) -> None:
        jobs = self.jobs()
        if which < len(jobs):
            before = jobs[which]
            try:
                self.place.store.act(before.id, self.place.event(trigger))
            except PenstockError:
                assert self.place.store.get(before.id) == before
                return
            assert trigger in allowed(before.state)

    @rule(withdraws=st.booleans())
    def somebody_else_writes_a_route(self, withdraws: bool) -> None:
        route = self.place.outbox.head("triage")
        assert route is not None
        for variant in route.variants:
            if withdraws and variant.stage == route_pb2.STAGE_CANDIDATE:
                variant.weight = 0
        if any(v.weight for v in route.variants if v.stage != route_pb2.STAGE_SHADOW):
            route.version += 1
            self.place.outbox.observe([route])

    @invariant()
    def one_job_is_active(self) -> None:
        assert sum(job.state in ACTIVE for job in self.jobs()) <= 1

    @invariant()
    def a_job_has_one_version_from_its_training_on(self) -> None:
        versions = self.place.registry.versions("triage")
        assert len({version.job_id for version in versions}) == len(versions)
        assert [version.version for version in versions] == list(range(1, len(versions) + 1))
        for version in versions:
            job = self.place.store.get(version.job_id)
            came_to = {t.after for t in self.place.store.history(job.id)}
            assert S.EVALUATING in came_to
            retired = job.state in FINAL and job.state is not S.PROMOTED
            assert bool(version.retired_us) == retired

    @invariant()
    def aliases_and_route_say_what_the_jobs_say(self) -> None:
        aliases = self.place.registry.aliases("triage")
        versions = {v.version: v for v in self.place.registry.versions("triage")}
        champion = versions.get(aliases.get(CHAMPION, 0))
        if champion is not None:
            assert champion.status is VersionStatus.PROMOTED
        challenger = versions.get(aliases.get(CHALLENGER, 0))
        active = [job for job in self.jobs() if job.active]
        if challenger is not None:
            assert [job.id for job in active] == [challenger.job_id]
        route = self.place.outbox.head("triage")
        assert route is not None
        served = {v.name for v in route.variants if v.weight}
        names = {v.name: v for v in versions.values()}
        for name in served & set(names):
            job = self.place.store.get(names[name].job_id)
            # Nothing of a job that ended otherwise takes any traffic.
            assert job.active or job.state is S.PROMOTED, (name, job.state)

    @invariant()
    def histories_are_whole(self) -> None:
        for job in self.jobs():
            history = self.place.store.history(job.id)
            assert [t.revision for t in history] == list(range(1, job.revision + 1))
            assert history[-1].after is job.state
            for before, after in itertools.pairwise(history):
                assert after.before is before.after
            live = [e for e in self.place.outbox.of_job(job.id) if e.status is RouteStatus.WAITING]
            assert [e.version for e in live] == sorted({e.version for e in live})
            assert all(state in STAGES for state in job.results)


Jobs.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestJobs = Jobs.TestCase
