"""What the parts of drift pass to each other: keys, values, observations, ticks. Pure.

All of it is on the topic `signals`, in one order per partition (`signal_wire`), so that whoever
reads that log again sees the same values in the same order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

__all__ = [
    "ALL",
    "Counts",
    "Item",
    "Key",
    "Kind",
    "Observation",
    "PolicyChange",
    "SignalType",
    "Source",
    "Tick",
    "Traffic",
    "Value",
    "Vector",
]

# The segment that holds all traffic of a variant.
ALL = ""

# How often each bin appeared: pairs of bin and count, bins rising, no zero counts.
Counts = tuple[tuple[int, int], ...]
# A point in a space of fixed dimension.
Vector = tuple[float, ...]
Value = float | str | Counts | Vector


class Key(NamedTuple):
    """Whose signals are watched together.

    Attributes:
        model: The model that was asked: a route's name.
        variant: The variant that answered.
        segment: `label=value`; empty for all traffic.
    """

    model: str
    variant: str
    segment: str = ALL

    def __str__(self) -> str:
        """As the records' key: `model/variant/segment`."""
        return "/".join(self)


class Source(NamedTuple):
    """The record that a value was drawn from.

    Attributes:
        topic: Its name without the deployment's prefix.
        partition: The partition there.
        offset: The offset there.
    """

    topic: str
    partition: int
    offset: int


class SignalType(Enum):
    """What a signal's values are; decides how they are normalised and which detectors see them."""

    # A number, in the signal's unit.
    NUMBER = "number"
    # 0.0 or 1.0.
    BINARY = "binary"
    # A number in [0, 1].
    BOUNDED = "bounded"
    # One of few names.
    CATEGORY = "category"
    # Counts over the bins of a hashed vocabulary.
    COUNTS = "counts"
    # A point in a space of fixed dimension.
    VECTOR = "vector"


class Kind(Enum):
    """What it means when a signal changes; only quality may start a retraining."""

    # The users ask otherwise.
    INPUT = "input"
    # The answers are otherwise, with no label to judge them by.
    OUTPUT = "output"
    # The answers are worse, or better, by somebody's judgement.
    QUALITY = "quality"
    # The platform: time, cost, faults.
    OPERATIONAL = "operational"


@dataclasses.dataclass(frozen=True, slots=True)
class Observation:
    """What one record says about one key: a record of `signals`.

    Attributes:
        key: Whose values they are.
        request_id: The request that they belong to.
        time_ms: Event time, milliseconds since 1970, UTC: when the response was made, or the
            feedback given.
        source: The record that they were drawn from. Unique with the key.
        values: By signal; what is not known is absent. Not all are finite: normalisers guard.
        route_version: The route that the request was admitted under; 0 where not known.
        adapter: The adapter that answered, empty for the base model alone; None where not known.
        segments: Of all traffic: the segment of each watched label that the record is in, `label=`
            where it lacks the label.
    """

    key: Key
    request_id: str
    time_ms: int
    source: Source
    values: Mapping[str, Value]
    route_version: int
    adapter: str | None = None
    segments: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Tick:
    """A source's word that nothing of before an instant is to come: on every partition.

    An observation that comes all the same is late.

    Attributes:
        source: `responses/3`: the topic without prefix, and its partition.
        until_ms: The instant, milliseconds since 1970, UTC; not itself covered.
        sources: How many sources there are in all.
    """

    source: str
    until_ms: int
    sources: int


@dataclasses.dataclass(frozen=True, slots=True)
class PolicyChange:
    """A policy's version, at its place in the log of `signals`: on every partition.

    Attributes:
        version: Rises; a lower or equal one has no meaning and is passed over.
        document: The policy, YAML.
    """

    version: int
    document: str


@dataclasses.dataclass(frozen=True, slots=True)
class Traffic:
    """Who answers for a model, at its place in the log of `signals`: on the first partition.

    Attributes:
        model: The model.
        route_version: Rises; a lower or equal one is passed over. 0: the model has no route.
        variants: The variants with weight, shadows among them.
    """

    model: str
    route_version: int
    variants: tuple[str, ...]


# What a record of `signals` says.
Item = Observation | Tick | PolicyChange | Traffic
