"""Routes leave the outbox once each, in order, and nobody who slept takes one back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from penstock.codec import decode, encode
from penstock.kafka.ports import Fenced, LogError
from penstock.records import Outgoing, Partition, Record
from penstock.v1 import route_pb2
from penstock_retrain.errors import RetrainUnavailable
from penstock_retrain.jobs import route_publisher
from penstock_retrain.jobs.leases import Lease, Leases
from penstock_retrain.jobs.outbox import Entry, RouteStatus
from penstock_retrain.jobs.route_publisher import RoutePublisher
from penstock_retrain.jobs.route_view import RouteView
from penstock_retrain.jobs.stages import Candidate, RouteChange, RouteChangeKind
from penstock_retrain.jobs.states import JobState, Trigger
from tests.unit.retrain.jobs.places import Place

K = RouteChangeKind
V1 = Candidate("triage-v1", "triage", "triage-v1")


class Log:
    """The topic `routes`: one partition, transactional ids with epochs, and who follows it."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.epochs: dict[str, int] = {}
        self.followers: list[RouteView] = []
        # Called before a record is written: somebody else may be quicker.
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    def append(self, outgoing: Outgoing) -> None:
        record = Record(
            Partition("p.routes", 0),
            len(self.records),
            outgoing.key,
            outgoing.value,
            outgoing.headers,
            0,
        )
        self.records.append(record)
        for view in self.followers:
            view.on_record(record)

    def write(self, route: route_pb2.Route) -> None:
        """Somebody else's route."""
        self.append(encode(route, topic="p.routes", key=route.model, source="cli"))

    def routes(self) -> list[route_pb2.Route]:
        return [decode(record, route_pb2.Route) for record in self.records]

    def held(self) -> route_pb2.Route:
        """What whoever reads the topic from its beginning holds at its end."""
        view = RouteView()
        for record in self.records:
            view.on_record(record)
        found = view.held("triage")
        assert found is not None
        return found


class Writer:
    """One owner of a transactional id, as Kafka has it."""

    def __init__(self, log: Log, model: str, gate: asyncio.Event | None) -> None:
        self._log, self._id, self._gate = log, model, gate
        self._epoch = 0

    async def start(self) -> None:
        self._epoch = self._log.epochs[self._id] = self._log.epochs.get(self._id, 0) + 1

    async def publish(self, records: Sequence[Outgoing]) -> None:
        if self._gate is not None:
            await self._gate.wait()
        if self._log.epochs[self._id] != self._epoch:
            raise Fenced("another writer")
        before, self._log.before = self._log.before, lambda: None
        before()
        for record in records:
            self._log.append(record)
        after, self._log.after = self._log.after, lambda: None
        after()

    async def stop(self) -> None:
        return


class Asleep(Leases):
    """The leases of a process that sleeps: it prolongs none."""

    def renew(self, lease: Lease, now_us: int, length_us: int) -> None:
        return


class Bench:
    """A place with a log, and publishers of it."""

    def __init__(self, url: str) -> None:
        self.place = Place(url)
        self.log = Log()
        self.moved = 0
        self.place.routed()
        base = self.place.outbox.head("triage")
        assert base is not None
        self.log.write(base)

    def publisher(self, owner: str, gate: asyncio.Event | None = None) -> RoutePublisher:
        leases = Leases if gate is None else Asleep
        view = RouteView()
        for record in self.log.records:
            view.on_record(record)
        self.log.followers.append(view)
        return RoutePublisher(
            self.place.outbox,
            leases(self.place.database, owner),
            view,
            lambda model: Writer(self.log, model, gate),
            "p.routes",
            moved=self.count,
            lease_s=5,
            clock_us=lambda: self.place.now_us,
        )

    def count(self) -> None:
        self.moved += 1

    def statuses(self) -> list[tuple[int, RouteChangeKind, RouteStatus]]:
        return [(e.version, e.change.kind, e.status) for e in self.place.outbox.of_job("job-1")]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(f"sqlite:///{tmp_path}/retrain.sqlite")
    yield made
    made.place.close()


PUBLISHED, SUPERSEDED = RouteStatus.PUBLISHED, RouteStatus.SUPERSEDED


def split(bench: Bench, *percents: float) -> None:
    job = bench.place.to(JobState.CANARY)
    for step, percent in enumerate(percents, 1):
        job = bench.place.apply(job, Trigger.STEPPED, RouteChange(K.SPLIT, V1, percent), step=step)


async def test_what_waits_is_published_in_order_and_once(bench: Bench) -> None:
    split(bench, 5, 20)
    publisher = bench.publisher("one")
    await publisher.carry("triage")
    await publisher.carry("triage")
    assert [route.version for route in bench.log.routes()] == [1, 2, 3]
    assert bench.statuses() == [(2, K.SPLIT, PUBLISHED), (3, K.SPLIT, PUBLISHED)]
    assert bench.place.outbox.models_waiting() == []
    assert bench.log.epochs == {"triage": 1}


