"""When a source may say that a tick is over. Pure."""

from __future__ import annotations

import dataclasses

from penstock_drift.records.values import Tick

__all__ = ["Grid", "SourceClock"]

# What is written becomes visible within this, unless a writer fails in the middle.
COMMIT_MS = 3000
# Ticks without a record after which a source is idle.
IDLE_TICKS = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Grid:
    """How event time is divided.

    Attributes:
        tick_ms: Length of a tick.
        lateness_ms: How long a tick stays open for what comes late, in event time.
    """

    tick_ms: int
    lateness_ms: int

    def closed_at(self, time_ms: int) -> int:
        """The end of the newest tick that is over once an event of that time was seen."""
        return (time_ms - self.lateness_ms) // self.tick_ms * self.tick_ms


class SourceClock:
    """The event time of one source: a partition of a topic.

    Args:
        source: `responses/3`.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._until_ms: int | None = None

    def saw(self, time_ms: int, grid: Grid, sources: int) -> Tick | None:
        """Notes an event; the tick to be told with it, if one is over now.

        The first event tells one in any case, since nobody knows what was told before.
        """
        return self._told(grid.closed_at(time_ms), sources)

    def idle(self, now_ms: int, grid: Grid, sources: int) -> Tick | None:
        """The tick to be told by the clock, where all that was there at `now_ms` is read."""
        return self._told(grid.closed_at(now_ms - COMMIT_MS), sources)

    def idle_after_s(self, grid: Grid) -> float:
        """How long nothing may have come before the clock may tell."""
        return IDLE_TICKS * grid.tick_ms / 1000

    def _told(self, until_ms: int, sources: int) -> Tick | None:
        if self._until_ms is not None and until_ms <= self._until_ms:
            return None
        self._until_ms = until_ms
        return Tick(self._source, until_ms, sources)
