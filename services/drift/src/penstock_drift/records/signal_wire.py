"""Observations, ticks, policy versions and routes to the records of `signals`, and back."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from penstock.codec import decode, encode
from penstock.records import Outgoing, Record
from penstock.v1 import common_pb2, drift_pb2
from penstock_drift.records.values import (
    Item,
    Key,
    Observation,
    PolicyChange,
    Source,
    Tick,
    Traffic,
    Value,
)

__all__ = [
    "SignalWriter",
    "from_record",
    "from_wire",
    "to_wire",
    "traffic_from_wire",
    "traffic_to_wire",
]

SERVICE = "drift"


def to_wire(item: Item) -> drift_pb2.SignalRecord:
    """As the contract has it. Vectors lose what does not fit into 32 bits."""
    record = drift_pb2.SignalRecord()
    match item:
        case Observation():
            _put_observation(record.observation, item)
        case Tick():
            record.tick.source = item.source
            record.tick.sources = item.sources
            _put_time(record.tick.until, item.until_ms)
        case PolicyChange():
            record.policy.version = item.version
            record.policy.document = item.document
        case Traffic():
            record.traffic.CopyFrom(traffic_to_wire(item))
    return record


def from_wire(record: drift_pb2.SignalRecord) -> Item | None:
    """As the domain has it; None for a kind that a later version has added."""
    match record.WhichOneof("kind"):
        case "observation":
            return _observation(record.observation)
        case "tick":
            tick = record.tick
            return Tick(tick.source, _time_ms(tick.until), tick.sources)
        case "policy":
            return PolicyChange(record.policy.version, record.policy.document)
        case "traffic":
            return traffic_from_wire(record.traffic)
        case _:
            return None


def traffic_to_wire(item: Traffic) -> drift_pb2.Traffic:
    """A route's variants as the contract has them, in `signals` and in `evidence`."""
    return drift_pb2.Traffic(
        model=item.model, route_version=item.route_version, variants=item.variants
    )


def traffic_from_wire(wire: drift_pb2.Traffic) -> Traffic:
    """What such a message says."""
    return Traffic(wire.model, wire.route_version, tuple(wire.variants))


def from_record(record: Record) -> Item | None:
    """What a record of `signals` says; see `from_wire`.

    Raises:
        InvalidRequest: It is no such record.
    """
    return from_wire(decode(record, drift_pb2.SignalRecord))


class SignalWriter:
    """Makes the records of `signals`: the same item gives the same record.

    Args:
        topic: Its full name.
        partitions: How many partitions it has.
    """

    def __init__(self, topic: str, partitions: int) -> None:
        self._topic = topic
        self.partitions = partitions

    def observations(self, observations: Iterable[Observation]) -> list[Outgoing]:
        """To the partition of each one's key."""
        records = []
        wire, shown = drift_pb2.SignalRecord(), None
        for each in observations:
            key = str(each.key)
            event_id = f"{each.source.topic}/{each.source.partition}/{each.source.offset}/{key}"
            if each.values is shown:
                # The keys of one record share its values, which are most of the work.
                _put_head(wire.observation, each)
            else:
                wire, shown = to_wire(each), each.values
            records.append(self._encoded(wire, key, event_id))
        return records

    def everywhere(self, item: Tick | PolicyChange) -> list[Outgoing]:
        """To every partition."""
        if isinstance(item, Tick):
            key, event_id = item.source, f"{item.source}/{item.until_ms}"
        else:
            key, event_id = "policy", f"policy/{item.version}"
        wire = to_wire(item)
        return [
            self._encoded(wire, key, event_id, partition) for partition in range(self.partitions)
        ]

    def traffic(self, item: Traffic) -> Outgoing:
        """To the first partition: the judge hears of it from one fold."""
        event_id = f"traffic/{item.model}/{item.route_version}"
        return self._encoded(to_wire(item), f"traffic/{item.model}", event_id, 0)

    def _encoded(
        self,
        wire: drift_pb2.SignalRecord,
        key: str,
        event_id: str,
        partition: int | None = None,
    ) -> Outgoing:
        return encode(
            wire,
            topic=self._topic,
            key=key,
            source=SERVICE,
            event_id=event_id,
            partition=partition,
        )


def _put_observation(wire: drift_pb2.Observation, item: Observation) -> None:
    _put_head(wire, item)
    for name, value in item.values.items():
        _put_value(wire.values.add(name=name), value)


def _put_head(wire: drift_pb2.Observation, item: Observation) -> None:
    wire.model, wire.variant, wire.segment = item.key
    wire.request_id = item.request_id
    wire.route_version = item.route_version
    if item.adapter is None:
        wire.ClearField("adapter")
    else:
        wire.adapter = item.adapter
    wire.ClearField("segments")
    wire.segments.extend(item.segments)
    _put_time(wire.event_time, item.time_ms)
    source = item.source
    wire.source.topic, wire.source.partition, wire.source.offset = source


def _put_value(wire: drift_pb2.SignalValue, value: Value) -> None:
    if isinstance(value, str):
        # An answer's JSON may escape half of a pair, which is no character and has no bytes.
        wire.category = value.encode("utf-8", "replace").decode()
    elif not isinstance(value, tuple):
        wire.number = value
    elif isinstance(value[0], tuple):
        bins, counts = zip(*value, strict=True)
        wire.counts.bins.extend(bins)
        wire.counts.counts.extend(counts)
    else:
        wire.vector.values.extend(value)


def _observation(wire: drift_pb2.Observation) -> Observation:
    values: dict[str, Value] = {}
    for each in wire.values:
        value = _value(each)
        if value is not None:
            values[each.name] = value
    return Observation(
        key=Key(wire.model, wire.variant, wire.segment),
        request_id=wire.request_id,
        time_ms=_time_ms(wire.event_time),
        source=_source(wire.source),
        values=values,
        route_version=wire.route_version,
        adapter=wire.adapter if wire.HasField("adapter") else None,
        segments=tuple(wire.segments),
    )


def _value(wire: drift_pb2.SignalValue) -> Value | None:
    match wire.WhichOneof("value"):
        case "number":
            return wire.number
        case "category":
            return wire.category
        case "counts":
            # Of unequal lengths in a record that is not ours: what has no partner says nothing.
            return tuple(zip(wire.counts.bins, wire.counts.counts, strict=False))
        case "vector":
            return tuple(wire.vector.values)
        case _:
            return None


def _source(wire: common_pb2.Coordinates) -> Source:
    return Source(wire.topic, wire.partition, wire.offset)


def _put_time(stamp: Timestamp, time_ms: int) -> None:
    stamp.seconds, milliseconds = divmod(time_ms, 1000)
    stamp.nanos = milliseconds * 1_000_000


def _time_ms(stamp: Timestamp) -> int:
    return stamp.seconds * 1000 + stamp.nanos // 1_000_000
