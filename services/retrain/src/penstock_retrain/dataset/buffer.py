"""What waits to be a file, and when it becomes one. Pure."""

from __future__ import annotations

import dataclasses

from penstock_retrain.dataset.names import FileName, Kind, Source, day_of
from penstock_retrain.dataset.rows import Row

__all__ = ["Bounds", "Buffer"]


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """When a file is full.

    Attributes:
        rows: Rows in a file at most.
        value_bytes: Bytes of their records' values at most; the last row may go beyond.
        span: Offsets from the first row to the last at most; markers of transactions take some.
        age_s: A row waits so long for its file at most.
    """

    rows: int = 5000
    value_bytes: int = 16 * 1024 * 1024
    span: int = 6000
    age_s: float = 300.0


class Buffer:
    """The rows of one partition that are not in a file yet, in the order of their offsets.

    Args:
        kind: What they are.
        source: Where from.
    """

    def __init__(self, kind: Kind, source: Source) -> None:
        self._kind = kind
        self._source = source
        self._first_s = 0.0
        self._day = ""
        self.rows: list[Row] = []
        self.value_bytes = 0

    def __len__(self) -> int:
        return len(self.rows)

    def fits(self, time_ms: int) -> bool:
        """Whether a row of that time belongs into the same file: not when a later day begins."""
        return not self.rows or day_of(time_ms) <= self._day

    def add(self, row: Row, size: int, now_s: float) -> None:
        """Adds a row at the end.

        Args:
            row: Which `fits`.
            size: Of its record's value, in bytes.
            now_s: Seconds, of a clock that never goes back.

        Raises:
            ValueError: Its offset is not above all others: it would be twice in a file.
        """
        if self.rows and row.offset <= self.rows[-1].offset:
            raise ValueError(f"offset {row.offset} of {self._source} comes after a later one")
        if not self.rows:
            self._first_s = now_s
            self._day = day_of(row.time_ms)
        self.rows.append(row)
        self.value_bytes += size

    def full(self, bounds: Bounds) -> bool:
        """Whether no more rows go in."""
        if not self.rows:
            return False
        return (
            len(self.rows) >= bounds.rows
            or self.value_bytes >= bounds.value_bytes
            or self.rows[-1].offset - self.rows[0].offset >= bounds.span
        )

    def due_in_s(self, bounds: Bounds, now_s: float) -> float | None:
        """Seconds until the oldest row has waited long enough; None without rows."""
        return max(0.0, self._first_s + bounds.age_s - now_s) if self.rows else None

    def name(self) -> FileName:
        """What the file will be called."""
        return FileName(
            self._kind, self._source, self._day, self.rows[0].offset, self.rows[-1].offset
        )

    def clear(self) -> None:
        """Begins anew, after the rows have become a file."""
        self.rows = []
        self.value_bytes = 0
