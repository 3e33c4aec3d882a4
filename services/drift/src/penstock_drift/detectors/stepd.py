"""STEPD: are the newest values as often 1 as all before them? Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

__all__ = ["Stepd"]


class Stepd:
    """Statistical test of equal proportions.

    Compares the events among the newest `window` values with those among all before, since the
    last alarm, with the continuity-corrected test of equal proportions:

        T = (|r_o/n_o - r_r/n_r| - (1/n_o + 1/n_r)/2) / sqrt(p (1 - p) (1/n_o + 1/n_r)),
        p = (r_o + r_r) / (n_o + n_r),

    fires where its two-sided significance is below `significance`, and starts anew. It looks
    after every value, so `significance` is no false-alarm rate: the calibrated channel finds one
    for a mean time to a false alarm. Numbers other than 0 and 1 count as 1 above 0.

    Source: Nishida and Yamauchi, "Detecting concept drift using statistical testing", Discovery
    Science 2007, section 3, equation (1); two-sided and from n_o >= window on, as the authors of
    MOA's implementation have it. Where both sides are all 0, or all 1, T is 0.

    Args:
        significance: Below which it fires; the paper's alpha_d.
        window: Newest values that are compared; the paper's W.
    """

    def __init__(self, significance: float = 0.003, window: int = 30) -> None:
        self.fired = False
        self._significance, self._window = significance, window
        self._newest: deque[int] = deque()
        self._recent = 0
        self._older, self._older_count = 0, 0

    @property
    def name(self) -> str:
        """The detector with its parameters."""
        return f"stepd(significance={self._significance:g})"

    def update(self, value: float) -> None:
        """Takes a value; one that is not finite is passed over."""
        if not math.isfinite(value):
            return
        if self.fired:
            self._newest.clear()
            self._recent = self._older = self._older_count = 0
        event = 1 if value > 0 else 0
        if len(self._newest) == self._window:
            oldest = self._newest.popleft()
            self._older += oldest
            self._older_count += 1
            self._recent -= oldest
        self._newest.append(event)
        self._recent += event
        self.fired = self._older_count >= self._window and self._differs()

    def _differs(self) -> bool:
        older, newer = self._older_count, self._window
        inverse = 1 / older + 1 / newer
        rate = (self._older + self._recent) / (older + newer)
        if not 0 < rate < 1:
            return False
        distance = abs(self._older / older - self._recent / newer) - inverse / 2
        statistic = abs(distance) / math.sqrt(rate * (1 - rate) * inverse)
        return math.erfc(statistic / math.sqrt(2)) < self._significance

    def state(self) -> dict[str, Any]:
        """JSON; `restore` takes it back."""
        newest = "".join(map(str, self._newest))
        return {"newest": newest, "older": [self._older, self._older_count], "fired": self.fired}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state."""
        self._newest = deque(int(event) for event in state["newest"])
        self._recent = sum(self._newest)
        self._older, self._older_count = state["older"]
        self.fired = state["fired"]