async def test_two_processes_never_publish_one_model_at_a_time(bench: Bench) -> None:
    split(bench, 5)
    one, two = bench.publisher("one"), bench.publisher("two")
    await one.carry("triage")
    bench.place.store.act("job-1", bench.place.event(Trigger.ABORTED))
    await two.carry("triage")  # one has the lease
    assert len(bench.log.records) == 2
    await one.carry("triage")
    assert bench.statuses()[-1] == (3, K.WITHDRAW, PUBLISHED)
    assert bench.log.epochs == {"triage": 1}


async def test_one_models_trouble_with_the_database_begins_no_others_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that publish by one transactional id in one process would end each other."""
    split(bench, 5)
    monkeypatch.setattr(route_publisher, "POLL_S", 0.01)
    monkeypatch.setattr(bench.place.outbox, "models_waiting", lambda: ["other", "triage"])
    asked, waiting, under_way = 0, bench.place.outbox.waiting, []
    gate = asyncio.Event()

    def away(model: str) -> list[Entry]:
        nonlocal asked
        if model == "other":
            asked += 1
            raise RetrainUnavailable("away")
        return waiting(model)

    publish = Writer.publish

    async def counted(self: Writer, records: Sequence[Outgoing]) -> None:
        under_way.append(self)
        await publish(self, records)

    monkeypatch.setattr(bench.place.outbox, "waiting", away)
    monkeypatch.setattr(Writer, "publish", counted)
    running = asyncio.create_task(bench.publisher("one", gate).run())
    async with asyncio.timeout(30):
        while not under_way:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert len(under_way) == 1
    gate.set()
    async with asyncio.timeout(30):
        while asked < 2:  # they go on together
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert bench.statuses() == [(2, K.SPLIT, PUBLISHED)]


async def test_a_process_that_slept_cannot_take_a_rollback_back(bench: Bench) -> None:
    split(bench, 5)
    gate = asyncio.Event()
    sleeper = bench.publisher("sleeper", gate)
    asleep = asyncio.create_task(sleeper.carry("triage"))
    while not bench.log.epochs:  # it has read what waits, taken the id, and sleeps before it writes
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    bench.place.store.act("job-1", bench.place.event(Trigger.ABORTED))
    bench.place.tick(6_000_000)
    await bench.publisher("other").carry("triage")
    assert [route.version for route in bench.log.routes()] == [1, 2, 3]
    gate.set()
    await asleep
    await sleeper.carry("triage")
    assert [route.version for route in bench.log.routes()] == [1, 2, 3]
    assert [v.name for v in bench.log.held().variants] == ["triage-base"]
    assert bench.statuses() == [(2, K.SPLIT, PUBLISHED), (3, K.WITHDRAW, PUBLISHED)]


async def test_a_crash_between_the_log_and_sql_writes_nothing_twice(bench: Bench) -> None:
    split(bench, 5)

    def crash() -> None:
        raise LogError("the answer was lost")

    bench.log.after = crash
    await bench.publisher("one").carry("triage")
    assert bench.statuses() == [(2, K.SPLIT, RouteStatus.WAITING)]
    bench.place.tick(6_000_000)
    await bench.publisher("two").carry("triage")
    assert [route.version for route in bench.log.routes()] == [1, 2]
    assert bench.statuses() == [(2, K.SPLIT, PUBLISHED)]


def elsewhere(bench: Bench, version: int, *, withdrawn: bool = False) -> route_pb2.Route:
    """What an operator writes, made of what is on the log."""
    made = bench.log.held()
    made.version = version
    made.sticky_by = route_pb2.STICKY_BY_TENANT
    for variant in made.variants:
        if withdrawn and variant.name == V1.name:
            variant.weight = 0
    return made


async def test_a_change_is_made_anew_of_a_route_that_came_first(bench: Bench) -> None:
    split(bench, 5, 20)
    bench.log.write(elsewhere(bench, 2))
    await bench.publisher("one").carry("triage")
    assert bench.statuses() == [
        (2, K.SPLIT, SUPERSEDED),
        (3, K.SPLIT, SUPERSEDED),
        (4, K.SPLIT, PUBLISHED),
        (5, K.SPLIT, PUBLISHED),
    ]
    held = bench.log.held()
    assert (held.version, held.sticky_by) == (5, route_pb2.STICKY_BY_TENANT)
    assert {v.name: v.weight for v in held.variants} == {"triage-base": 8000, "triage-v1": 2000}


async def test_an_operator_who_is_a_moment_quicker_is_built_upon(bench: Bench) -> None:
    """Two records have version 2: whoever follows holds the first, a later reader may not."""
    split(bench, 5)
    theirs = elsewhere(bench, 2)
    bench.log.before = lambda: bench.log.write(theirs)
    await bench.publisher("one").carry("triage")
    assert [route.version for route in bench.log.routes()] == [1, 2, 2, 3]
    assert bench.statuses() == [(2, K.SPLIT, SUPERSEDED), (3, K.SPLIT, PUBLISHED)]
    assert bench.log.held().sticky_by == route_pb2.STICKY_BY_TENANT


async def promoted(bench: Bench) -> RoutePublisher:
    """A job whose promotion waits in the outbox."""
    split(bench, 5)
    publisher = bench.publisher("one")
    await publisher.carry("triage")
    job = bench.place.store.get("job-1")
    bench.place.apply(job, Trigger.PROMOTE)
    return publisher


async def test_a_rollback_by_hand_stands_and_the_job_is_rolled_back(bench: Bench) -> None:
    publisher = await promoted(bench)
    by_hand = elsewhere(bench, 3, withdrawn=True)
    bench.log.before = lambda: bench.log.write(by_hand)
    await publisher.carry("triage")
    job = bench.place.store.get("job-1")
    assert (job.state, bench.moved) == (JobState.ROLLED_BACK, 1)
    assert "somebody else's route came before the promotion" in job.reason
    assert bench.place.registry.aliases("triage") == {}
    assert bench.statuses()[-3:] == [
        (3, K.PROMOTE, SUPERSEDED),
        (4, K.SETTLE, PUBLISHED),
        (5, K.RESTORE, PUBLISHED),
    ]
    # Both records of version 3 are there: the higher ones say what stands, for every reader.
    held = bench.log.held()
    assert held.version == 5
    assert {v.name: v.weight for v in held.variants} == {"triage-base": 9500}
    last = RouteView()
    last.on_record(bench.log.records[-1])  # what compaction leaves
    assert last.held("triage") == held


async def test_nobody_is_promoted_over_a_champion_that_somebody_made_meanwhile(
    bench: Bench,
) -> None:
    publisher = await promoted(bench)
    theirs = elsewhere(bench, 3)
    theirs.variants[0].name = "triage-other"
    bench.log.write(theirs)
    await publisher.carry("triage")
    assert bench.place.store.get("job-1").state is JobState.ROLLED_BACK
    assert [v.name for v in bench.log.held().variants] == ["triage-other"]
    assert bench.place.registry.aliases("triage") == {}


async def test_what_cannot_be_kept_is_neither_superseded_nor_undone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is away in the middle: the next process finds all of it to be done."""
    publisher = await promoted(bench)
    bench.log.write(elsewhere(bench, 3, withdrawn=True))

    def away(*args: object) -> None:
        raise RetrainUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(route_publisher, "undo_promotion", away)
        with pytest.raises(RetrainUnavailable):
            await publisher.carry("triage")
    assert bench.place.store.get("job-1").state is JobState.PROMOTED
    assert bench.statuses()[-1] == (3, K.PROMOTE, RouteStatus.WAITING)
    bench.place.tick(6_000_000)
    await bench.publisher("two").carry("triage")
    assert bench.place.store.get("job-1").state is JobState.ROLLED_BACK


