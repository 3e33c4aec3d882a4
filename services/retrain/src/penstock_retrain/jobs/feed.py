"""What happens to jobs as `jobs` tells it, for whoever watches over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from penstock.codec import decode
from penstock.errors import InvalidRequest
from penstock.records import Record
from penstock.v1 import job_pb2

__all__ = ["JobFeed"]

# Of a watcher that does not keep up, progress goes first: transitions come from SQL in any case.
MAX_WAITING = 1000


class JobFeed:
    """Hands records of `jobs` to watchers."""

    def __init__(self) -> None:
        self._watchers: dict[str, set[asyncio.Queue[job_pb2.JobUpdate]]] = {}

    def on_record(self, record: Record) -> None:
        """Takes a record of `jobs`."""
        try:
            update = decode(record, job_pb2.JobUpdate)
        except InvalidRequest:
            return
        for queue in self._watchers.get(update.job_id, ()):
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(update)

    @contextlib.contextmanager
    def follow(self, job_id: str) -> Iterator[asyncio.Queue[job_pb2.JobUpdate]]:
        """What is told of a job while the context lasts."""
        queue: asyncio.Queue[job_pb2.JobUpdate] = asyncio.Queue(MAX_WAITING)
        watchers = self._watchers.setdefault(job_id, set())
        watchers.add(queue)
        try:
            yield queue
        finally:
            watchers.discard(queue)
            if not watchers:
                self._watchers.pop(job_id, None)
