"""Shadow and canary on a log in memory: verdicts, holds, and cancelled at any instant."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.v1 import response_pb2, route_pb2
from penstock_retrain.canary import observing
from penstock_retrain.canary.matching import MAX_OPEN
from penstock_retrain.canary.shadow_stage import ShadowStage
from penstock_retrain.canary.stage import CanaryStage
from penstock_retrain.canary.trial import CanaryTest
from penstock_retrain.errors import NotAllowed
from penstock_retrain.jobs.policy import merged_document
from penstock_retrain.jobs.stages import Outcome, StageBroken, StageResult, Withdrawn
from penstock_retrain.jobs.states import Job, JobState, Trigger
from tests.unit.retrain.canary.worlds import NEW, OLD, World, world
from tests.unit.retrain.jobs.places import LEASE_US

S, T = JobState, Trigger
POLICY = """
shadow: {percent: 50, answers: 10, pairs: 20, max_s: 600}
canary:
  primary: {metric: accuracy, effect: 0.2, margin: 0.2}
  minimum: 30
  settle_s: 1
  max_s: 3600
  steps: [{percent: 20, values: 20}, {percent: 50, values: 40}]
"""


TRIES = 300


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def one(accuracy: float, **more: int) -> World:
        made.append(world(f"sqlite:///{tmp_path}/{len(made)}.sqlite", accuracy, **more))
        return made[-1]

    yield one
    for each in made:
        each.place.close()


def to_shadow(here: World, policy: str = POLICY) -> Job:
    """A job at its shadow, with the champion's answers of a while on the log."""
    here.clients(150)
    here.place.open("job-1", policy=merged_document(policy))
    job = here.place.apply(here.place.claim(), T.STARTED)
    while job.state is not S.SHADOW:
        job = here.place.done(job)
    return job


async def run(
    here: World, job: Job, *, clients: int = 8, cancel: random.Random | None = None
) -> StageResult:
    """A stage to its end, while clients come; cancelled and begun again now and then."""
    made: type[ShadowStage | CanaryStage] = ShadowStage if job.state is S.SHADOW else CanaryStage
    while True:
        stage = made(here.desk(), here.log.where(), poll_s=0)
        running = asyncio.create_task(stage.run(here.place.store.get(job.id), lambda _: None))
        for _ in range(10**9 if cancel is None else cancel.randrange(1, 60)):
            if running.done():
                return running.result()
            if clients:
                here.clients(clients)
            else:
                here.log.now_ms += 60_000
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        if running.done() and not running.cancelled():
            return running.result()


def ended(here: World, job: Job, result: StageResult) -> Job:
    job = here.place.store.get(job.id)
    trigger = {Outcome.DONE: T.DONE}.get(result.outcome) or Trigger(str(result.outcome))
    after = here.place.apply(job, trigger, facts=result.facts, reason=result.reason)
    here.publish()
    return after


async def both(here: World, job: Job, cancel: random.Random | None = None) -> Job:
    while job.state in (S.SHADOW, S.CANARY):
        job = ended(here, job, await run(here, job, cancel=cancel))
    return job


def written(here: World, version: int) -> dict[str, int]:
    """Responses by arm for requests of one version of the route."""
    variants = [
        found.variant
        for partition in here.log.records["responses"]
        for record in partition
        if (found := response_pb2.GenerateResponse.FromString(record.value or b"")).route_version
        == version
    ]
    return {"champion": variants.count(OLD), "candidate": variants.count(NEW)}


async def test_an_equal_candidate_is_promoted_from_the_last_step(
    make: Callable[..., World],
) -> None:
    here = make(0.97)
    job = await both(here, to_shadow(here))
    assert job.state is S.PROMOTED
    shown = job.result(S.SHADOW)["prospects"]
    assert shown["champion_mean"] == pytest.approx(0.9, abs=0.06)
    # What made a pair in the shadow waits for no other partner.
    compared = CanaryTest.from_state(job.result(S.SHADOW)["journal"]["trial"])
    fresh = CanaryTest(compared.config)
    fresh.begin(0.0)
    origin = compared.config.primary.origin
    assert compared.state()["matchers"][origin] == fresh.state()["matchers"][origin]
    canary = job.told(S.CANARY)
    assert canary["verdict"]["decision"] == "promote"
    assert canary["standing"]["accuracy"]["candidate"] >= 20 + 20 + 40
    assert canary["standing"]["accuracy"]["pairs"] >= 20
    assert job.step == 2
    assert here.place.shares()[NEW] == ("CHAMPION", 10_000)