async def test_somebody_elses_promotion_of_the_same_candidate_is_one(bench: Bench) -> None:
    publisher = await promoted(bench)
    theirs = elsewhere(bench, 3)
    old, new = theirs.variants
    old.stage, old.weight = route_pb2.STAGE_CANDIDATE, 0
    new.stage, new.weight = route_pb2.STAGE_CHAMPION, 100
    bench.log.write(theirs)
    await publisher.carry("triage")
    assert bench.place.store.get("job-1").state is JobState.PROMOTED
    assert bench.place.registry.aliases("triage") == {"champion": 1}
    assert bench.log.held() == theirs


async def test_a_job_that_cannot_be_rolled_back_keeps_nothing_waiting(bench: Bench) -> None:
    """Their champion is made of the candidate: its weights have to stay."""
    publisher = await promoted(bench)
    theirs = elsewhere(bench, 3, withdrawn=True)
    theirs.variants[0].base_model = V1.name
    bench.log.write(theirs)
    await publisher.carry("triage")
    job = bench.place.store.get("job-1")
    assert job.state is JobState.PROMOTED
    assert [t.after for t in bench.place.store.history("job-1")][-1] is JobState.PROMOTED
    assert bench.statuses()[-1] == (3, K.PROMOTE, SUPERSEDED)
    assert bench.place.outbox.models_waiting() == []
    assert bench.place.outbox.head("triage") == theirs


async def test_a_withdrawal_comes_after_whatever_somebody_else_wrote(bench: Bench) -> None:
    split(bench, 50)
    publisher = bench.publisher("one")
    await publisher.carry("triage")
    bench.place.store.act("job-1", bench.place.event(Trigger.ROLLED_BACK_BY_HAND))
    theirs = elsewhere(bench, 8)
    bench.log.before = lambda: bench.log.write(theirs)
    await publisher.carry("triage")
    held = bench.log.held()
    assert held.version == 9
    assert [v.name for v in held.variants] == ["triage-base"]
    assert held.sticky_by == route_pb2.STICKY_BY_TENANT
    # What is written next is made of what stands, under the version after it.
    head = bench.place.outbox.head("triage")
    assert head == held
