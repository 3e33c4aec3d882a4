"""The transactional consumer: each record's results and the group's position commit together.

For every input partition one worker handles its records at the same time, and one committer
writes the results of the longest done run with the position after it, in one transaction. A
worker lives from taking a partition to losing it. Whatever goes wrong with the log ends the
whole session; the next session joins anew and takes each partition in DESIGN's order (fence the
last owner, only then read the position), so work is run again but no result is written twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from opentelemetry import context as trace_context
from opentelemetry import propagate

from penstock.kafka import metrics
from penstock.kafka.ports import Broker, LogError, Membership, Ownership
from penstock.kafka.tracker import Tracker
from penstock.records import Outgoing, Partition, Record
from penstock.telemetry import logger

__all__ = ["Handler", "TransactionalConsumer"]

log = logger(__name__)

POLL_S = 0.2
POLL_RECORDS = 500
BATCH_RECORDS = 500
REJOIN_S = (0.5, 10.0)  # first and longest wait before joining again
REVOKE_S = 5.0  # a transaction that is under way may finish within this


class Handler(Protocol):
    """What a service does with a record."""

    async def handle(self, record: Record) -> Sequence[Outgoing]:
        """Does the work and returns what it writes. Cancelled when the partition is lost."""
        ...

    def failed(self, record: Record, error: Exception) -> Sequence[Outgoing]:
        """What to write for a record whose handling raised: its dead letter and its answer."""
        ...


class TransactionalConsumer:
    """Reads a topic in a group and writes each record's results exactly once.

    Args:
        broker: Where the group lives.
        topic: The input topic's full name.
        group: The consumer group; part of the transactional ids.
        handler: Does the work.
        max_in_flight: Records per partition delivered and not yet committed; above it the
            partition pauses, at half of it the partition resumes.
    """

    def __init__(
        self, broker: Broker, *, topic: str, group: str, handler: Handler, max_in_flight: int = 1000
    ) -> None:
        self._broker = broker
        self._topic = topic
        self._group = group
        self._handler = handler
        self._max_in_flight = max_in_flight
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._drain_s = 0.0
        self._session: _Session | None = None

    @property
    def assigned(self) -> frozenset[Partition]:
        """The partitions whose records are handled here now."""
        return frozenset(self._session.workers) if self._session else frozenset()

    async def run(self) -> None:
        """Consumes until `stop`; joins again after every fault of the log, with backoff."""
        wait_s = REJOIN_S[0]
        try:
            while not self._stopping.is_set():
                started = time.monotonic()
                try:
                    await self._consume()
                except LogError as error:
                    log.warning("joining again", topic=self._topic, wait_s=wait_s, error=str(error))
                    await _wait(self._stopping, wait_s)
                    healthy = time.monotonic() - started > 60
                    wait_s = REJOIN_S[0] if healthy else min(2 * wait_s, REJOIN_S[1])
        finally:
            self._stopped.set()

    async def stop(self, drain_s: float) -> None:
        """Takes no more records, gives the work under way `drain_s` to end, and leaves."""
        self._drain_s = drain_s
        self._stopping.set()
        await self._stopped.wait()

    async def _consume(self) -> None:
        session = _Session(self._topic, self._handler, self._max_in_flight)
        membership = await self._broker.join(self._group, self._topic, session)
        session.membership = membership
        self._session = session
        try:
            while not self._stopping.is_set():
                session.check()
                session.submit(await membership.poll(POLL_S, POLL_RECORDS))
            await session.drain(self._drain_s)
        finally:
            self._session = None
            await session.close()
            await membership.leave()


class _Session:
    """One membership of the group, from joining to leaving."""

    def __init__(self, topic: str, handler: Handler, max_in_flight: int) -> None:
        self.workers: dict[Partition, _Worker] = {}
        self._topic = topic
        self._handler = handler
        self._max_in_flight = max_in_flight
        self._failure: LogError | None = None
        self._closed = False
        self._membership: asyncio.Future[Membership] = asyncio.get_running_loop().create_future()

    @property
    def membership(self) -> Membership:
        return self._membership.result()

    @membership.setter
    def membership(self, membership: Membership) -> None:
        self._membership.set_result(membership)

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        # aiokafka rebalances eagerly: every partition goes, and what returns is taken anew.
        workers = [self.workers.pop(p) for p in partitions if p in self.workers]
        await asyncio.gather(*(worker.close() for worker in workers))

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        membership = await self._membership
        await self.revoked(list(self.workers))
        if self._closed:  # the client ends a join that was under way when it is told to leave
            return
        metrics.REBALANCES.labels(self._topic).inc()
        taken = await asyncio.gather(
            *(membership.take(p) for p in partitions), return_exceptions=True
        )
        owned = [each for each in taken if not isinstance(each, BaseException)]
        failures = [each for each in taken if isinstance(each, BaseException)]
        if failures or self._closed:
            await asyncio.gather(*(ownership.release() for ownership in owned))
            for failure in failures:
                self.fail(failure if isinstance(failure, LogError) else LogError(repr(failure)))
            return
        for partition, ownership in zip(partitions, owned, strict=True):
            self.workers[partition] = _Worker(partition, ownership, self)
            membership.resume(partition)
        log.info("partitions taken", topic=self._topic, partitions=[p.number for p in partitions])

    def submit(self, delivered: Mapping[Partition, Sequence[Record]]) -> None:
        for partition, records in delivered.items():
            worker = self.workers.get(partition)
            if worker is None:  # lost since; whoever owns it now reads the records again
                continue
            for record in records:
                worker.submit(record, self._handler)
            if worker.tracker.uncommitted >= self._max_in_flight and not worker.paused:
                worker.paused = True
                self.membership.pause(partition)

    def eased(self, worker: _Worker) -> None:
        """A commit made room: lets the partition flow again below half of its bound."""
        if worker.paused and worker.tracker.uncommitted <= self._max_in_flight // 2:
            worker.paused = False
            self.membership.resume(worker.partition)

    def fail(self, error: LogError) -> None:
        self._failure = self._failure or error

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def drain(self, drain_s: float) -> None:
        for partition in self.workers:
            self.membership.pause(partition)
        deadline = time.monotonic() + drain_s
        while time.monotonic() < deadline and self._failure is None:
            if not any(worker.tracker.uncommitted for worker in self.workers.values()):
                return
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        self._closed = True
        await self.revoked(list(self.workers))


class _Worker:
    """The work of one partition while it is owned."""

    def __init__(self, partition: Partition, ownership: Ownership, session: _Session) -> None:
        self.partition = partition
        self.paused = False
        self.tracker: Tracker[Sequence[Outgoing]] = Tracker(ownership.position.offset)
        self._ownership = ownership
        self._session = session
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._closing = False
        self._committer = asyncio.create_task(self._commit_ready())
        self._uncommitted = metrics.UNCOMMITTED.labels(partition.topic, partition.number)

    def submit(self, record: Record, handler: Handler) -> None:
        if not self.tracker.deliver(record.offset):
            return
        task = asyncio.create_task(self._handle(record, handler))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, record: Record, handler: Handler) -> None:
        if record.header("traceparent") is not None:
            trace_context.attach(propagate.extract(record.carrier()))
        try:
            results = await handler.handle(record)
            metrics.HANDLED.labels(self.partition.topic, "ok").inc()
        except Exception as error:
            log.exception("handler failed", **_where(record))
            metrics.HANDLED.labels(self.partition.topic, "failed").inc()
            results = self._answer_failure(record, handler, error)
        self.tracker.complete(record.offset, results)
        self._wake.set()

    def _answer_failure(
        self, record: Record, handler: Handler, error: Exception
    ) -> Sequence[Outgoing]:
        try:
            return handler.failed(record, error)
        except Exception as second:
            # Nothing may be committed for a record that has no answer: stop here, loudly.
            self._session.fail(LogError(f"no answer for {_where(record)}: {second!r}"))
            raise

    async def _commit_ready(self) -> None:
        topic = self.partition.topic
        while not self._closing:
            self._wake.clear()
            batch = self.tracker.ready(BATCH_RECORDS)
            if batch is None:
                await self._wake.wait()
                continue
            outputs = [output for results in batch.results for output in results]
            try:
                with metrics.COMMIT_SECONDS.labels(topic).time():
                    await self._ownership.commit(outputs, batch.next_offset, "")
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing commits any more
                metrics.COMMITS.labels(topic, "failed").inc()
                self._session.fail(error if isinstance(error, LogError) else LogError(repr(error)))
                return
            metrics.COMMITS.labels(topic, "ok").inc()
            self.tracker.committed(batch)
            self._uncommitted.set(self.tracker.uncommitted)
            self._session.eased(self)

    async def close(self) -> None:
        """Drops the work; a transaction that is under way may still finish."""
        self._closing = True
        self._wake.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        _, pending = await asyncio.wait([self._committer], timeout=REVOKE_S)
        for task in pending:
            # The next owner's fencing ends the transaction, one way or the other.
            task.cancel()
        await self._ownership.release()
        self._uncommitted.set(0)


def _where(record: Record) -> dict[str, object]:
    return {
        "topic": record.partition.topic,
        "partition": record.partition.number,
        "offset": record.offset,
    }


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return