async def test_a_worse_one_is_rolled_back_before_a_client_sees_it(
    make: Callable[..., World],
) -> None:
    here = make(0.2)
    job = await both(here, to_shadow(here, POLICY.replace("pairs: 20", "pairs: 500")))
    assert job.state is S.ROLLED_BACK
    assert job.result(S.CANARY) == {}
    assert "accuracy: worse by more than 0" in job.reason
    assert here.place.shares() == {OLD: ("CHAMPION", 100)}


async def test_harm_is_found_in_traffic_too(make: Callable[..., World]) -> None:
    here = make(0.4)
    job = to_shadow(here, POLICY.replace("percent: 50, answers", "percent: 0, answers"))
    job = ended(here, job, await run(here, job))
    assert job.state is S.CANARY
    job = await both(here, job)
    assert job.state is S.ROLLED_BACK
    assert NEW not in here.place.shares()


@pytest.mark.parametrize("seed", range(4))
async def test_whenever_it_is_ended_each_observation_counts_once(
    make: Callable[..., World], seed: int
) -> None:
    here = make(0.97, seed=seed, limit=70)
    job = to_shadow(here, POLICY.replace("values: 40", "values: 300"))
    job = await both(here, job, cancel=random.Random(seed))
    assert job.state is S.PROMOTED
    # What was written for the last step's route, as the log has it, against what was counted.
    version = here.place.outbox.of_job(job.id)[-2].version
    counted = job.result(S.CANARY)["split"]["feedback"]
    behind = {arm: count - counted[arm] for arm, count in written(here, version).items()}
    # The newest came after the verdict, or are not a second old; none counts twice.
    assert all(left >= 0 for left in behind.values()), behind
    # Busy machines leave more of them: a second is long there.
    assert counted["candidate"] >= 200


async def waited(here: World, job: Job, condition: Callable[[Any], bool], tries: int) -> bool:
    """Whether what the canary kept comes to be so while it is left to run, longer each time."""
    for _ in range(here.draw.randrange(1, 30 + 5 * tries)):
        if condition(here.place.store.get(job.id).result(S.CANARY)):
            return True
        await asyncio.sleep(0.01)
    return False


async def begun(here: World, job: Job, condition: Callable[[Any], bool]) -> None:
    """Runs a canary until what it kept is so; it is ended and begun again on the way."""
    done, tries = False, 0
    while not done:
        tries += 1
        assert tries < TRIES, here.place.store.get(job.id).told(S.CANARY)
        stage = CanaryStage(here.desk(), here.log.where(), poll_s=0)
        running = asyncio.create_task(stage.run(here.place.store.get(job.id), lambda _: None))
        done = await waited(here, job, condition, tries)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(("limit", "faults"), [(29, 0.0), (10_000, 0.0), (29, 0.2)])
