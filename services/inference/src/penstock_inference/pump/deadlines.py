"""The deadlines of jobs, soonest first. Pure."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator

from penstock_inference.pump.job import Job, Stage

__all__ = ["Deadlines"]

SPARE = 1000


class Deadlines:
    """A heap of jobs by deadline. A job that ends stays until its deadline, or until `trim`."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Job]] = []
        self._numbers = itertools.count()

    def push(self, job: Job) -> None:
        """Adds a job."""
        heapq.heappush(self._heap, (job.deadline_s, next(self._numbers), job))

    def passed(self, now_s: float) -> Iterator[Job]:
        """Takes out the jobs whose deadline has passed, ended ones among them."""
        while self._heap and self._heap[0][0] <= now_s:
            yield heapq.heappop(self._heap)[2]

    def trim(self, alive: int) -> None:
        """Forgets jobs that have ended, once they outnumber those that live."""
        if len(self._heap) > 2 * alive + SPARE:
            # Most jobs end long before their deadline.
            self._heap = [each for each in self._heap if each[2].stage is not Stage.DONE]
            heapq.heapify(self._heap)
