"""Replicas start anew one at a time and once each, whoever reads the command, and floors hold."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence

import pytest

from penstock.kafka.ports import LogError
from penstock.measures import Kind, Measure, end_record, measure_record
from penstock.records import Outgoing, Partition, Record
from penstock_inference.engines.speed import Speed
from penstock_inference.pump.steward import READ_BACK_S, Steward
from penstock_inference.scaling.decision import Bounds
from penstock_inference.scaling.directory import Announcement, Directory, Restart, Wishes
from penstock_inference.scaling.leaves import LEAVE_S

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)


class Engines:
    """A directory, and replicas that announce themselves to it each second."""

    def __init__(self, *names: str, model: str = "triage") -> None:
        self.now_s = 0.0
        self.directory = Directory(clock=lambda: self.now_s, ttl_s=5)
        self.model = model
        self.alive = {name: Announcement(name, "h:1", model, 0) for name in names}
        self.wishes = Wishes()
        self.gone: list[tuple[str, str]] = []

    def second(self, count: int = 1) -> None:
        for _ in range(count):
            self.now_s += 1
            self.directory.report("pump", {}, self.wishes)
            for name, announcement in list(self.alive.items()):
                told = self.directory.announce(announcement)
                if told:
                    # As the replica does: it says nothing more.
                    del self.alive[name]
                    self.gone.append((name, told))

    def want(self, *names: str) -> None:
        self.wishes = Wishes(restarts=[Restart(f"m-{name}", self.model, name) for name in names])

    def come(self, name: str) -> None:
        self.alive[name] = Announcement(name, "h:1", self.model, 0)

    def live(self) -> list[str]:
        return [each.replica_id for each in self.directory.live()]


def test_the_named_one_goes_once_and_takes_no_more_work_at_once() -> None:
    engines = Engines("a", "b")
    engines.second()
    engines.want("a")
    engines.second()
    assert engines.gone == [("a", "m-a")]
    assert engines.live() == ["b"]
    engines.come("c")  # in its place; the command still stands
    engines.second(30)
    assert engines.gone == [("a", "m-a")]


def test_the_only_one_stays_until_another_lives() -> None:
    engines = Engines("a")
    engines.want("a")
    engines.second(20)
    assert engines.gone == []
    engines.come("b")
    engines.second(2)
    assert engines.gone == [("a", "m-a")]


def test_one_that_serves_another_model_does_not_count() -> None:
    engines = Engines("a")
    engines.alive["x"] = Announcement("x", "h:1", "other", 0)
    engines.want("a")
    engines.second(20)
    assert engines.gone == []


def test_one_at_a_time_until_another_has_come_for_it() -> None:
    engines = Engines("a", "b", "c")
    engines.second()
    engines.want("a", "b")
    engines.second(60)
    assert [name for name, _ in engines.gone] == ["a"]
    engines.come("a2")
    engines.second(2)
    assert [name for name, _ in engines.gone] == ["a", "b"]


def test_where_none_comes_for_it_the_next_may_go_after_a_while() -> None:
    engines = Engines("a", "b", "c")
    engines.second()
    engines.want("a", "b")
    engines.second(int(LEAVE_S))
    assert [name for name, _ in engines.gone] == ["a"]
    engines.second(5)
    assert [name for name, _ in engines.gone] == ["a", "b"]
    engines.second(2 * int(LEAVE_S))
    assert engines.live() == ["c"]


def test_one_that_did_not_hear_that_it_may_go_is_told_again() -> None:
    engines = Engines("a", "b")
    engines.want("a")
    engines.second(2)
    engines.come("a")  # the answer was lost
    engines.second()
    assert engines.gone == [("a", "m-a"), ("a", "m-a")]


def test_a_command_that_no_pump_tells_of_any_more_is_over() -> None:
    engines = Engines("a")
    engines.want("a")
    engines.second()
    engines.wishes = Wishes()
    engines.come("b")
    engines.second(10)
    assert engines.gone == []


def test_the_slowest_is_the_one_that_takes_longest_for_a_token() -> None:
    engines = Engines()
    for name, slow, load in [("a", 0.02, 900), ("b", 0.05, 10), ("c", 0.0, 0)]:
        engines.alive[name] = Announcement(name, "h:1", "triage", load, seconds_per_token=slow)
    engines.second()
    assert engines.directory.slowest("triage") == "b"
    engines.alive["c"] = Announcement("c", "h:1", "triage", 5, seconds_per_token=math.inf)
    engines.second()
    assert engines.directory.slowest("triage") == "c"
    engines.want("c")
    engines.second()
    assert engines.directory.slowest("triage") == ""  # one is on its way
    assert engines.directory.slowest("other") == ""


def test_the_only_one_is_never_chosen() -> None:
    engines = Engines("a")
    engines.second()
    assert engines.directory.slowest("triage") == ""


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([], 0.0),
        ([(0, 0)] * 10, 0.0),
        ([(4, 0)] * 10, math.inf),
        ([(4, 10 * n) for n in range(10)], 0.4),
        # What was longer than a minute ago is forgotten.
        ([(4, n) for n in range(100)] + [(4, 99 + 40 * n) for n in range(1, 70)], 0.1),
    ],
)
def test_an_engine_is_as_slow_as_its_work_takes_per_token(
    looks: Sequence[tuple[int, float]], expected: float
) -> None:
    speed = Speed()
    for second, (running, tokens) in enumerate(looks):
        speed.look(running, tokens, float(second))
    assert speed.seconds_per_token == pytest.approx(expected)


@pytest.mark.parametrize(("floor", "minimum"), [(0, 2), (1, 2), (3, 3), (9, 4)])
def test_a_floor_raises_the_minimum_within_the_maximum(floor: int, minimum: int) -> None:
    assert Bounds(2, 4).raised(floor) == Bounds(minimum, 4)


class Log:
    """`control`, which every pump reads in one order."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.broken = False

    async def publish(self, records: Sequence[Outgoing]) -> None:
        if self.broken:
            raise LogError("away")
        for out in records:
            self.append(out)

    def append(self, out: Outgoing) -> None:
        partition = Partition(out.topic, 0)
        stamp = round(NOW.timestamp() * 1000)
        self.records.append(
            Record(partition, len(self.records), out.key, out.value, out.headers, stamp)
        )


