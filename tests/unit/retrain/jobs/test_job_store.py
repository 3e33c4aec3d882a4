"""Jobs in SQL: one at a time, one owner at a time, and everything of a change or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sql

from penstock.codec import encode
from penstock.records import Partition, Record
from penstock.v1 import route_pb2
from penstock_retrain.errors import ActiveJob, AliasMoved, NoSuchJob, NoSuchVersion, NotAllowed
from penstock_retrain.jobs.route_view import RouteView
from penstock_retrain.jobs.stages import (
    Candidate,
    JobMoved,
    RouteChange,
    RouteChangeKind,
    StageBroken,
    Withdrawn,
)
from penstock_retrain.jobs.states import JobState, Trigger
from penstock_retrain.registry.versions import AliasChange, Made, VersionStatus
from tests.unit.retrain.jobs.places import LEASE_US, Place

S, T, K = JobState, Trigger, RouteChangeKind
V1 = Candidate("triage-v1", "triage", "triage-v1")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(f"sqlite:///{tmp_path}/retrain.sqlite")
    made.routed()
    yield made
    made.close()


def test_a_model_has_one_active_job(place: Place) -> None:
    job = place.open()
    with pytest.raises(ActiveJob, match="job-1, which is opened"):
        place.open("job-2")
    place.open("job-3", model="other")
    place.store.act(job.id, place.event(T.ABORTED))
    place.open("job-2")
    assert [j.id for j in place.store.newest(active=True, before=None, limit=9)] == [
        "job-2",
        "job-3",
    ]
    # The database itself refuses a second one, whatever asks for it.
    with pytest.raises(Exception, match="UNIQUE"), place.database.writing() as connection:
        connection.execute(sql.text("UPDATE jobs SET active = 1 WHERE id = 'job-1'"))


def test_a_start_that_is_repeated_is_one(place: Place) -> None:
    job = place.open()
    place.store.act(job.id, place.event(T.ABORTED))
    first = place.store.open_job(type(job)("job-k", "triage", job.cause, job.policy, 1, 1), "key")
    again = place.store.open_job(type(job)("job-l", "triage", job.cause, job.policy, 2, 2), "key")
    assert (first.id, again.id) == ("job-k", "job-k")


def test_a_claim_keeps_others_away_until_it_runs_out(place: Place) -> None:
    place.open()
    mine = place.claim("one")
    assert place.store.claim("two", place.tick(), LEASE_US, 9) == []
    assert place.store.renew(mine, place.tick(LEASE_US - 3_000_000), LEASE_US) is not None
    assert place.store.claim("two", place.tick(LEASE_US - 1), LEASE_US, 9) == []
    (theirs,) = place.store.claim("two", place.tick(1), LEASE_US, 9)
    assert (mine.claim, theirs.claim) == (1, 2)
    # Who slept: nothing of it counts any more.
    assert place.store.renew(mine, place.tick(), LEASE_US) is None
    place.store.release(mine)
    assert place.store.claim("three", place.tick(), LEASE_US, 9) == []
    with pytest.raises(JobMoved):
        place.apply(mine, T.STARTED)
    assert place.apply(theirs, T.STARTED).state is S.DATASET
    place.store.release(theirs)
    # A call that was under way when it was given back prolongs nothing.
    place.store.renew(theirs, place.tick(), LEASE_US)
    assert place.claim("three").claim == 3


def test_a_stage_waits_before_it_is_tried_again(place: Place) -> None:
    job = place.to(S.DATASET)
    place.apply(job, T.ATTEMPT_FAILED, retry_at_us=place.now_us + 60_000_000)
    place.store.release(job)
    assert place.store.claim("two", place.tick(), LEASE_US, 9) == []
    assert len(place.store.claim("two", place.tick(60_000_000), LEASE_US, 9)) == 1


def test_promotion_moves_alias_route_and_status_together(place: Place) -> None:
    job = place.to(S.CANARY)
    assert place.registry.aliases("triage") == {"challenger": 1}
    job = place.apply(job, T.STEPPED, RouteChange(K.SPLIT, V1, 5), step=1)
    assert place.shares()["triage-v1"] == ("CANDIDATE", 500)
    place.apply(job, T.PROMOTE, facts={"verdict": "promote"})
    assert place.registry.aliases("triage") == {"champion": 1}
    assert place.registry.version("triage", 1).status is VersionStatus.PROMOTED
    assert place.shares() == {
        "triage-base": ("CANDIDATE", 0),
        "triage-v1": ("CHAMPION", 10_000),
    }
    entries = place.outbox.of_job(job.id)
    assert [(e.version, e.change.kind) for e in entries] == [(2, K.SPLIT), (3, K.PROMOTE)]


def test_a_rollback_after_a_promotion_brings_the_one_before_back(place: Place) -> None:
    place.apply(place.to(S.CANARY), T.PROMOTE)
    first_promoted_us = place.now_us
    place.apply(place.to(S.CANARY, "job-2"), T.PROMOTE)
    assert place.registry.aliases("triage") == {"champion": 2}
    place.store.act("job-2", place.event(T.ROLLED_BACK_BY_HAND, by="me"))
    assert place.registry.aliases("triage") == {"champion": 1}
    assert place.shares()["triage-v1"] == ("CHAMPION", 10_000)
    assert "triage-v2" not in place.shares()
    second = place.registry.version("triage", 2)
    assert (second.status, second.retired_us) == (VersionStatus.ROLLED_BACK, place.now_us)
    assert place.registry.as_of("triage", first_promoted_us) == {"champion": 1}
    assert place.registry.as_of("triage", first_promoted_us - 1) == {"challenger": 1}
    assert place.registry.as_of("triage", 0) == {}
    # The first one goes back to the base, which no job made.
    place.store.act("job-1", place.event(T.ROLLED_BACK_BY_HAND))
    assert place.registry.aliases("triage") == {}
    assert place.shares() == {"triage-base": ("CHAMPION", 10_000)}
    with pytest.raises(NotAllowed, match="rolled_back"):
        place.store.act("job-2", place.event(T.ROLLED_BACK_BY_HAND))


@pytest.mark.parametrize(
    ("state", "trigger", "status"),
    [
        (S.EVALUATING, T.REFUSED, VersionStatus.REJECTED),
        (S.SHADOW, T.ROLL_BACK, VersionStatus.ROLLED_BACK),
        (S.CANARY, T.ROLL_BACK, VersionStatus.ROLLED_BACK),
        (S.REGISTERING, T.BROKEN, VersionStatus.ABANDONED),
        (S.CANARY, T.BROKEN, VersionStatus.ABANDONED),
        (S.CANARY, T.ABORTED, VersionStatus.ABANDONED),
    ],
)
def test_every_other_end_takes_the_traffic_and_retires_the_version(
    place: Place, state: JobState, trigger: Trigger, status: VersionStatus
) -> None:
    job = place.to(state)
    if state in (S.SHADOW, S.CANARY):
        kind = K.SHADOW if state is S.SHADOW else K.SPLIT
        job = place.apply(job, T.STEPPED, RouteChange(kind, V1, 10))
        assert "triage-v1" in place.shares()
    place.apply(job, trigger, reason="because")
    assert set(place.shares()) == {"triage-base"}
    assert place.registry.aliases("triage") == {}
    version = place.registry.version("triage", 1)
    assert (version.status, version.retired_reason) == (status, "because")
    assert version.retired_us


def test_an_inconclusive_canary_holds_until_somebody_says(place: Place) -> None:
    job = place.to(S.CANARY)
    job = place.apply(job, T.STEPPED, RouteChange(K.SPLIT, V1, 20), step=1)
    place.apply(job, T.INCONCLUSIVE, reason="too few")
    place.store.release(job)
    assert place.store.claim("two", place.tick(10**9), LEASE_US, 9) == []
    assert place.shares()["triage-v1"] == ("CANDIDATE", 2000)
    with pytest.raises(ActiveJob):
        place.open("job-2")
    place.store.act(job.id, place.event(T.CONTINUED, by="me"))
    assert place.claim("two").state is S.CANARY


def test_who_decided_at_another_route_changes_nothing(place: Place) -> None:
    job = place.to(S.CANARY)
    with pytest.raises(JobMoved, match="version 1, not 7"):
        place.apply(job, T.STEPPED, RouteChange(K.SPLIT, V1, 5, expected_version=7), step=1)
    assert place.store.get(job.id).revision == job.revision
    job = place.apply(job, T.STEPPED, RouteChange(K.SPLIT, V1, 5, expected_version=1), step=1)
    # An operator takes the traffic away: no step and no promotion gives it back.
    by_hand = place.outbox.head("triage")
    assert by_hand is not None
    by_hand.version = 9
    by_hand.variants[1].weight = 0
    place.outbox.observe([by_hand])
    with pytest.raises(Withdrawn, match="version 9"):
        place.apply(job, T.STEPPED, RouteChange(K.SPLIT, V1, 20), step=2)
    with pytest.raises(Withdrawn):
        place.apply(job, T.PROMOTE)
    with pytest.raises(NotAllowed, match="withdrew"):
        place.store.act(job.id, place.event(T.PROMOTED_BY_HAND))
    assert place.registry.aliases("triage") == {"challenger": 1}


def put_route(place: Place, champion: str, candidate: str) -> None:
    """Somebody else's route: all traffic to one, the other beside it."""
    route = place.outbox.head("triage")
    assert route is not None
    route.version += 1
    del route.variants[:]
    stages = ((champion, route_pb2.STAGE_CHAMPION, 100), (candidate, route_pb2.STAGE_CANDIDATE, 0))
    for name, stage, weight in stages:
        route.variants.add(name=name, base_model="triage", weight=weight, stage=stage)
    place.outbox.observe([route])


