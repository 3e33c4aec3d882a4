"""The names of collected files, which say what they hold. Pure.

    responses/log=<log id>/day=2026-11-21/penstock.responses-00003-<first>-<last>.parquet

A file holds the rows of one partition from its first to its last offset, none left out but records
that could not be read. Its day is its first record's, by the log's time in UTC; what comes later
stays in it until it is full or a later day begins, so that offsets never interleave.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum

__all__ = ["FileName", "Kind", "Source", "day_of", "expired", "in_order", "partition_prefix"]

_PATH = re.compile(
    r"(?P<kind>requests|responses|feedback)/log=(?P<log>[^/]+)/day=(?P<day>\d{4}-\d\d-\d\d)/"
    r"(?P<topic>[^/]+)-(?P<partition>\d{5})-(?P<first>\d{20})-(?P<last>\d{20})\.parquet"
)


class Kind(StrEnum):
    """What a file holds."""

    REQUESTS = "requests"
    RESPONSES = "responses"
    FEEDBACK = "feedback"

    @property
    def topic(self) -> str:
        """The topic that it is read from, without prefix."""
        return "admitted" if self is Kind.REQUESTS else self.value


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Source:
    """A partition of a topic, on a log of all logs.

    Attributes:
        log: What `penstock.kafka.log_id` says: topics that are made anew count their offsets anew.
        topic: The topic's full name.
        partition: The partition's number.
    """

    log: str
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.log}/{self.topic}/{self.partition}"

    @classmethod
    def parse(cls, text: str) -> Source:
        """What `str` wrote.

        Raises:
            ValueError: It is none.
        """
        log, topic, number = text.split("/")
        return cls(log, topic, int(number))


@dataclasses.dataclass(frozen=True, slots=True)
class FileName:
    """What a collected file's name says.

    Attributes:
        kind: What it holds.
        source: Where from.
        day: The day of its first row, UTC.
        first: The offset of its first row.
        last: Of its last row.
    """

    kind: Kind
    source: Source
    day: str
    first: int
    last: int

    @property
    def path(self) -> str:
        """Its path below the root."""
        topic, number = self.source.topic, self.source.partition
        return (
            f"{self.kind}/log={self.source.log}/day={self.day}/"
            f"{topic}-{number:05d}-{self.first:020d}-{self.last:020d}.parquet"
        )

    @classmethod
    def parse(cls, path: str) -> FileName | None:
        """What a path below the root says; None of a file that is not the collector's."""
        found = _PATH.fullmatch(path)
        if found is None:
            return None
        source = Source(found["log"], found["topic"], int(found["partition"]))
        return cls(
            Kind(found["kind"]), source, found["day"], int(found["first"]), int(found["last"])
        )


def partition_prefix(source: Source) -> str:
    """What the names of a partition's files begin with, after the directory."""
    return f"{source.topic}-{source.partition:05d}-"


def day_of(time_ms: int) -> str:
    """The day of a time in milliseconds since 1970, UTC; a clock that is far off is bounded."""
    bounded_s = min(max(time_ms, 0) // 1000, 253_402_300_799)
    return dt.datetime.fromtimestamp(bounded_s, dt.UTC).date().isoformat()


def expired(paths: Iterable[str], before: str) -> list[str]:
    """Those of the collector's files whose day is before another one."""
    names = ((path, FileName.parse(path)) for path in paths)
    return [path for path, name in names if name is not None and name.day < before]


def in_order(names: Iterable[FileName]) -> Iterator[tuple[FileName, int]]:
    """Files by source and offset, each with the first offset that counts in it.

    An owner that slept through the loss of its partition may have written rows which the next one
    wrote too, under another name. They are the same rows: what a file before has is passed over,
    and a file that adds nothing is left out.
    """
    reached: dict[tuple[Kind, Source], int] = {}
    for name in sorted(names, key=lambda n: (n.kind, n.source, n.first, -n.last)):
        next_offset = reached.get((name.kind, name.source), 0)
        if name.last >= next_offset:
            yield name, max(name.first, next_offset)
            reached[name.kind, name.source] = name.last + 1