async def test_ended_on_the_way_exactly_what_was_written_is_counted(
    make: Callable[..., World], limit: int, faults: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = make(0.97, limit=limit)
    job = to_shadow(here, POLICY.replace("values: 20}", "values: 100000}"))
    job = ended(here, job, await run(here, job))
    here.log.faults = faults
    monkeypatch.setattr(observing, "RETRY_S", 0.001)
    await begun(here, job, lambda kept: kept.get("journal", {}).get("version", 0) > 0)
    version = here.route().version
    for _ in range(4):
        here.clients(150)
        here.log.now_ms += 5000
        split = written(here, version)
        await begun(
            here,
            job,
            lambda kept: kept.get("split", {}) == {"requests": split, "feedback": split},  # noqa: B023
        )
    kept = here.place.store.get(job.id).result(S.CANARY)
    pairs = kept["standing"]["accuracy"]["pairs"]
    settled = kept["standing"]["accuracy"]["candidate"] - pairs
    assert written(here, version)["candidate"] > 80
    # What waits for a partner or found no place is not settled; nothing else is missing, nothing is
    # twice.
    unplaced = MAX_OPEN + kept["dropped"].get("metric:accuracy", 0)
    assert written(here, version)["candidate"] - unplaced <= settled
    assert settled <= written(here, version)["candidate"]


async def test_what_is_shown_early_still_takes_every_step(make: Callable[..., World]) -> None:
    here = make(0.95)
    policy = POLICY.replace("margin: 0.2", "margin: 0.5").replace("pairs: 20", "pairs: 100")
    job = to_shadow(here, policy)
    job = ended(here, job, await run(here, job))
    # The shadow alone has shown it.
    assert job.result(S.SHADOW)["standing"]["accuracy"]["e_non_inferiority"] > 20
    job = await both(here, job)
    assert (job.state, job.step) == (S.PROMOTED, 2)
    kinds = [str(entry.change.kind) for entry in here.place.outbox.of_job(job.id)]
    assert kinds == ["shadow", "split", "split", "promote"]


async def test_what_is_not_shown_in_time_is_not_promoted(make: Callable[..., World]) -> None:
    """All values that were asked for, an equal candidate, and a gain to be shown."""
    here = make(0.9)
    policy = POLICY.replace("minimum: 30", "minimum: 30\n  goal: gain")
    job = to_shadow(here, policy.replace("max_s: 3600", "max_s: 15"))
    job = ended(here, job, await run(here, job))
    result = await run(here, job)
    assert result.outcome is Outcome.INCONCLUSIVE
    assert result.reason.startswith("the time is up; accuracy: better, not shown")
    assert here.place.store.get(job.id).step == 2


async def test_without_feedback_it_holds_and_then_asks(make: Callable[..., World]) -> None:
    here = make(0.9)
    job = to_shadow(here)
    job = ended(here, job, await run(here, job))
    result = await run(here, job, clients=0)
    assert result.outcome is Outcome.INCONCLUSIVE
    assert "the time is up" in result.reason
    job = ended(here, job, result)
    assert job.state is S.INCONCLUSIVE
    assert here.place.shares()[NEW] == ("CANDIDATE", 2000)
    # A person lets it go on, and feedback comes.
    here.place.store.act(job.id, here.place.event(T.CONTINUED))
    here.place.now_us += LEASE_US
    job = await both(here, here.place.claim())
    assert job.state is S.PROMOTED
    assert job.result(S.CANARY)["journal"]["continued"] == 1


async def climbing(here: World, job: Job) -> asyncio.Task[StageResult]:
    """A canary under way, whose first step is on the log."""
    stage = CanaryStage(here.desk(), here.log.where(), poll_s=0)
    running = asyncio.create_task(stage.run(job, lambda _: None))
    while NEW not in {
        v.name for v in here.route().variants if v.stage == route_pb2.STAGE_CANDIDATE
    }:
        await asyncio.sleep(0.001)
    return running


async def test_a_mismatched_split_is_let_pass_by_a_person(make: Callable[..., World]) -> None:
    here = make(0.97)
    job = to_shadow(here)
    job = ended(here, job, await run(here, job))
    running = await climbing(here, job)
    for n in range(60):  # the candidate gets all of them
        here.log.now_ms += 100
        here._answer("responses", f"lost{n}", NEW, here.route().version)
    here.log.now_ms += 5000
    result = await asyncio.wait_for(running, 30)
    assert result.outcome is Outcome.INCONCLUSIVE
    assert "the split of requests is not as declared" in result.reason
    job = ended(here, job, result)
    here.place.store.act(job.id, here.place.event(T.CONTINUED))
    here.place.now_us += LEASE_US
    job = await both(here, here.place.claim())
    assert job.state is S.PROMOTED


async def test_another_champion_ends_it_until_it_is_back(make: Callable[..., World]) -> None:
    here = make(0.97)
    job = to_shadow(here)
    job = ended(here, job, await run(here, job))
    running = await climbing(here, job)
    champion(here, "other")
    result = await asyncio.wait_for(running, 30)
    assert "the champion is other now and was triage-base" in result.reason
    job = ended(here, job, result)
    with pytest.raises(NotAllowed, match="champion of triage is other now"):
        here.place.store.act(job.id, here.place.event(T.CONTINUED))
    champion(here, OLD)
    here.place.store.act(job.id, here.place.event(T.CONTINUED))
    here.place.now_us += LEASE_US
    job = await both(here, here.place.claim())
    assert job.state is S.PROMOTED


async def test_another_champion_since_the_shadow_ends_it_before_any_traffic(
    make: Callable[..., World],
) -> None:
    here = make(0.97)
    job = to_shadow(here)
    job = ended(here, job, await run(here, job))
    champion(here, "other")
    result = await run(here, job, clients=0)
    assert result.outcome is Outcome.INCONCLUSIVE
    assert "the champion is other now and was triage-base" in result.reason
    assert here.place.shares()[NEW][0] == "SHADOW"
    job = ended(here, job, result)
    champion(here, OLD)
    here.place.store.act(job.id, here.place.event(T.CONTINUED))
    here.place.now_us += LEASE_US
    job = await both(here, here.place.claim())
    assert job.state is S.PROMOTED


def champion(here: World, name: str) -> None:
    """Somebody else's route, with another champion's name."""
    route = here.place.outbox.head("triage")
    assert route is not None
    route.version += 1
    next(v for v in route.variants if v.stage == route_pb2.STAGE_CHAMPION).name = name
    here.place.outbox.observe([route])
    here.publish()


async def test_a_shadow_that_does_not_answer_asks(make: Callable[..., World]) -> None:
    here = make(0.9)
    job = to_shadow(here)
    result = await run(here, job, clients=0)
    assert result.outcome is Outcome.INCONCLUSIVE
    assert "has answered 0 copies of 10" in result.reason


async def test_a_scale_that_nobody_knows_is_waited_for(make: Callable[..., World]) -> None:
    here = make(0.9)
    job = to_shadow(here, POLICY + "  baseline_s: 0\n")
    result = await run(here, job, clients=0)
    assert result.outcome is Outcome.INCONCLUSIVE
    assert "too few values of latency_s" in result.reason


async def test_tenants_are_no_sample(make: Callable[..., World]) -> None:
    here = make(0.9)
    job = to_shadow(here)
    job = ended(here, job, await run(here, job))
    route = here.place.outbox.head("triage")
    assert route is not None
    route.version += 1
    route.sticky_by = route_pb2.STICKY_BY_TENANT
    here.place.outbox.observe([route])
    here.publish()
    result = await run(here, job)
    assert result.outcome is Outcome.INCONCLUSIVE
    assert "sticky_by" in result.reason


async def test_who_takes_the_traffic_away_ends_it(make: Callable[..., World]) -> None:
    here = make(0.9)
    job = to_shadow(here, POLICY.replace("values: 20}", "values: 100000}"))
    job = ended(here, job, await run(here, job))
    running = await climbing(here, job)
    route = here.place.outbox.head("triage")
    assert route is not None
    route.version += 1
    next(v for v in route.variants if v.name == NEW).weight = 0
    here.place.outbox.observe([route])
    here.publish()
    with pytest.raises(Withdrawn):
        await asyncio.wait_for(running, 30)


@pytest.mark.parametrize(
    ("stage", "weight", "says"),
    [
        (route_pb2.STAGE_CHAMPION, 100, "makes triage-v1 the champion"),
        (route_pb2.STAGE_CANDIDATE, 100, "gives triage-v1 50 % of the traffic already"),
    ],
)
async def test_who_gives_a_shadow_clients_is_asked(
    make: Callable[..., World], stage: route_pb2.Stage.ValueType, weight: int, says: str
) -> None:
    here = make(0.9)
    job = to_shadow(here, POLICY.replace("answers: 10", "answers: 100000"))
    running = asyncio.create_task(run(here, job))
    while NEW not in {v.name for v in here.route().variants}:
        await asyncio.sleep(0.001)
    route = here.route()
    route.version += 1
    old, new = route.variants
    new.stage, new.weight = stage, weight
    if stage == route_pb2.STAGE_CHAMPION:
        old.stage, old.weight = route_pb2.STAGE_CANDIDATE, 0
    here.place.outbox.observe([route])
    here.publish()
    result = await asyncio.wait_for(running, 30)
    assert result.outcome is Outcome.INCONCLUSIVE
    assert says in result.reason


async def test_topics_that_were_made_anew_end_it(make: Callable[..., World]) -> None:
    here = make(0.9)
    job = to_shadow(here)
    job = ended(here, job, await run(here, job))
    here.log.name = "memory.2"
    with pytest.raises(StageBroken, match="made anew"):
        await run(here, job)