@pytest.mark.parametrize("trigger", [T.ROLL_BACK, T.BROKEN, T.ABORTED])
def test_what_somebody_else_made_champion_is_not_retired(place: Place, trigger: Trigger) -> None:
    job = place.apply(place.to(S.SHADOW), T.STEPPED, RouteChange(K.SHADOW, V1, 20))
    put_route(place, V1.name, "triage-base")
    place.apply(job, trigger)
    assert place.shares()[V1.name] == ("CHAMPION", 100)
    assert not place.registry.version("triage", 1).retired_us


@pytest.mark.parametrize("approved", [False, True])
def test_a_verdict_promotes_over_nobody_else_than_it_compared_with(
    place: Place, approved: bool
) -> None:
    place.open(policy="approve_before: [promotion]" if approved else "")
    job = place.apply(place.claim(), T.STARTED)
    while job.state is not S.CANARY:
        job = place.done(job)
    job = place.store.note(job, {"journal": {"champion": "triage-base"}})
    if approved:
        job = place.apply(job, T.PROMOTE)
    route = place.outbox.head("triage")
    assert route is not None
    route.version += 1
    route.variants[0].name = "triage-other"
    place.outbox.observe([route])
    if approved:
        with pytest.raises(NotAllowed, match="triage-other now and was triage-base"):
            place.store.act(job.id, place.event(T.APPROVED))
    else:
        with pytest.raises(JobMoved, match="triage-other now and was triage-base"):
            place.apply(job, T.PROMOTE)
    assert place.store.get(job.id).state is job.state
    assert place.outbox.head("triage") == route


