"""Reads what the collector wrote: each offset once, within a time, partition by partition."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from penstock_retrain.dataset.names import FileName, Kind, Source, day_of, in_order
from penstock_retrain.dataset.parquet import read_rows
from penstock_retrain.dataset.rows import Row
from penstock_retrain.dataset.store import FileStore

__all__ = ["Collected"]

DAY = dt.timedelta(days=1)
DAY_MS = 86_400_000


class Collected:
    """The files of a collector as they are when this is made. Blocks.

    Args:
        store: Where they are.
        since_ms: Rows of the log's time from here on, milliseconds since 1970.
        until_ms: And before here.
        upto: The last offset that counts, by source: makes a dataset again from what there was
            then. None takes all, a mapping nothing of sources that it lacks.

    Attributes:
        ranges: The first and last offset that was read so far, by source.
    """

    def __init__(
        self,
        store: FileStore,
        since_ms: int,
        until_ms: int,
        *,
        upto: Mapping[Source, int] | None = None,
    ) -> None:
        self.ranges: dict[Source, tuple[int, int]] = {}
        self._store = store
        self._since_ms = since_ms
        self._until_ms = until_ms
        self._upto = upto
        self._files: defaultdict[tuple[str, str, int], list[FileName]] = defaultdict(list)
        for name in _names(store.list("")):
            if _within(name, self._since(name.kind), until_ms):
                self._files[_place(name)].append(name)

    @property
    def places(self) -> list[tuple[str, str, int]]:
        """By log, topic prefix and number: partitions whose records belong together."""
        return sorted(self._files)

    def read(self, place: tuple[str, str, int], kind: Kind) -> Iterator[tuple[Source, Row]]:
        """A place's rows of a kind, by offset."""
        names = [name for name in self._files[place] if name.kind is kind]
        for name, first in in_order(names):
            last = self._last(name)
            if first > last:
                continue
            since_ms = self._since(kind)
            for row in read_rows(kind, self._store.read(name.path)):
                if first <= row.offset <= last and since_ms <= row.time_ms < self._until_ms:
                    self._count(name.source, row.offset)
                    yield name.source, row

    def _since(self, kind: Kind) -> int:
        # A request lies before its response: by its deadline at most, which is a day away at most.
        return self._since_ms - DAY_MS if kind is Kind.REQUESTS else self._since_ms

    def _last(self, name: FileName) -> int:
        return name.last if self._upto is None else self._upto.get(name.source, -1)

    def _count(self, source: Source, offset: int) -> None:
        low, high = self.ranges.get(source, (offset, offset))
        self.ranges[source] = min(low, offset), max(high, offset)


def _names(paths: Iterable[str]) -> Iterator[FileName]:
    return (name for path in paths if (name := FileName.parse(path)) is not None)


def _place(name: FileName) -> tuple[str, str, int]:
    prefix = name.source.topic.removesuffix(f".{name.kind.topic}")
    return name.source.log, prefix, name.source.partition


def _within(name: FileName, since_ms: int, until_ms: int) -> bool:
    """Whether a file may have rows of that time: clocks differ, and files reach over midnight."""
    first, last = (dt.date.fromisoformat(day_of(ms)) for ms in (since_ms, until_ms))
    return (first - DAY).isoformat() <= name.day <= (last + DAY).isoformat()
