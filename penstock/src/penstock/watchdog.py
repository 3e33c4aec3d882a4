"""Notices what stands still: something is due and nothing of it moves. Pure.

A consumer can stall without an error (aiokafka#1154) and an engine can be healthy while no request
ends (ray#64326); both show in marks that stop moving while there is work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping

__all__ = ["Look", "Stalled", "Watch"]


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """One thing at one moment.

    Attributes:
        due: Whether it has something to do, so that its mark should move.
        mark: Anything that differs after each step forward.
    """

    due: bool
    mark: Hashable


@dataclasses.dataclass(frozen=True, slots=True)
class Stalled:
    """What has stood still, and for how many seconds."""

    name: str
    silent_s: float

    def __str__(self) -> str:
        return f"{self.name} has stood still for {self.silent_s:.0f} s"


class Watch:
    """Watches things by their names; to be looked at several times within the limit.

    Args:
        limit_s: How long a thing may be due without moving.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._moved: dict[str, tuple[float, Hashable]] = {}
        self._looked_s: float | None = None

    def look(self, seen: Mapping[str, Look], now_s: float) -> list[Stalled]:
        """Takes in what is seen now; what has stood still for too long, longest first.

        A name that is not seen is forgotten: it begins anew when it is seen again.
        """
        # Who was stopped or starved itself (SIGSTOP, a suspended machine) has not seen anything
        # stand still: the others need time to move first.
        slept = self._looked_s is not None and now_s - self._looked_s > self._limit_s / 2
        self._looked_s = now_s
        stalled = []
        moved = {}
        for name, look in seen.items():
            since_s, mark = self._moved.get(name, (now_s, None))
            if slept or not look.due or look.mark != mark or name not in self._moved:
                since_s = now_s
            moved[name] = (since_s, look.mark)
            if now_s - since_s >= self._limit_s:
                stalled.append(Stalled(name, now_s - since_s))
        self._moved = moved
        return sorted(stalled, key=lambda each: -each.silent_s)