def test_what_somebody_else_made_champion_is_rolled_back_by_nobody(place: Place) -> None:
    job = place.apply(place.to(S.CANARY), T.STEPPED, RouteChange(K.SPLIT, V1, 20), step=1)
    put_route(place, V1.name, "triage-base")
    job = place.apply(job, T.INCONCLUSIVE)
    with pytest.raises(NotAllowed, match=r"answers with triage-v1.*penstock routes apply"):
        place.store.act(job.id, place.event(T.ROLLED_BACK_BY_HAND))
    assert place.store.get(job.id).state is S.INCONCLUSIVE
    put_route(place, "triage-base", V1.name)
    place.store.act(job.id, place.event(T.ROLLED_BACK_BY_HAND))
    assert set(place.shares()) == {"triage-base"}
    assert place.registry.version("triage", 1).retired_us


def test_a_rollback_takes_what_somebody_else_left_a_promoted_one(place: Place) -> None:
    place.apply(place.to(S.CANARY), T.PROMOTE)
    put_route(place, "triage-base", V1.name)
    place.store.act("job-1", place.event(T.ROLLED_BACK_BY_HAND))
    assert place.shares() == {"triage-base": ("CHAMPION", 100)}


def test_a_training_that_says_too_little_makes_nothing(place: Place) -> None:
    job = place.to(S.TRAINING)
    with pytest.raises(StageBroken, match=r"needs kind .* and base_model"):
        place.apply(job, T.DONE, facts={"kind": "adapter"})
    assert place.registry.by_job(job.id) is None
    assert place.store.get(job.id).state is S.TRAINING


def test_without_a_route_nothing_takes_traffic(place: Place) -> None:
    job = place.to(S.SHADOW, model="unrouted")
    candidate = Candidate("unrouted-v1", "triage", "unrouted-v1")
    with pytest.raises(StageBroken, match="has no route"):
        place.apply(job, T.STEPPED, RouteChange(K.SHADOW, candidate, 10))
    assert place.apply(job, T.BROKEN).state is S.FAILED


