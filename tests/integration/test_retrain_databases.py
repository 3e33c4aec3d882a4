"""Retrain's SQL on SQLite and PostgreSQL: many at once, and still one of each."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql

from penstock.errors import PenstockError
from penstock_retrain.jobs.leases import Leases
from penstock_retrain.jobs.stages import Candidate, RouteChange, RouteChangeKind
from penstock_retrain.jobs.states import Job, JobState, Trigger
from penstock_retrain.registry.versions import AliasChange, Made
from tests.integration.postgres import new_database, postgres_server, why_none
from tests.unit.retrain.jobs.places import FOUND, LEASE_US, Place

pytestmark = pytest.mark.integration

S, T, K = JobState, Trigger, RouteChangeKind
AT_ONCE = 8


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    reason = why_none()
    if reason:
        pytest.skip(reason)
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/retrain.sqlite"
    return new_database(request.getfixturevalue("server"))


@pytest.fixture
def place(url: str) -> Iterator[Place]:
    made = Place(url)
    made.routed()
    yield made
    made.close()


def at_once(work: Callable[[int], Any]) -> list[Any]:
    """What comes of a call that many make at once: results and penstock's errors."""
    barrier = threading.Barrier(AT_ONCE)

    def one(number: int) -> Any:
        barrier.wait()
        try:
            return work(number)
        except PenstockError as error:
            return error

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, range(AT_ONCE)))


def good(found: list[Any]) -> list[Any]:
    return [each for each in found if not isinstance(each, PenstockError)]


def test_services_that_start_at_once_make_the_tables_once(url: str) -> None:
    places = good(at_once(lambda _: Place(url)))
    assert len(places) == AT_ONCE
    for each in places:
        each.close()


def test_of_many_starts_one_opens_a_job(place: Place) -> None:
    found = at_once(lambda number: place.open(f"job-{number}"))
    assert len(good(found)) == 1
    assert len(place.store.newest(active=True, before=None, limit=99)) == 1


def test_of_many_starts_with_one_key_all_get_the_same_job(place: Place) -> None:
    template = place.open("template")
    place.store.act("template", place.event(T.ABORTED))

    def start(number: int) -> Job:
        job = Job(f"job-{number}", "triage", template.cause, template.policy, 1, 1)
        return place.store.open_job(job, "key")

    ids = {job.id for job in good(at_once(start))}
    # Who came at the same instant is told to try again, and then gets it.
    ids |= {start(99).id}
    assert len(ids) == 1


def test_a_job_is_claimed_by_one(place: Place) -> None:
    for number in range(3):
        place.open(f"job-{number}", model=f"model-{number}")
    now_us = place.tick()
    found = good(at_once(lambda n: place.store.claim(f"owner-{n}", now_us, LEASE_US, 2)))
    claimed = [job.id for jobs in found for job in jobs]
    assert sorted(claimed) == ["job-0", "job-1", "job-2"]
    assert place.store.claim("late", now_us, LEASE_US, 9) == []


def test_a_lease_has_one_holder_and_epochs_rise(place: Place) -> None:
    now_us = place.tick()

    def take(number: int) -> Any:
        return Leases(place.database, f"owner-{number}").take("routes/triage", now_us, LEASE_US)

    found = [lease for lease in good(at_once(take)) if lease is not None]
    assert [lease.epoch for lease in found] == [1]
    later = Leases(place.database, "later").take("routes/triage", now_us + LEASE_US, LEASE_US)
    assert later is not None
    assert (later.epoch, later.after) == (2, 1)


def test_versions_are_numbered_without_a_gap_or_a_repeat(place: Place) -> None:
    made = Made("adapter", "triage")

    def create(number: int) -> Any:
        while True:
            try:
                return place.registry.create_version("triage", f"job-{number}", made, 1)
            except PenstockError as error:
                if not error.retryable:
                    raise

    found = good(at_once(create))
    assert sorted(version.version for version in found) == list(range(1, AT_ONCE + 1))
    again = place.registry.create_version("triage", "job-3", made, 2)
    assert again in found


def test_of_many_who_move_an_alias_one_does(place: Place) -> None:
    made = Made("adapter", "triage")
    for number in range(AT_ONCE):
        place.registry.create_version("triage", f"job-{number}", made, 1)
    found = at_once(
        lambda n: place.registry.set_alias(AliasChange("triage", "champion", 0, 0, n + 1, 5))
    )
    (moved,) = good(found)
    assert place.registry.aliases("triage") == {"champion": moved.to_version}
    assert len(place.registry.alias_history("triage")) == 1


def test_routes_of_one_model_have_each_a_version_of_its_own(place: Place) -> None:
    """Jobs of one model follow each other; what they and people do to its route is in one order."""
    job = place.to(S.CANARY)
    candidate = Candidate("triage-v1", "triage", "triage-v1")

    def step(number: int) -> Job:
        return place.apply(job, T.STEPPED, RouteChange(K.SPLIT, candidate, 10 + number))

    assert len(good(at_once(step))) == AT_ONCE
    entries = place.outbox.of_job("job-1")
    assert [entry.version for entry in entries] == list(range(2, AT_ONCE + 2))
    for before, after in itertools.pairwise(entries):
        assert after.base == before.route
    assert place.store.get("job-1").revision == job.revision + AT_ONCE


def test_of_many_ends_one_happens(place: Place) -> None:
    place.to(S.CANARY)
    triggers = [T.ABORTED, T.ROLLED_BACK_BY_HAND, T.PROMOTED_BY_HAND, T.ABORTED] * 2
    found = at_once(lambda n: place.store.act("job-1", place.event(triggers[n])))
    # A promotion may still be rolled back by hand after it.
    ends = [job.state for job in good(found)]
    assert ends
    standing = place.store.get("job-1")
    history = place.store.history("job-1")
    assert [t.revision for t in history] == list(range(1, standing.revision + 1))
    aliases = place.registry.aliases("triage")
    assert aliases == ({"champion": 1} if standing.state is S.PROMOTED else {})


def test_histories_cannot_be_rewritten(place: Place) -> None:
    place.apply(place.to(S.CANARY), T.PROMOTE)
    for statement in (
        "UPDATE job_history SET reason = 'x'",
        "DELETE FROM alias_history",
    ):
        with pytest.raises(Exception, match="append-only"), place.database.writing() as connection:
            connection.execute(sql.text(statement))


def test_a_promotion_and_its_rollback(place: Place) -> None:
    place.apply(place.to(S.CANARY), T.PROMOTE)
    promoted_us = place.now_us
    place.store.act("job-1", place.event(T.ROLLED_BACK_BY_HAND))
    assert place.registry.aliases("triage") == {}
    assert place.registry.as_of("triage", promoted_us) == {"champion": 1}
    assert place.shares() == {"triage-base": ("CHAMPION", 10_000)}
    page = place.store.newest(before=None, limit=5)
    assert place.store.newest(before=(page[-1].created_us, page[-1].id), limit=5) == []
    assert place.store.past("triage", 0)[0].compute_s == pytest.approx(len(FOUND))
