"""How fast a training goes, and when it ends. Pure: whoever asks brings the time."""

from __future__ import annotations

import dataclasses
from collections import deque

__all__ = ["Pace", "Point"]


@dataclasses.dataclass(frozen=True)
class Point:
    """How far a training was at an instant.

    Attributes:
        at_s: When, by a clock that only goes forward.
        step: Steps done.
        tokens: Tokens read, padding left out.
    """

    at_s: float
    step: int
    tokens: int


class Pace:
    """Speed over the last points.

    What an earlier process did before it was killed is no part of it: its time is not known here.

    Args:
        steps: How many there are.
        window: Points that count. Measurements and checkpoints lie between points, so a window
            that spans some of them has their time in it, as the rest of the training will.
    """

    def __init__(self, steps: int, window: int = 40) -> None:
        self._steps = steps
        self._points: deque[Point] = deque(maxlen=window)

    def add(self, point: Point) -> None:
        """Takes a point, not before the last one."""
        self._points.append(point)

    @property
    def eta_s(self) -> float | None:
        """Seconds from the last point to the end; None while nobody can know."""
        first, last, took_s = self._span()
        done = last.step - first.step
        if done <= 0:
            return None
        return max(0, self._steps - last.step) * took_s / done

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens read in a second; None while nobody can know."""
        first, last, took_s = self._span()
        if took_s <= 0:
            return None
        return (last.tokens - first.tokens) / took_s

    def _span(self) -> tuple[Point, Point, float]:
        if not self._points:
            none = Point(0.0, 0, 0)
            return none, none, 0.0
        first, last = self._points[0], self._points[-1]
        return first, last, last.at_s - first.at_s