def test_histories_cannot_be_rewritten(place: Place) -> None:
    job = place.to(S.CANARY)
    history = place.store.history(job.id)
    assert [t.revision for t in history] == list(range(1, job.revision + 1))
    assert [t.after for t in history][-2:] == [S.SHADOW, S.CANARY]
    for statement in (
        "UPDATE job_history SET reason = 'x'",
        "DELETE FROM job_history",
        "UPDATE alias_history SET to_version = 9",
        "DELETE FROM alias_history",
    ):
        with pytest.raises(Exception, match="append-only"), place.database.writing() as connection:
            connection.execute(sql.text(statement))
    assert place.store.history(job.id) == history


def test_what_changes_every_second_is_noted_without_a_row_of_history(place: Place) -> None:
    job = place.to(S.CANARY)
    history = place.store.history(job.id)
    noted = place.store.note(job, {"read_to": 7})
    noted = place.store.note(noted, {"trial": [1]})
    assert place.store.get(job.id) == noted
    assert noted.result(S.CANARY) == {"read_to": 7, "trial": [1]}
    assert (noted.revision, place.store.history(job.id)) == (job.revision, history)
    with pytest.raises(StageBroken, match="finite"):
        place.store.note(noted, {"trial": float("nan")})
    place.now_us += LEASE_US
    assert place.claim("two").claim > job.claim
    with pytest.raises(JobMoved):
        place.store.note(noted, {"read_to": 8})
    assert place.store.get(job.id).result(S.CANARY)["read_to"] == 7


def test_news_wait_until_they_are_told(place: Place) -> None:
    job = place.to(S.DATASET)
    told = [transition for _, transition in place.store.news(10)]
    assert [t.after for t in told] == [S.OPENED, S.DATASET]
    place.store.told(told[:1])
    assert [t.after for _, t in place.store.news(10)] == [S.DATASET]
    place.apply(job, T.ABORTED)
    assert [t.after for _, t in place.store.news(10)] == [S.DATASET, S.CANCELLED]


def test_an_ended_job_is_cleaned_up_by_whoever_takes_it(place: Place) -> None:
    job = place.to(S.TRAINING)
    place.store.act(job.id, place.event(T.ABORTED))
    later = place.now_us + 10 * LEASE_US
    assert place.store.claim("two", later, LEASE_US, 9, clean_after_us=later) == []
    # Who runs it has not let go yet.
    assert place.store.claim("two", place.tick(), LEASE_US, 9) == []
    place.store.release(job)
    ended = place.claim("two")
    assert ended.state is S.CANCELLED
    place.store.cleaned(ended, retry_at_us=place.now_us + 30_000_000)
    place.store.release(ended)
    assert place.store.claim("two", place.tick(), LEASE_US, 9) == []
    (ended,) = place.store.claim("two", place.tick(40_000_000), LEASE_US, 9)
    place.store.cleaned(ended)
    place.store.release(ended)
    assert place.store.claim("two", place.tick(), LEASE_US, 9) == []


def test_a_rollback_while_it_is_cleaned_up_is_cleaned_up_after(place: Place) -> None:
    job = place.apply(place.to(S.CANARY), T.PROMOTE)
    place.store.release(job)
    cleaning = place.claim("two")
    place.store.act(job.id, place.event(T.ROLLED_BACK_BY_HAND))
    place.store.cleaned(cleaning)
    place.store.release(cleaning)
    assert place.claim("two").state is S.ROLLED_BACK


def test_pages_and_what_the_budget_needs(place: Place) -> None:
    for number in range(5):
        job = place.to(S.TRAINING, f"job-{number}")
        place.apply(job, T.ABORTED)
    first = place.store.newest(before=None, limit=2)
    assert [j.id for j in first] == ["job-4", "job-3"]
    last = (first[-1].created_us, first[-1].id)
    assert [j.id for j in place.store.newest(before=last, limit=9)] == ["job-2", "job-1", "job-0"]
    past = place.store.past("triage", 0)
    assert len(past) == 5
    # One second in each of dataset and training.
    assert {p.compute_s for p in past} == {2.0}
    assert place.store.past("triage", place.now_us + 1) == []
    with pytest.raises(NoSuchJob, match="penstock jobs list"):
        place.store.get("nothing")


