"""The jobs of one pump by their requests' ids, and the ids that ended here lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from penstock.records import Partition, Record
from penstock_inference.pump.job import Job, Stage
from penstock_inference.scaling.decision import Load

__all__ = ["Jobs"]

ENDED_IDS = 100_000
# Copies of one request are admitted at the same moment, by instances that have not heard of each
# other yet. A name that comes later than that is used again, which makes it another request.
COPIES_MS = 60_000


class _Place(NamedTuple):
    """A record's place on the log, and its time in milliseconds since 1970."""

    partition: Partition
    offset: int
    at_ms: int

    def is_of(self, record: Record) -> bool:
        return (self.partition, self.offset) == (record.partition, record.offset)


def _place(record: Record) -> _Place:
    return _Place(record.partition, record.offset, record.timestamp_ms)


class Jobs:
    """Every job that has not ended, in the order they came."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._ended: OrderedDict[str, _Place] = OrderedDict()

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        """The jobs as they are now: they may end while one looks at them."""
        return iter(list(self._jobs.values()))

    def get(self, request_id: str) -> Job | None:
        """A request's job, if it is here."""
        return self._jobs.get(request_id)

    def add(self, job: Job) -> None:
        """A job begins."""
        self._jobs[job.admitted.request_id] = job

    def close(self, job: Job, *, ended: bool) -> None:
        """A job is over.

        Args:
            job: Which.
            ended: Whether it was answered; else its partition was lost, and its next owner runs
                the request again.
        """
        request_id = job.admitted.request_id
        if self._jobs.get(request_id) is job:
            del self._jobs[request_id]
        if ended:
            self._ended[request_id] = _place(job.delivery.record)
            if len(self._ended) > ENDED_IDS:
                self._ended.popitem(last=False)

    def run_elsewhere(self, request_id: str, record: Record) -> bool:
        """Whether another record of the same request is here or was.

        Where the very record is here already, its partition was taken anew and nobody waits for
        the old job, which is dropped.
        """
        known = self._jobs.get(request_id)
        if known is not None:
            if not _place(known.delivery.record).is_of(record):
                return True
            known.delivery.drop()
        ended = self._ended.get(request_id)
        # An end that was never committed is no end.
        return (
            ended is not None
            and not ended.is_of(record)
            and abs(record.timestamp_ms - ended.at_ms) < COPIES_MS
        )

    def runnable(self) -> dict[str, Load]:
        """Work for each base model's engines, running or free to run.

        What waits for the turn of its ordering key is none: another engine would not run it sooner.
        """
        found: dict[str, list[int]] = {}
        for job in self._jobs.values():
            if job.stage is not Stage.WAITING and job.variant is not None:
                work = found.setdefault(job.variant.base_model, [0, 0])
                work[0] += 1
                work[1] += job.tokens
        return {model: Load(requests, tokens) for model, (requests, tokens) in found.items()}
