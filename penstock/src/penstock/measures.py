"""Measures: what is done for a while about a model in trouble, as commands on `control`. Pure.

An operator or a remedy of drift asks for one; whoever reads `control` knows which are in force. All
about one model have one key, so that every reader sees them in the same order:

1. The first record of an id counts; a repeat does nothing.
2. A restart that names no replica is written again with the name of one; the first name counts.
3. An end ends its measure for good, and every measure is over at its time.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import uuid
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from enum import StrEnum

from penstock.codec import decode, encode
from penstock.errors import InvalidRequest
from penstock.records import Outgoing, Record
from penstock.v1 import control_pb2

__all__ = [
    "MAX_S",
    "Kind",
    "Measure",
    "Measures",
    "end_record",
    "in_words",
    "measure_record",
    "new_measure_id",
]

# `control` keeps a day: a reader that starts knows of all that is in force.
MAX_S = 12 * 3600.0
# Of what is known at a time; the oldest go first.
MAX_KNOWN = 1000
MAX_CHARS = 200


class Kind(StrEnum):
    """What is done."""

    SCALE = "scale"
    SHED = "shed"
    RESTART = "restart"


@dataclasses.dataclass(frozen=True, slots=True)
class Measure:
    """A measure about a model.

    Attributes:
        measure_id: Its name.
        kind: What is done.
        model: A route's model of a shed, a base model of the others.
        requested_at: When it was asked for, UTC.
        until: When it is over, UTC.
        requested_by: Who asked.
        reason: Why.
        replicas: Of a scale: at least so many engine replicas.
        priority_above: Of a shed: only requests with a priority value above it; None: all.
        share: Of a shed: the share of them that is refused, in (0, 1].
        replica: Of a restart: which engine replica; empty where it is not chosen yet.
    """

    measure_id: str
    kind: Kind
    model: str
    requested_at: dt.datetime
    until: dt.datetime
    requested_by: str = ""
    reason: str = ""
    replicas: int = 0
    priority_above: int | None = None
    share: float = 1.0
    replica: str = ""

    def refuses(self, priority: int, request_id: str) -> bool:
        """Whether a shed refuses a request; the same for a repeat under the same id."""
        if self.priority_above is not None and priority <= self.priority_above:
            return False
        if self.share >= 1:
            return True
        return zlib.crc32(f"{self.measure_id}/{request_id}".encode()) < self.share * 2**32


class Measures:
    """Those that are known, as `control` tells. Never raises for what a record holds."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Measure] = OrderedDict()
        # Ids of measures that were ended, until nobody can repeat them.
        self._ended: OrderedDict[str, dt.datetime] = OrderedDict()

    def take(self, record: Record) -> bool:
        """Takes a record of `control` in; tells whether it changed anything."""
        try:
            control = decode(record, control_pb2.Control)
        except InvalidRequest:
            return False
        if control.WhichOneof("command") != "measure":
            return False
        return self.apply(control.measure, record.timestamp_ms)

    def apply(self, command: control_pb2.Measure, written_ms: int) -> bool:
        """Takes a command in; tells whether it changed anything.

        Args:
            command: The command.
            written_ms: When its record was written, in milliseconds since 1970: no measure is
                longer than `MAX_S` from then, whatever it says.
        """
        name = command.measure_id
        if not name or name in self._ended:
            return False
        try:
            written = dt.datetime.fromtimestamp(written_ms / 1000, dt.UTC)
            if command.WhichOneof("what") == "end":
                return self._end(name, written)
            measure = _measure_of(command, written + dt.timedelta(seconds=MAX_S))
        except (ValueError, OverflowError):
            return False
        known = self._known.get(name)
        if measure is None or (known is not None and not _names(known, measure)):
            return False
        self._known[name] = measure if known is None else _named(known, measure.replica)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return True

    def get(self, measure_id: str) -> Measure | None:
        """The measure of an id, over or not; None where it is not known, or was ended."""
        return self._known.get(measure_id)

    def in_force(self, now: dt.datetime, kind: Kind | None = None) -> list[Measure]:
        """Those that are not over, in the order in which they came; of one kind or all."""
        self._forget(now)
        return [each for each in self._known.values() if kind in (None, each.kind)]

    def floors(self, now: dt.datetime) -> dict[str, int]:
        """By base model, how many engine replicas there shall be at least."""
        floors: dict[str, int] = {}
        for each in self.in_force(now, Kind.SCALE):
            floors[each.model] = max(each.replicas, floors.get(each.model, 0))
        return floors

    def sheds(self, model: str, now: dt.datetime) -> Iterator[Measure]:
        """The sheds of a model that are in force; quick where there are none."""
        if self._known:
            for each in self._known.values():
                if each.kind is Kind.SHED and each.model == model and each.until > now:
                    yield each

    def _end(self, name: str, written: dt.datetime) -> bool:
        self._ended[name] = written + dt.timedelta(seconds=MAX_S)
        while len(self._ended) > MAX_KNOWN:
            self._ended.popitem(last=False)
        return self._known.pop(name, None) is not None

    def _forget(self, now: dt.datetime) -> None:
        for name in [name for name, each in self._known.items() if each.until <= now]:
            # A repeat is over as well: its time has passed.
            del self._known[name]
        for name in [name for name, until in self._ended.items() if until <= now]:
            del self._ended[name]


