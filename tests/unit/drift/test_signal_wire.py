"""Observations, ticks and policies through the records of `signals`: nothing is lost on the way."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from penstock.records import Outgoing, Partition, Record
from penstock.v1 import drift_pb2
from penstock_drift.records.signal_wire import SignalWriter, from_record, from_wire, to_wire
from penstock_drift.records.values import Key, Observation, PolicyChange, Source, Tick, Traffic

NAMES = st.text(st.characters(codec="utf-8"), max_size=12)
SINGLE = st.floats(width=32, allow_nan=False)
COUNTS = st.dictionaries(st.integers(0, 63), st.integers(1, 2**31), min_size=1).map(
    lambda found: tuple(sorted(found.items()))
)
VALUES = st.one_of(
    st.floats(allow_nan=False), NAMES, COUNTS, st.lists(SINGLE, min_size=1, max_size=8).map(tuple)
)
OBSERVATIONS = st.builds(
    Observation,
    key=st.builds(Key, NAMES, NAMES, NAMES),
    request_id=NAMES,
    time_ms=st.integers(0, 10**13),
    source=st.builds(Source, NAMES, st.integers(0, 100), st.integers(0, 2**62)),
    values=st.dictionaries(NAMES, VALUES),
    route_version=st.integers(0, 2**63),
)


def as_read(record: Outgoing, offset: int = 0) -> Record:
    partition = Partition(record.topic, record.partition or 0)
    return Record(partition, offset, record.key, record.value, record.headers, 0)


@given(OBSERVATIONS)
def test_an_observation_comes_back_as_it_was(observation: Observation) -> None:
    assert from_wire(to_wire(observation)) == observation


@given(st.builds(Tick, NAMES, st.integers(0, 10**13), st.integers(0, 1000)))
def test_a_tick_comes_back_as_it_was(tick: Tick) -> None:
    assert from_wire(to_wire(tick)) == tick


def test_a_vector_keeps_32_bits() -> None:
    given = observation(values={"v": (0.1, 1e-3)})
    found = from_wire(to_wire(given))
    assert isinstance(found, Observation)
    assert found.values["v"] == tuple(struct.unpack("2f", struct.pack("2f", 0.1, 1e-3)))


def test_keys_that_share_values_are_written_as_if_alone() -> None:
    values = {"a": 1.0, "b": "x"}
    items = [
        observation(values=values),
        observation(values=values, key=Key("m", "v", ""), time_ms=3, source=Source("t", 2, 9)),
        observation(values={"a": 1.0}),
        observation(values=values, request_id="r2", route_version=0),
        observation(values=values, adapter="", segments=("task=x", "client=")),
        observation(values=values, adapter="triage-7"),
        observation(values=values),
    ]
    records = SignalWriter("p.signals", 3).observations(items)
    assert [from_record(as_read(record)) for record in records] == items


def test_what_is_not_known_is_passed_over() -> None:
    assert from_wire(drift_pb2.SignalRecord()) is None
    record = to_wire(observation(values={"a": 1.0}))
    record.observation.values.add(name="of a later version")
    found = from_wire(record)
    assert isinstance(found, Observation)
    assert found.values == {"a": 1.0}


def test_observations_go_by_key_and_ticks_everywhere() -> None:
    writer = SignalWriter("p.signals", 3)
    (record,) = writer.observations([observation(values={"a": 1.0})])
    assert (record.key, record.partition) == (b"triage/base/task=x", None)
    assert dict(record.headers)["ce_id"] == b"responses/1/7/triage/base/task=x"
    ticks = writer.everywhere(Tick("responses/1", 20_000, 6))
    assert [tick.partition for tick in ticks] == [0, 1, 2]
    assert from_record(as_read(ticks[2])) == Tick("responses/1", 20_000, 6)
    policies = writer.everywhere(PolicyChange(4, "tick_s: 5"))
    assert from_record(as_read(policies[0])) == PolicyChange(4, "tick_s: 5")
    route = writer.traffic(Traffic("triage", 7, ("base", "copied")))
    assert route.partition == 0
    assert from_record(as_read(route)) == Traffic("triage", 7, ("base", "copied"))


def observation(**changes: object) -> Observation:
    fields: dict[str, object] = {
        "key": Key("triage", "base", "task=x"),
        "request_id": "r1",
        "time_ms": 1500,
        "source": Source("responses", 1, 7),
        "values": {},
        "route_version": 2,
    }
    return Observation(**{**fields, **changes})  # type: ignore[arg-type]
