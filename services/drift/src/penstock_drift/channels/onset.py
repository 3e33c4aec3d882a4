"""When a change began: the start of the detector's CUSUM, with an interval. Pure.

The log likelihood of "changed at s" is highest at the CUSUM's start. What is less than `DROP` below
it cannot be told from it (a likelihood interval; a drop of 2 is a little more than the 95 % of a
regular parameter). Later starts: s is less by ln of the CUSUM's value just before s, so the latest
is after the last value at which that was small. Earlier ones: a start before this one is less by
what was lost in between, the sum of ln of what the CUSUM had fallen to at each restart.
"""

from __future__ import annotations

import math
from typing import Any, Self

from penstock_drift.detectors.mixture import Mixture

__all__ = ["Onset"]

# In nats.
DROP = 2.0
RATIO = math.exp(DROP)


class Onset:
    """Follows one mixture's CUSUM.

    Attributes:
        route: The route before the earliest start.
        start_ms: Event time of the first value since the most likely start.
        latest_ms: Of the last start that is nearly as likely.
        earliest_ms: Of the first one.
    """

    __slots__ = (
        "_lost", "_lost_since", "_newer_ms", "_newer_route",
        "earliest_ms", "latest_ms", "route", "start_ms",
    )  # fmt: skip

    def __init__(self) -> None:
        self.start_ms = 0
        self.latest_ms = 0
        self.earliest_ms = 0
        # An anchor between the earliest start and now, and what was lost since either: with two
        # of them the earliest start is always one whose loss is between half of DROP and DROP.
        self._newer_ms = 0
        self._lost = 0.0
        self._lost_since = 0.0
        # The route before either anchor.
        self.route = 0
        self._newer_route = 0

    def before(self, begins: bool, ratio: float, time_ms: int, route: int) -> None:
        """Is told of a value.

        Args:
            begins: Whether the CUSUM starts with it.
            ratio: The CUSUM's value before it.
            time_ms: Its event time.
            route: The route of the value before it.
        """
        if begins:
            self.start_ms = self.latest_ms = time_ms
            if self._lost <= -DROP or not self.earliest_ms:
                self.earliest_ms, self._lost = self._newer_ms or time_ms, self._lost_since
                self.route = self._newer_route or route
                if self._lost <= -DROP:
                    # A single run lost more than all that is allowed.
                    self.earliest_ms, self._lost, self.route = time_ms, 0.0, route
                self._newer_ms, self._lost_since, self._newer_route = time_ms, 0.0, route
        elif ratio <= RATIO:
            self.latest_ms = time_ms

    def after(self, mixture: Mixture, route: int) -> None:
        """Is called when the mixture has seen the value, with the value's route."""
        if mixture.fresh:
            lost = math.log(max(mixture.ratio, 1e-9))
            self._lost += lost
            self._lost_since += lost
            if self._lost > -DROP / 2:
                # Too early for a second anchor: it would be as old as the first.
                self._newer_ms, self._lost_since, self._newer_route = self.start_ms, lost, route

    def state(self) -> list[Any]:
        """JSON; `from_state` takes it back."""
        return [
            self.start_ms, self.latest_ms, self.earliest_ms,
            self._newer_ms, self._lost, self._lost_since, self.route, self._newer_route,
        ]  # fmt: skip

    @classmethod
    def from_state(cls, state: list[Any]) -> Self:
        """The onset of a state."""
        found = cls()
        (
            found.start_ms, found.latest_ms, found.earliest_ms,
            found._newer_ms, found._lost, found._lost_since, found.route, found._newer_route,
        ) = state  # fmt: skip
        return found
