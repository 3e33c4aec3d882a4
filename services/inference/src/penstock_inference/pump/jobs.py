"""The jobs of one pump by their requests' ids, and the ids that ended here lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from penstock.records import Partition, Record
from penstock_inference.pump.job import Job, Stage
from penstock_inference.scaling.decision import Load

__all__ = ["Jobs"]

ENDED_IDS = 100_000


class Jobs:
    """Every job that has not ended, in the order they came."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._ended: OrderedDict[str, tuple[Partition, int]] = OrderedDict()

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
            record = job.delivery.record
            self._ended[request_id] = (record.partition, record.offset)
            if len(self._ended) > ENDED_IDS:
                self._ended.popitem(last=False)

    def run_elsewhere(self, request_id: str, record: Record) -> bool:
        """Whether another record of the same request is here or was.

        Where the very record is here already, its partition was taken anew and nobody waits for
        the old job, which is dropped.
        """
        here = (record.partition, record.offset)
        known = self._jobs.get(request_id)
        if known is not None:
            other = known.delivery.record
            if (other.partition, other.offset) != here:
                return True
            known.delivery.drop()
        # An end that was never committed is no end.
        return self._ended.get(request_id, here) != here

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