class Pump:
    """One pump's steward, with what it has read."""

    def __init__(self, log: Log, slowest: str) -> None:
        self.log, self.now, self.name, self._read = log, NOW, slowest, 0
        self.steward = Steward(self, log, "p.control", {"triage": 3}, now=lambda: self.now)

    async def slowest(self, model: str) -> str:
        assert model == "triage"
        return self.name

    def read(self) -> Wishes:
        for record in self.log.records[self._read :]:
            self.steward.take(record)
        self._read = len(self.log.records)
        return self.steward.wishes()


def ask(log: Log, kind: Kind, name: str = "m-1", **more: object) -> Measure:
    fields = {"model": "triage", "requested_at": NOW, "until": NOW + 10 * MINUTE} | more
    made = Measure(name, kind, **fields)  # type: ignore[arg-type]
    log.append(measure_record(made, "p.control", "test"))
    return made


async def test_several_pumps_choose_and_the_first_choice_counts_for_all() -> None:
    log = Log()
    pumps = [Pump(log, "a"), Pump(log, "b")]
    ask(log, Kind.RESTART)
    for pump in pumps:
        assert pump.read().restarts == ()
    for pump in pumps:
        await pump.steward.choose()
    assert len(log.records) == 3
    for pump in [*pumps, Pump(log, "c")]:  # one that starts later too
        wishes = pump.read()
        assert wishes.restarts == (Restart("m-1", "triage", "a"),)
        await pump.steward.choose()
        pump.now += 10 * MINUTE
        assert pump.steward.wishes().restarts == ()
        await pump.steward.choose()
    assert len(log.records) == 3


async def test_a_choice_that_does_not_come_back_is_made_again() -> None:
    log = Log()
    pump = Pump(log, "a")
    ask(log, Kind.RESTART)
    pump.read()
    log.broken = True
    await pump.steward.choose()
    log.broken = False
    await pump.steward.choose()
    await pump.steward.choose()
    assert len(log.records) == 2
    pump.now += dt.timedelta(seconds=READ_BACK_S)
    await pump.steward.choose()
    assert len(log.records) == 3


async def test_where_none_may_go_nothing_is_chosen_yet() -> None:
    log = Log()
    pump = Pump(log, "")
    ask(log, Kind.RESTART)
    pump.read()
    await pump.steward.choose()
    assert len(log.records) == 1
    pump.name = "a"
    await pump.steward.choose()
    assert pump.read().restarts == (Restart("m-1", "triage", "a"),)


def test_floors_end_by_themselves_and_by_command() -> None:
    log = Log()
    pump = Pump(log, "")
    high = ask(log, Kind.SCALE, "high", replicas=9)
    ask(log, Kind.SCALE, "low", replicas=2, until=NOW + 20 * MINUTE)
    ask(log, Kind.SCALE, "foreign", replicas=2, model="unknown")
    ask(log, Kind.SHED, "shed")
    assert pump.read().floors == {"triage": 9}
    log.append(end_record(high, NOW, "ada", "p.control", "test"))
    assert pump.read().floors == {"triage": 2}
    pump.now += 20 * MINUTE
    assert pump.steward.wishes() == Wishes()
