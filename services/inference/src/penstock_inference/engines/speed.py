"""How slow an engine is: seconds of work per token that came of it. Pure."""

from __future__ import annotations

import math
from collections import deque

__all__ = ["WINDOW_S", "Speed"]

WINDOW_S = 60.0


class Speed:
    """Follows one engine over the last minute.

    An engine that answers everything in twice the time has everything twice as long (Little's law,
    Operations Research 9, 1961), so that engines with unlike shares of the work can be compared.
    """

    def __init__(self) -> None:
        # Time, generation seconds until then, tokens until then.
        self._looks: deque[tuple[float, float, float]] = deque()

    def look(self, running: int, tokens: float, now_s: float) -> None:
        """Takes in what an engine has, and all the tokens it has ever made; about once a second.

        Args:
            running: Generations that it has, running or waiting.
            tokens: Tokens of the generations that it has ended.
            now_s: Any clock that never goes back, in seconds.
        """
        busy_s = 0.0
        if self._looks:
            before_s, busy_s, _ = self._looks[-1]
            busy_s += running * (now_s - before_s)
        self._looks.append((now_s, busy_s, tokens))
        while self._looks[0][0] < now_s - WINDOW_S:
            self._looks.popleft()

    @property
    def seconds_per_token(self) -> float:
        """0 where it had no work; infinite where nothing came of it."""
        if len(self._looks) < 2:
            return 0.0
        (_, busy_then_s, tokens_then), (_, busy_s, tokens) = self._looks[0], self._looks[-1]
        if busy_s <= busy_then_s:
            return 0.0
        made = tokens - tokens_then
        return (busy_s - busy_then_s) / made if made > 0 else math.inf
