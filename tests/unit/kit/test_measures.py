"""Measures on `control`: once, in one order, over at their time, the same for every reader."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.measures import (
    MAX_S,
    Kind,
    Measure,
    Measures,
    end_record,
    measure_record,
    new_measure_id,
)
from penstock.records import Outgoing, Partition, Record
from penstock.v1 import control_pb2

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)


def measure(kind: Kind = Kind.SCALE, name: str = "m-1", **more: object) -> Measure:
    fields: dict[str, object] = {"replicas": 3} if kind is Kind.SCALE else {}
    fields |= {"model": "triage", "requested_at": NOW, "until": NOW + 10 * MINUTE} | more
    return Measure(measure_id=name, kind=kind, **fields)  # type: ignore[arg-type]


def read(out: Outgoing, at: dt.datetime = NOW) -> Record:
    stamp = round(at.timestamp() * 1000)
    return Record(Partition(out.topic, 0), 0, out.key, out.value, out.headers, stamp)


def written(made: Measure, at: dt.datetime = NOW) -> Record:
    return read(measure_record(made, "p.control", "test"), at)


def ended(made: Measure, at: dt.datetime = NOW) -> Record:
    return read(end_record(made, at, "ada", "p.control", "test"), at)


@pytest.mark.parametrize(
    "made",
    [
        measure(requested_by="ada", reason="a launch"),
        measure(Kind.SHED, share=0.25),
        measure(Kind.SHED, priority_above=-3, share=1.0),
        measure(Kind.SHED, priority_above=0),
        measure(Kind.RESTART),
        measure(Kind.RESTART, replica="x1"),
    ],
)
def test_a_measure_survives_the_log_and_is_over_at_its_time(made: Measure) -> None:
    measures = Measures()
    assert measures.take(written(made))
    assert measures.in_force(NOW) == [made]
    assert measures.in_force(NOW + 10 * MINUTE - MINUTE / 60) == [made]
    assert measures.in_force(NOW + 10 * MINUTE) == []


def test_a_repeat_changes_nothing_and_what_was_ended_does_not_come_back() -> None:
    measures = Measures()
    assert measures.take(written(measure()))
    assert not measures.take(written(measure(replicas=9)))
    assert measures.floors(NOW) == {"triage": 3}
    assert measures.take(ended(measure()))
    assert not measures.take(written(measure()))
    assert not measures.take(ended(measure()))
    assert measures.in_force(NOW) == []


def test_a_reader_that_starts_later_knows_the_same() -> None:
    log = [
        written(measure(name="m-1")),
        written(measure(Kind.SHED, "m-2")),
        ended(measure(name="m-1")),
        written(measure(Kind.RESTART, "m-3")),
        written(measure(name="m-4", until=NOW + MINUTE)),
    ]
    early, late = Measures(), Measures()
    for record in log:
        early.take(record)
        early.in_force(NOW + 2 * MINUTE)
    for record in log:
        late.take(record)
    found = [each.measure_id for each in late.in_force(NOW + 2 * MINUTE)]
    assert found == [each.measure_id for each in early.in_force(NOW + 2 * MINUTE)] == ["m-2", "m-3"]


def test_the_first_replica_that_is_named_counts() -> None:
    measures = Measures()
    asked = measure(Kind.RESTART)
    for replica in ("", "slow", "other", ""):
        measures.take(written(dataclasses.replace(asked, replica=replica)))
    (found,) = measures.in_force(NOW)
    assert found.replica == "slow"


def test_the_highest_floor_counts_and_each_ends_alone() -> None:
    measures = Measures()
    for name, replicas, model in [("a", 2, "triage"), ("b", 4, "triage"), ("c", 3, "big")]:
        measures.take(written(measure(name=name, replicas=replicas, model=model)))
    assert measures.floors(NOW) == {"triage": 4, "big": 3}
    measures.take(ended(measure(name="b")))
    assert measures.floors(NOW) == {"triage": 2, "big": 3}


def test_no_measure_outlasts_the_bound_whatever_its_record_says() -> None:
    command = control_pb2.Measure(measure_id="m", model="triage")
    command.requested_at.FromDatetime(NOW)
    command.until.FromDatetime(NOW + dt.timedelta(days=300))
    command.scale.replicas = 2
    measures = Measures()
    assert measures.apply(command, round(NOW.timestamp() * 1000))
    assert measures.floors(NOW + dt.timedelta(seconds=MAX_S - 1)) == {"triage": 2}
    assert measures.floors(NOW + dt.timedelta(seconds=MAX_S)) == {}
    for seconds in (0, -1, MAX_S + 1):
        until = NOW + dt.timedelta(seconds=seconds)
        with pytest.raises(ValueError, match="up to 12 hours"):
            measure_record(measure(until=until), "p.control", "test")


@pytest.mark.parametrize(
    "command",
    [
        {},
        {"measure_id": "m"},
        {"measure_id": "m", "model": "triage"},
        {"measure_id": "m", "model": "triage", "until": {"seconds": 10}},
        {"measure_id": "m", "model": "triage", "until": {"seconds": 10}, "scale": {}},
        {"measure_id": "m", "model": "triage", "until": {"seconds": 10}, "shed": {"share": 1.5}},
        {"measure_id": "m", "model": "triage", "until": {"seconds": 10}, "shed": {"share": 0}},
        {"measure_id": "m", "model": "triage", "until": {"seconds": 2**60}, "scale": {}},
        {"measure_id": "m", "model": "", "until": {"seconds": 10}, "scale": {"replicas": 2}},
    ],
)
def test_what_cannot_be_done_is_passed_over(command: dict[str, object]) -> None:
    made = control_pb2.Measure(**command)  # type: ignore[arg-type]
    assert not Measures().apply(made, 1000)


@pytest.mark.parametrize("value", [None, b"\xff\xff", b""])
def test_what_is_no_command_is_passed_over(value: bytes | None) -> None:
    assert not Measures().take(Record(Partition("p.control", 0), 0, b"k", value, (), 0))


@given(st.integers(-100, 100), st.integers(-100, 100))
def test_only_less_urgent_requests_are_refused(above: int, priority: int) -> None:
    made = measure(Kind.SHED, priority_above=above)
    assert made.refuses(priority, "r") == (priority > above)


def test_a_share_is_refused_and_a_repeat_gets_the_same_answer() -> None:
    made = measure(Kind.SHED, share=0.3)
    ids = [f"req-{number}" for number in range(4000)]
    refused = [name for name in ids if made.refuses(0, name)]
    assert len(refused) / len(ids) == pytest.approx(0.3, abs=0.03)
    assert refused == [name for name in ids if made.refuses(0, name)]
    # Another measure refuses others.
    other = dataclasses.replace(made, measure_id="m-2")
    assert refused != [name for name in ids if other.refuses(0, name)]


def test_sheds_are_of_one_model() -> None:
    measures = Measures()
    measures.take(written(measure(Kind.SHED, "a")))
    measures.take(written(measure(Kind.SHED, "b", model="big", until=NOW + MINUTE)))
    measures.take(written(measure(name="c")))
    assert [each.measure_id for each in measures.sheds("triage", NOW)] == ["a"]
    assert [each.measure_id for each in measures.sheds("big", NOW)] == ["b"]
    assert list(measures.sheds("big", NOW + MINUTE)) == []


def test_names_differ() -> None:
    assert len({new_measure_id() for _ in range(100)}) == 100
