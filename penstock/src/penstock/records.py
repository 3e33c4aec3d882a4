"""Records of the log as the domain sees them, whatever client carries them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["Headers", "Outgoing", "Partition", "Record"]

Headers = Sequence[tuple[str, bytes]]


class Partition(NamedTuple):
    """A partition of a topic, by its full name on the broker."""

    topic: str
    number: int


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A record as it was delivered.

    Attributes:
        partition: Where it stands.
        offset: Its offset there.
        key: The key's bytes, if it has one.
        value: The value's bytes; None is a tombstone.
        headers: Header names and values, in order; a name may repeat.
        timestamp_ms: The record's own time, in milliseconds since 1970, UTC.
        log_append_time: Whether that is the broker's clock; the producer's otherwise.
    """

    partition: Partition
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int
    log_append_time: bool = False

    def header(self, name: str) -> str | None:
        """The last value of a header as text, or None; bytes that are no UTF-8 are replaced."""
        for candidate, value in reversed(self.headers):
            if candidate == name:
                return value.decode("utf-8", "replace")
        return None

    def where(self) -> dict[str, object]:
        """Its coordinates, to be bound to a line of the log."""
        return {
            "topic": self.partition.topic,
            "partition": self.partition.number,
            "offset": self.offset,
        }

    def carrier(self) -> Mapping[str, str]:
        """The headers as a text mapping, for trace context."""
        return {name: value.decode("utf-8", "replace") for name, value in self.headers}


@dataclasses.dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to be written.

    Attributes:
        topic: The topic's full name on the broker.
        key: The key's bytes; decides the partition unless one is named.
        value: The value's bytes.
        headers: Header names and values.
        partition: A partition chosen by the writer; None lets the key choose.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None