def test_the_registry_is_idempotent_by_job_and_swaps_by_comparing(place: Place) -> None:
    made = Made("adapter", "triage")
    one = place.registry.create_version("triage", "job-a", made, 1)
    assert place.registry.create_version("triage", "job-a", made, 2) == one
    two = place.registry.create_version("triage", "job-b", made, 3)
    assert (one.version, two.version, two.name) == (1, 2, "triage-v2")
    place.registry.set_alias(AliasChange("triage", "champion", 0, 0, 1, 10))
    with pytest.raises(AliasMoved, match="champion of triage is version 1, not none"):
        place.registry.set_alias(AliasChange("triage", "champion", 0, 0, 2, 11))
    place.registry.set_alias(AliasChange("triage", "champion", 0, 1, 2, 12, by="me"))
    history = place.registry.alias_history("triage")
    assert [(c.revision, c.from_version, c.to_version) for c in history] == [
        (1, 0, 1),
        (2, 1, 2),
    ]
    with pytest.raises(AliasMoved):
        place.registry.retire("triage", 2, "old", 13)
    place.registry.retire("triage", 1, "old", 13)
    with pytest.raises(NoSuchVersion, match="retired: old"):
        place.registry.set_alias(AliasChange("triage", "champion", 0, 2, 1, 14))
    with pytest.raises(NoSuchVersion):
        place.registry.set_alias(AliasChange("triage", "champion", 0, 2, 9, 14))
    assert place.registry.as_of("triage", 11) == {"champion": 1}


def test_routes_of_others_are_followed_but_never_back(place: Place) -> None:
    newer = place.outbox.head("triage")
    assert newer is not None
    newer.version = 6
    place.outbox.observe([newer])
    older = route_pb2.Route()
    older.CopyFrom(newer)
    older.version, older.sticky_by = 3, route_pb2.STICKY_BY_TENANT
    place.outbox.observe([older])
    assert place.outbox.head("triage") == newer


def tombstone(view: RouteView) -> None:
    view.on_record(Record(Partition("p.routes", 0), 0, b"triage", None, (), 0))


def on_the_log(view: RouteView, route: route_pb2.Route) -> None:
    made = encode(route, topic="p.routes", key=route.model, source="cli")
    view.on_record(Record(Partition("p.routes", 0), 0, made.key, made.value, made.headers, 0))


def followed(place: Place, view: RouteView) -> None:
    place.outbox.forget(view.take_ended(), place.tick())
    place.outbox.observe(view.take_new())


@pytest.mark.parametrize(("model", "version"), [("triage", 2**63), ("tri\0age", 2)])
def test_a_route_that_no_database_takes_stops_nobody(
    place: Place, model: str, version: int
) -> None:
    view = RouteView()
    champion = route_pb2.Variant(name="a", base_model="a", weight=1)
    champion.stage = route_pb2.STAGE_CHAMPION
    for each in (
        route_pb2.Route(model=model, version=version, variants=[champion]),
        route_pb2.Route(model="triage", version=3, variants=[champion]),
    ):
        on_the_log(view, each)
    followed(place, view)
    head = place.outbox.head("triage")
    assert head is not None
    assert head.version == 3
    assert place.outbox.head(model) == (head if model == "triage" else None)


def test_a_route_that_was_ended_is_brought_back_by_nobody(place: Place) -> None:
    view = RouteView()
    job = place.to(S.CANARY)
    job = place.apply(job, T.STEPPED, RouteChange(K.SPLIT, V1, 5), step=1)
    assert place.outbox.models_waiting() == ["triage"]
    tombstone(view)
    followed(place, view)
    assert place.outbox.models_waiting() == []
    assert place.outbox.head("triage") is None
    place.apply(job, T.ROLL_BACK)
    assert place.outbox.models_waiting() == []


@pytest.mark.parametrize("at_once", [False, True])
def test_what_is_made_after_an_end_is_made_of_the_route_that_stands(
    place: Place, at_once: bool
) -> None:
    """It begins with version 1 again, below the one that is known."""
    view = RouteView()
    for version in (2, 7):
        place.routed(version=version)
    tombstone(view)
    if not at_once:
        followed(place, view)
    other = route_pb2.Variant(name="new-base", base_model="new", weight=1)
    other.stage = route_pb2.STAGE_CHAMPION
    on_the_log(view, route_pb2.Route(model="triage", version=1, variants=[other]))
    followed(place, view)
    job = place.to(S.CANARY)
    place.apply(job, T.STEPPED, RouteChange(K.SPLIT, V1, 5), step=1)
    (entry,) = place.outbox.waiting("triage")
    assert (entry.version, entry.route.variants[0].name) == (2, "new-base")


def test_an_end_that_is_read_again_keeps_what_waits(place: Place) -> None:
    """A process that starts reads it, and what came after it."""
    view = RouteView()
    job = place.to(S.CANARY)
    standing = place.outbox.head("triage")
    assert standing is not None
    tombstone(view)
    on_the_log(view, standing)
    place.apply(job, T.STEPPED, RouteChange(K.SPLIT, V1, 5), step=1)
    followed(place, view)
    assert place.outbox.models_waiting() == ["triage"]
