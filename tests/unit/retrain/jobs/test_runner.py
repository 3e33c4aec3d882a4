"""The runner drives a job through its stages, whatever fails, ends or overtakes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock_retrain.jobs.desk import SqlDesk
from penstock_retrain.jobs.route_view import RouteView
from penstock_retrain.jobs.runner import Runner
from penstock_retrain.jobs.stages import (
    Candidate,
    Outcome,
    Progress,
    RouteChange,
    RouteChangeKind,
    Stage,
    StageBroken,
    StageResult,
)
from penstock_retrain.jobs.states import FINAL, STAGES, Job, JobState, Trigger
from penstock_retrain.registry.versions import VersionStatus
from penstock_retrain.tables import JOBS
from tests.unit.retrain.jobs.places import FOUND, Place, registered

S, T, K = JobState, Trigger, RouteChangeKind
Body = Callable[[Job, Callable[[Progress], None]], Awaitable[StageResult]]


class Scripted:
    """A stage of the tests, which finds out what the stage would."""

    def __init__(self, place: Place, state: JobState, body: Body | None = None) -> None:
        self._place, self._state, self._body = place, state, body
        self.runs = 0
        self.cleaned: list[JobState] = []

    async def run(self, job: Job, progress: Callable[[Progress], None]) -> StageResult:
        self.runs += 1
        assert job.state is self._state
        if self._body is not None:
            return await self._body(job, progress)
        facts = FOUND.get(job.state, {})
        if job.state is S.REGISTERING:
            version = self._place.registry.by_job(job.id)
            assert version is not None
            facts = registered(version.name)
        if job.state is S.CANARY:
            return StageResult(Outcome.PROMOTE, {"e": 20.0})
        return StageResult(Outcome.DONE, facts)

    async def clean(self, job: Job) -> None:
        self.cleaned.append(job.state)


class Heard:
    """What a runner tells."""

    def __init__(self) -> None:
        self.moves = 0
        self.progress: list[Progress] = []

    def moved(self) -> None:
        self.moves += 1

    def progressed(self, job: Job, progress: Progress) -> None:
        self.progress.append(progress)


class Bench:
    def __init__(self, url: str) -> None:
        self.place = Place(url)
        self.place.routed()
        self.heard = Heard()
        self.stages = {state: Scripted(self.place, state) for state in STAGES}

    def script(self, state: JobState, body: Body) -> Scripted:
        self.stages[state] = Scripted(self.place, state, body)
        return self.stages[state]

    def runner(self, owner: str = "one", stages: Mapping[JobState, Stage] | None = None) -> Runner:
        return Runner(
            self.place.store,
            self.stages if stages is None else stages,
            owner,
            self.heard,
            lease_s=10,
            poll_s=0.02,
            clock_us=lambda: self.place.tick(1000),
        )

    @asynccontextmanager
    async def running(self, *args: Any) -> Any:
        task = asyncio.create_task(self.runner(*args).run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, condition: Callable[[Job], bool], job_id: str = "job-1") -> Job:
        async with asyncio.timeout(30):
            while not condition(job := self.place.store.get(job_id)):
                await asyncio.sleep(0.01)
        return job

    async def to_the_end(self) -> Job:
        async with self.running():
            return await self.until(lambda job: job.state in FINAL)

    def triggers(self) -> list[str]:
        return [str(t.trigger) for t in self.place.store.history("job-1")]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(f"sqlite:///{tmp_path}/retrain.sqlite")
    yield made
    made.place.close()


def refuse(outcome: Outcome, reason: str) -> Body:
    async def body(job: Job, progress: Callable[[Progress], None]) -> StageResult:
        return StageResult(outcome, {"seen": 1}, reason)

    return body


async def test_from_opened_to_promoted(bench: Bench) -> None:
    bench.place.open()
    job = await bench.to_the_end()
    assert job.state is S.PROMOTED
    assert [stage.runs for stage in bench.stages.values()] == [1] * 6
    assert job.result(S.DATASET)["sources"] == {"responses/0": [3, 102]}
    assert bench.place.registry.aliases("triage") == {"champion": 1}
    assert bench.heard.moves == len(bench.triggers()) - 1


@pytest.mark.parametrize(
    ("state", "outcome", "end"),
    [
        (S.EVALUATING, Outcome.REFUSED, S.REJECTED),
        (S.SHADOW, Outcome.ROLL_BACK, S.ROLLED_BACK),
        (S.CANARY, Outcome.ROLL_BACK, S.ROLLED_BACK),
    ],
)
async def test_a_stage_that_says_no(
    bench: Bench, state: JobState, outcome: Outcome, end: JobState
) -> None:
    bench.place.open()
    bench.script(state, refuse(outcome, "worse"))
    job = await bench.to_the_end()
    assert (job.state, job.reason, job.result(state)) == (end, "worse", {"seen": 1})


async def test_an_outcome_that_the_stage_may_not_have_fails_the_job(bench: Bench) -> None:
    bench.place.open()
    bench.script(S.DATASET, refuse(Outcome.PROMOTE, ""))
    job = await bench.to_the_end()
    assert job.state is S.FAILED
    assert "promote cannot happen" in job.reason


async def test_a_stage_that_fails_is_tried_again_and_goes_on_from_what_it_kept(
    bench: Bench,
) -> None:
    bench.place.open(policy="attempts: {max: 3, backoff_s: 0}")
    desk = SqlDesk(
        bench.place.store, bench.place.outbox, RouteView(), lambda: None, bench.place.tick
    )
    seen: list[int] = []

    async def body(job: Job, progress: Callable[[Progress], None]) -> StageResult:
        seen.append(job.result(S.DATASET).get("rows", 0))
        job = await desk.keep(job, {"rows": len(seen)})
        if len(seen) < 3:
            raise OSError("the disk went away")
        return StageResult(Outcome.DONE, FOUND[S.DATASET])

    bench.script(S.DATASET, body)
    assert (await bench.to_the_end()).state is S.PROMOTED
    assert seen == [0, 1, 2]
    assert bench.triggers().count("attempt_failed") == 2


async def test_attempts_are_bounded_and_what_is_broken_is_not_tried_again(bench: Bench) -> None:
    bench.place.open(policy="attempts: {max: 2, backoff_s: 0}")

    async def fails(job: Job, progress: Callable[[Progress], None]) -> StageResult:
        raise OSError("gone")

    stage = bench.script(S.TRAINING, fails)
    job = await bench.to_the_end()
    assert (stage.runs, job.state) == (2, S.FAILED)
    assert job.reason == "training failed 2 times, the last time: OSError: gone"

    async def broken(job: Job, progress: Callable[[Progress], None]) -> StageResult:
        raise StageBroken("no rows are left: widen dataset.window_s")

    stage = bench.script(S.TRAINING, broken)
    bench.place.open("job-2")
    async with bench.running():
        job = await bench.until(lambda found: found.state in FINAL, "job-2")
    assert (stage.runs, job.state) == (1, S.FAILED)
    assert job.reason == "no rows are left: widen dataset.window_s"


async def test_facts_that_are_no_json_fail_the_job_and_say_so(bench: Bench) -> None:
    bench.place.open()

    async def body(job: Job, progress: Callable[[Progress], None]) -> StageResult:
        return StageResult(Outcome.DONE, {"loss": float("nan")})

    bench.script(S.DATASET, body)
    job = await bench.to_the_end()
    assert (job.state, job.result(S.DATASET)) == (S.FAILED, {})
    assert "numbers must be finite" in job.reason


async def test_a_stage_that_the_service_lacks_fails_the_job_and_says_so(bench: Bench) -> None:
    bench.place.open()
    del bench.stages[S.TRAINING]
    job = await bench.to_the_end()
    assert (job.state, job.reason) == (S.FAILED, "this service has no stage training")


async def test_a_policy_that_is_none_any_more_fails_the_job_and_says_so(bench: Bench) -> None:
    """Another version of the service wrote it, with a field that this one does not know."""
    job = bench.place.open()
    with bench.place.database.writing() as connection:
        connection.execute(JOBS.update().values(policy=f"{job.policy}\nwhat_was: once"))
    job = await bench.to_the_end()
    assert (job.state, bench.stages[S.DATASET].runs) == (S.FAILED, 0)
    assert "what_was" in job.reason


async def test_an_error_that_no_database_takes_fails_the_job_all_the_same(bench: Bench) -> None:
    bench.place.open(policy="attempts: {max: 1}")

    async def body(job: Job, progress: Callable[[Progress], None]) -> StageResult:
        raise OSError("no such file: \udce4\0.json")

    bench.script(S.DATASET, body)
    job = await bench.to_the_end()
    assert job.state is S.FAILED
    assert job.reason.endswith("no such file: ??.json")


async def test_a_reason_of_a_stage_has_a_bound(bench: Bench) -> None:
    """It is told in one record of the log."""
    bench.place.open()
    bench.script(S.EVALUATING, refuse(Outcome.REFUSED, "worse " * 10_000))
    job = await bench.to_the_end()
    assert (job.state, len(job.reason)) == (S.REJECTED, 2000)


async def test_a_person_who_aborts_ends_the_stage_that_runs(bench: Bench) -> None:
    bench.place.open()
    began, ended = asyncio.Event(), asyncio.Event()

    async def body(job: Job, progress: Callable[[Progress], None]) -> StageResult:
        progress(Progress("far", 1, 10, 9.0, {"loss": 0.5}))
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    stage = bench.script(S.TRAINING, body)
    async with bench.running():
        async with asyncio.timeout(30):
            await began.wait()
        bench.place.store.act("job-1", bench.place.event(T.ABORTED, by="me"))
        async with asyncio.timeout(30):
            await ended.wait()
            while not stage.cleaned:
                await asyncio.sleep(0.01)
    assert bench.heard.progress[0].metrics == {"loss": 0.5}
    assert bench.place.store.get("job-1").state is S.CANCELLED
    # Only stages that the job came to have something to remove.
    assert bench.stages[S.DATASET].cleaned == [S.CANCELLED]
    assert bench.stages[S.EVALUATING].cleaned == []


async def test_who_loses_the_claim_stops_and_writes_nothing_more(bench: Bench) -> None:
    bench.place.open()
    began = asyncio.Event()
    ended: list[str] = []

    def hangs(owner: str) -> Body:
        async def body(job: Job, progress: Callable[[Progress], None]) -> StageResult:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(owner)
            raise AssertionError

        return body

    bench.script(S.DATASET, hangs("one"))
    async with bench.running("one"):
        async with asyncio.timeout(30):
            await began.wait()
        # As if it had slept through its lease.
        (theirs,) = bench.place.store.claim("two", bench.place.tick(60_000_000), 60_000_000, 9)
        async with asyncio.timeout(30):
            while not ended:
                await asyncio.sleep(0.01)
    assert bench.place.store.get("job-1").claim == theirs.claim
    assert bench.triggers() == ["opened", "started"]
    assert bench.place.apply(theirs, T.DONE, facts=FOUND[S.DATASET]).state is S.TRAINING


async def test_a_stop_gives_the_job_back_at_once(bench: Bench) -> None:
    bench.place.open()
    began = asyncio.Event()

    async def hangs(job: Job, progress: Callable[[Progress], None]) -> StageResult:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError

    stage = bench.script(S.DATASET, hangs)
    async with bench.running(), asyncio.timeout(30):
        await began.wait()
    assert stage.runs == 1
    bench.stages[S.DATASET] = Scripted(bench.place, S.DATASET)
    # Nobody waits for a lease to run out.
    assert (await bench.to_the_end()).state is S.PROMOTED


async def test_an_approval_is_waited_for(bench: Bench) -> None:
    bench.place.open(policy="approve_before: [training, promotion]")
    async with bench.running():
        waits = await bench.until(lambda job: job.state is S.AWAITING_APPROVAL)
        assert waits.awaiting is S.TRAINING
        bench.place.store.act("job-1", bench.place.event(T.APPROVED, by="me"))
        waits = await bench.until(lambda job: job.awaiting is S.PROMOTED)
        assert bench.place.registry.aliases("triage") == {"challenger": 1}
        bench.place.store.act("job-1", bench.place.event(T.APPROVED, by="me"))
        await bench.until(lambda job: job.state is S.PROMOTED)
    assert bench.place.registry.aliases("triage") == {"champion": 1}
    approvals = [t for t in bench.place.store.history("job-1") if t.trigger == "approved"]
    assert [t.by for t in approvals] == ["me", "me"]


async def test_a_candidate_that_somebody_withdrew_is_rolled_back(bench: Bench) -> None:
    bench.place.open()
    candidate = Candidate("triage-v1", "triage", "triage-v1")
    view = RouteView()
    desk = SqlDesk(bench.place.store, bench.place.outbox, view, lambda: None, bench.place.tick)

    async def climbs(job: Job, progress: Callable[[Progress], None]) -> StageResult:
        for step, percent in enumerate((5, 20, 50), 1):
            change = RouteChange(K.SPLIT, candidate, percent)
            job = await desk.keep(job, {"share": percent}, step=step, change=change)
            standing = await desk.standing(job, candidate)
            assert (standing.candidate_percent, standing.published) == (percent, False)
            if step == 2:  # an operator: penstock routes rollback
                by_hand = bench.place.outbox.head("triage")
                assert by_hand is not None
                by_hand.version += 1
                by_hand.variants[1].weight = 0
                bench.place.outbox.observe([by_hand])
        raise AssertionError

    bench.script(S.CANARY, climbs)
    job = await bench.to_the_end()
    assert (job.state, job.step) == (S.ROLLED_BACK, 2)
    assert "withdrew triage-v1" in job.reason
    assert job.result(S.CANARY) == {"share": 20}
    version = bench.place.registry.version("triage", 1)
    assert version.status is VersionStatus.ROLLED_BACK
    assert set(bench.place.shares()) == {"triage-base"}