def in_words(measure: Measure) -> str:
    """What a measure does, for people."""
    match measure.kind:
        case Kind.SCALE:
            return f"{measure.model} has at least {measure.replicas} engine replicas"
        case Kind.SHED:
            share = "" if measure.share >= 1 else f"{measure.share:.0%} of the "
            above = measure.priority_above
            which = "" if above is None else f" with a priority value above {above}"
            return f"{share}requests for {measure.model}{which} are refused"
        case Kind.RESTART:
            name = f"replica {measure.replica}" if measure.replica else "the slowest replica"
            return f"{name} of {measure.model} starts anew"


def new_measure_id() -> str:
    """A name for a measure that an operator asks for."""
    return f"m-{uuid.uuid4().hex[:12]}"


def measure_record(measure: Measure, control: str, source: str) -> Outgoing:
    """A measure as the record of `control`.

    Args:
        measure: The measure.
        control: The topic's full name.
        source: Who writes it.

    Raises:
        ValueError: It lasts no time, or longer than `MAX_S`.
    """
    length = (measure.until - measure.requested_at).total_seconds()
    if not 0 < length <= MAX_S:
        raise ValueError(f"a measure lasts up to {MAX_S / 3600:g} hours, not {length:g} s")
    command = _command(measure.measure_id, measure.model, measure.requested_at)
    command.until.FromDatetime(measure.until)
    command.requested_by = measure.requested_by[:MAX_CHARS]
    command.reason = measure.reason[:MAX_CHARS]
    match measure.kind:
        case Kind.SCALE:
            command.scale.replicas = measure.replicas
        case Kind.SHED:
            command.shed.share = measure.share
            if measure.priority_above is not None:
                command.shed.priority_above = measure.priority_above
        case Kind.RESTART:
            command.restart_replica.replica = measure.replica
            command.restart_replica.SetInParent()
    return _record(command, control, source)


def end_record(
    measure: Measure, now: dt.datetime, requested_by: str, control: str, source: str
) -> Outgoing:
    """The end of a measure as the record of `control`.

    Args:
        measure: The measure.
        now: The present, UTC.
        requested_by: Who asked.
        control: The topic's full name.
        source: Who writes it.
    """
    command = _command(measure.measure_id, measure.model, now)
    command.requested_by = requested_by[:MAX_CHARS]
    command.end.SetInParent()
    return _record(command, control, source)


def _command(name: str, model: str, at: dt.datetime) -> control_pb2.Measure:
    command = control_pb2.Measure(measure_id=name, model=model)
    command.requested_at.FromDatetime(at)
    return command


def _record(command: control_pb2.Measure, control: str, source: str) -> Outgoing:
    # One key for all of a model's, so that they are in one order.
    return encode(
        control_pb2.Control(measure=command),
        topic=control,
        key=f"measure/{command.model}",
        source=source,
    )


def _measure_of(command: control_pb2.Measure, latest: dt.datetime) -> Measure | None:
    """A command as a measure; None where it says nothing that can be done."""
    asked = command.requested_at.ToDatetime(dt.UTC)
    until = min(command.until.ToDatetime(dt.UTC), latest)
    common = {
        "measure_id": command.measure_id,
        "model": command.model,
        "requested_at": asked,
        "until": until,
        "requested_by": command.requested_by,
        "reason": command.reason,
    }
    if not command.model or until <= asked:
        return None
    match command.WhichOneof("what"):
        case "scale" if command.scale.replicas:
            return Measure(kind=Kind.SCALE, replicas=command.scale.replicas, **common)  # type: ignore[arg-type]
        case "shed" if 0 < command.shed.share <= 1:
            shed = command.shed
            above = shed.priority_above if shed.HasField("priority_above") else None
            return Measure(kind=Kind.SHED, priority_above=above, share=shed.share, **common)  # type: ignore[arg-type]
        case "restart_replica":
            replica = command.restart_replica.replica
            return Measure(kind=Kind.RESTART, replica=replica, **common)  # type: ignore[arg-type]
        case _:
            # Of a later version, or senseless.
            return None


def _names(known: Measure, measure: Measure) -> bool:
    """Whether a repeat chooses the replica of a restart that has none yet."""
    return (
        known.kind is measure.kind is Kind.RESTART
        and not known.replica
        and bool(measure.replica)
        and known.model == measure.model
    )


def _named(known: Measure, replica: str) -> Measure:
    return dataclasses.replace(known, replica=replica)
