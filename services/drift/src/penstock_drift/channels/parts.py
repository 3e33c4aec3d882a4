"""How a signal's values over all traffic divide over segments, before a change and since. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

from penstock_drift.records.evidence import PartTally
from penstock_drift.signals.segments import OTHER

__all__ = ["MAX_PARTS", "Parts"]

# Segments that are told apart, of all labels; later ones of a label are its `other`.
MAX_PARTS = 8


class Parts:
    """Counts and sums by segment, of the very values that the signal's own means are of."""

    __slots__ = ("_after", "_before")

    def __init__(self) -> None:
        self._before: dict[str, list[float]] = {}
        self._after: dict[str, list[float]] = {}

    def learn(self, segments: Iterable[str], number: float) -> None:
        """Takes a value of the baseline, with the segments that it is in."""
        for segment in segments:
            self._add(self._before, segment, number)

    def begin(self) -> None:
        """What comes from here on belongs to a new window."""
        if self._after:
            self._after = {}

    def test(self, segments: Iterable[str], number: float) -> None:
        """Takes a value since the onset, with the segments that it is in."""
        for segment in segments:
            self._add(self._after, segment, number)

    def tallies(self) -> tuple[PartTally, ...]:
        """All of it, by segment."""
        return tuple(
            PartTally(
                segment,
                *_of(self._before.get(segment)),
                *_of(self._after.get(segment)),
            )
            for segment in sorted({*self._before, *self._after})
        )

    def state(self) -> list[Any]:
        """JSON; `from_state` takes it back."""
        return [
            [segment, self._before.get(segment, 0), self._after.get(segment, 0)]
            for segment in sorted({*self._before, *self._after})
        ]

    @classmethod
    def from_state(cls, state: Sequence[Any]) -> Self:
        """The parts of a state."""
        found = cls()
        for segment, before, after in state:
            if before:
                found._before[segment] = list(before)
            if after:
                found._after[segment] = list(after)
        return found

    def _add(self, side: dict[str, list[float]], segment: str, number: float) -> None:
        part = side.get(segment)
        if part is None:
            segment = self._kept(segment)
            part = side.setdefault(segment, [0, 0])
        part[0] += 1
        part[1] += number

    def _kept(self, segment: str) -> str:
        before, after = self._before, self._after
        if segment in before or segment in after:
            return segment
        if len(before) + sum(each not in before for each in after) < MAX_PARTS:
            return segment
        return f"{segment.partition('=')[0]}={OTHER}"


def _of(part: Sequence[float] | None) -> tuple[int, float]:
    return (int(part[0]), part[1]) if part else (0, 0.0)
