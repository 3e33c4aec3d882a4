"""When dead letters are too many to be single bad records: a limit on their share and their run.

Few dead letters are the fault of few records. Many are the fault of whoever reads them, most often
a bad deploy, and a consumer that goes on would drain its whole topic into the dlq and answer every
request with a failure. The model is arroyo's `DlqLimit` (a ratio and a consecutive count, for each
partition); ours counts over a window, so that a long good past does not hide a bad present.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from enum import StrEnum

__all__ = ["Breach", "Broken", "DeadLetterLimit"]

# Dead letters of a healthy stack are far below one in a hundred; one in ten is no accident.
MAX_SHARE = 0.1
# Long enough that neighbours of one bad producer dilute its records, short enough that a deploy
# shows within seconds under load.
WINDOW_RECORDS = 1000
# A slow partition forgets yesterday's.
WINDOW_S = 600.0
# Below this a share says little: of the first ten records, two may be bad by chance.
MIN_COUNT = 100
# What a broken deploy costs at most, for each partition, before it stops. At one bad record in a
# hundred, twenty in a row come about once in 10^40 records.
MAX_RUN = 20


class Broken(StrEnum):
    """Which limit was met."""

    SHARE = "share"
    RUN = "run"


@dataclasses.dataclass(frozen=True, slots=True)
class Breach:
    """A limit on dead letters was met.

    Attributes:
        broken: Which one; `RUN` where both were.
        dead: Dead letters within the window.
        handled: Records handled within the window, those included.
        run: Dead letters in a row, up to the last record.
        max_share: The limit on `dead / handled`.
        max_run: The limit on `run`.
    """

    broken: Broken
    dead: int
    handled: int
    run: int
    max_share: float
    max_run: int

    def __str__(self) -> str:
        if self.broken is Broken.RUN:
            return f"{self.run} dead letters in a row, where {self.max_run} are the limit"
        return (
            f"{self.dead} of the last {self.handled} records are dead letters "
            f"({self.dead / self.handled:.0%}), where {self.max_share:.0%} is the limit"
        )


class DeadLetterLimit:
    """Watches one partition's records as they end. Pure: the caller brings the time.

    The window holds the last `window_records` records that are not older than `window_s`. A new
    one begins empty: make one when a partition is taken and when it is resumed.

    Example:
        limit = DeadLetterLimit()
        if (breach := limit.observe(dead=True, now_s=time.monotonic())) is not None:
            halt(breach)

    Args:
        max_share: A larger share of dead letters within the window is a breach; 1 allows any.
        window_records: Records that the window holds at most.
        window_s: How long a record stays in the window, in seconds.
        min_count: Records within the window below which their share is no breach.
        max_run: So many dead letters in a row are a breach, whatever the window holds.

    Raises:
        ValueError: A limit that could never be met, or would always be.
    """

    def __init__(
        self,
        *,
        max_share: float = MAX_SHARE,
        window_records: int = WINDOW_RECORDS,
        window_s: float = WINDOW_S,
        min_count: int = MIN_COUNT,
        max_run: int = MAX_RUN,
    ) -> None:
        if not 0 <= max_share <= 1:
            raise ValueError(f"max_share is {max_share}; it must be in [0, 1]")
        if not 1 <= min_count <= window_records:
            raise ValueError(f"min_count is {min_count}; it must be in [1, {window_records}]")
        if not window_s > 0:
            raise ValueError(f"window_s is {window_s}; it must be above 0")
        if max_run < 1:
            raise ValueError(f"max_run is {max_run}; it must be at least 1")
        self._max_share = max_share
        self._window_records = window_records
        self._window_s = window_s
        self._min_count = min_count
        self._max_run = max_run
        self._window: deque[tuple[float, bool]] = deque()
        self._dead = 0
        self._run = 0

    def observe(self, dead: bool, now_s: float) -> Breach | None:
        """Notes the end of one record, and says which limit it met, if any.

        Args:
            dead: Whether the record became a dead letter.
            now_s: Seconds on a clock that never goes back, the same at every call.
        """
        self._window.append((now_s, dead))
        self._dead += dead
        self._run = self._run + 1 if dead else 0
        self._forget(now_s)
        broken = self._broken()
        if broken is None:
            return None
        return Breach(
            broken=broken,
            dead=self._dead,
            handled=len(self._window),
            run=self._run,
            max_share=self._max_share,
            max_run=self._max_run,
        )

    def _forget(self, now_s: float) -> None:
        window = self._window
        while len(window) > self._window_records or window[0][0] < now_s - self._window_s:
            self._dead -= window.popleft()[1]

    def _broken(self) -> Broken | None:
        if self._run >= self._max_run:
            return Broken.RUN
        handled = len(self._window)
        if handled >= self._min_count and self._dead > self._max_share * handled:
            return Broken.SHARE
        return None
