"""The transactional consumer: each record's results and the group's position commit together.

The fetch loop never waits for work: it reads ahead within its bounds, leaves out the partitions
that hold enough, and hands records to one worker for each partition (`penstock.kafka.worker`).

A worker lives from taking a partition to losing it. aiokafka rebalances eagerly: every partition
goes and most come straight back. Meanwhile work goes on and nothing commits; a commit without
results then proves whether the partition was anybody else's. Whatever goes wrong with the log
makes the consumer join anew, and each partition that was lost is taken in this order: fence the
last owner, only then read the position. So work may run again, but no result is written twice.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence

from penstock.failures import MAX_DEATHS
from penstock.kafka import metrics
from penstock.kafka.cancellation import own_cancellation
from penstock.kafka.delivery import Delivery, Halts, Handler
from penstock.kafka.limits import DeadLetterLimit
from penstock.kafka.ports import Broker, LogError, Membership
from penstock.kafka.progress import new_owner
from penstock.kafka.worker import Worker
from penstock.pace import Pace
from penstock.records import Outgoing, Partition
from penstock.telemetry import logger
from penstock.watchdog import Look

__all__ = ["Delivery", "Halts", "Handler", "ReadAhead", "Standing", "TransactionalConsumer"]

log = logger(__name__)

POLL_S = 0.2
FULL_POLL_S = 0.02  # while a partition holds enough: it may want more in a moment
POLL_INTERVAL_S = 0.006  # from poll to poll at least
POLL_RECORDS = 500
REJOIN_S = (0.2, 10.0)  # first and longest wait before joining again
HEALTHY_S = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class ReadAhead:
    """How much a consumer holds whose end is not committed, shared evenly by its partitions.

    Attributes:
        records: Records in all.
        value_bytes: Bytes of their values in all.
    """

    records: int = 20_000
    value_bytes: int = 64 * 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """Where a consumer stands in a partition, for whoever watches its progress.

    Attributes:
        partition: The partition's number.
        position: The offset after the last record that was delivered.
        read_to: The next offset that the client will look at, past markers and aborted records.
        unread: Offsets from there to the end of what is committed, as far as known.
        flowing: Whether more is wanted: neither full nor halted nor parked.
        held: Records delivered that have not ended.
        open_from: The lowest of their offsets; without any, the next offset.
        ready: Records that ended and whose results wait to be committed.
        committed: Records whose results were committed, since the partition was taken.
        halted: Whether it stands at its limit on dead letters.
    """

    partition: int
    position: int
    read_to: int
    unread: int
    flowing: bool
    held: int
    open_from: int
    ready: int
    committed: int
    halted: bool

    @property
    def ended_to(self) -> int:
        """The offset before which everything has ended, markers and aborted records passed."""
        return self.open_from if self.held else self.read_to


class _Silent:
    """No alerts; the log and the metrics still tell."""

    def opened(self, *_: object) -> Sequence[Outgoing]:
        return ()

    def resolved(self, *_: object) -> Sequence[Outgoing]:
        return ()


class TransactionalConsumer:
    """Reads a topic in a group and writes each record's results exactly once.

    Args:
        broker: Where the group lives.
        topic: The input topic's full name.
        group: The consumer group; part of the transactional ids.
        handler: Does the work.
        read_ahead: How much is held that has not ended.
        max_deaths: A record that so many owners or engines died of is given up.
        make_limit: Makes a partition's limit on dead letters.
        halts: Makes the alerts that are written when a partition halts there, and when it goes on.
        ordered: Hands records over by their offsets and at once, whatever owners died of: for a
            handler that ends many together and can tell none apart that kills it.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        topic: str,
        group: str,
        handler: Handler,
        read_ahead: ReadAhead | None = None,
        max_deaths: int = MAX_DEATHS,
        make_limit: Callable[[], DeadLetterLimit] = DeadLetterLimit,
        halts: Halts | None = None,
        ordered: bool = False,
    ) -> None:
        self._broker = broker
        self._topic = topic
        self._group = group
        self._handler = handler
        self._read_ahead = read_ahead or ReadAhead()
        self._max_deaths = max_deaths
        self._make_limit = make_limit
        self._halts = halts or _Silent()
        self._ordered = ordered
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._drain_s = 0.0
        self._workers: dict[Partition, Worker] = {}
        self._membership: Membership | None = None
        self._owner = new_owner()
        self._resumes: dict[int | None, int] = {}
        self._failure: LogError | None = None
        self._settled = False
        self._changes = 0
        self._pace = Pace(POLL_INTERVAL_S)
        self._changing = asyncio.Lock()  # one rebalance at a time, the closing of a session too

    @property
    def assigned(self) -> frozenset[Partition]:
        """The partitions whose records are handled here now."""
        return frozenset(p for p, worker in self._workers.items() if not worker.broken)

    def standing(self) -> list[Standing]:
        """Where it stands in each of its partitions."""
        bounds = self._bounds()
        return [
            Standing(
                partition=partition.number,
                position=worker.next_fetch,
                read_to=self._membership.read_to(partition) if self._membership else 0,
                unread=self._membership.unread(partition) if self._membership else 0,
                flowing=worker.takes(*bounds),
                held=worker.tracker.open,
                open_from=worker.tracker.open_from,
                ready=worker.tracker.uncommitted - worker.tracker.open,
                committed=worker.committed,
                halted=worker.halted,
            )
            for partition, worker in self._workers.items()
        ]

    def settling(self) -> Look:
        """Whether it still has to get its partitions, or to give them back, for who watches it."""
        return Look(due=not (self._settled or self._stopping.is_set()), mark=self._changes)

    def resume(self, partition: int | None, at_ms: int) -> None:
        """Lets a partition, or all of them, flow again that halted before `at_ms`."""
        self._resumes[partition] = max(at_ms, self._resumes.get(partition, 0))
        for worker in self._workers.values():
            self._apply_resumes(worker)

    async def run(self) -> None:
        """Consumes until `stop`; joins again after every fault of the log, with backoff."""
        wait_s = REJOIN_S[0]
        try:
            while not self._stopping.is_set():
                started = time.monotonic()
                try:
                    with own_cancellation():
                        await self._consume()
                except LogError as error:
                    healthy = time.monotonic() - started > HEALTHY_S
                    wait_s = REJOIN_S[0] if healthy else min(2 * wait_s, REJOIN_S[1])
                    log.warning("joining again", topic=self._topic, wait_s=wait_s, error=str(error))
                    await _wait(self._stopping, wait_s)
        finally:
            await self._drop(list(self._workers))
            self._stopped.set()

    async def stop(self, drain_s: float) -> None:
        """Takes no more records, gives the work under way `drain_s` to end, and leaves."""
        self._drain_s = drain_s
        self._stopping.set()
        await self._stopped.wait()

    def _unsettled(self) -> None:
        self._settled = False
        self._changes += 1

    async def _consume(self) -> None:
        self._failure = None
        self._unsettled()
        session = _Session(self)
        membership = await self._broker.join(self._group, self._topic, session)
        self._membership = membership
        session.membership.set_result(membership)
        try:
            while not self._stopping.is_set():
                self._check()
                await self._poll(membership)
            await self._drain()
        finally:
            self._unsettled()
            session.closed = True
            self._membership = None
            # What is healthy keeps its work: it may prove itself after joining anew.
            await self._park()
            await membership.leave()

    async def _poll(self, membership: Membership) -> None:
        bounds = self._bounds()
        wanted = [p for p, worker in self._workers.items() if worker.takes(*bounds)]
        wait_s = POLL_S if len(wanted) == len(self._workers) else FULL_POLL_S
        # Records that come one by one would be fetched one by one, at more cost than their work.
        await self._pace.turn()
        delivered = await membership.poll(wait_s, POLL_RECORDS, wanted)
        for partition, batch in delivered.items():
            worker = self._workers.get(partition)
            if worker is not None:  # else lost since: its owner reads the records again
                worker.submit(batch)

    async def _drain(self) -> None:
        deadline = time.monotonic() + self._drain_s
        while time.monotonic() < deadline and self._failure is None:
            if not any(worker.tracker.uncommitted for worker in self._workers.values()):
                return
            await asyncio.sleep(0.02)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: LogError) -> None:
        self._failure = self._failure or error

    def _bounds(self) -> tuple[int, int]:
        share = max(1, len(self._workers))
        ahead = self._read_ahead
        return max(1, ahead.records // share), max(1, ahead.value_bytes // share)

    async def _park(self) -> None:
        async with self._changing:
            await asyncio.gather(*(worker.park() for worker in self._workers.values()))

    async def _assign(self, session: _Session, partitions: Sequence[Partition]) -> None:
        membership = await session.membership
        async with self._changing:
            # The client ends a join that was under way when it is told to leave.
            if not session.closed:
                await self._reassign(membership, partitions)

    async def _reassign(self, membership: Membership, partitions: Sequence[Partition]) -> None:
        metrics.REBALANCES.labels(self._topic).inc()
        await self._drop([p for p in self._workers if p not in set(partitions)])
        outcomes = await asyncio.gather(
            *(self._keep_or_take(membership, p) for p in partitions), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                self._fail(outcome if isinstance(outcome, LogError) else LogError(repr(outcome)))
        log.info(
            "partitions assigned",
            topic=self._topic,
            partitions=[p.number for p in partitions],
            kept=sum(outcome is True for outcome in outcomes),
        )
        self._settled = True

    async def _keep_or_take(self, membership: Membership, partition: Partition) -> bool:
        worker = self._workers.get(partition)
        if worker is not None:
            if await worker.reclaim():
                membership.read_from(partition, worker.next_fetch)
                return True
            await self._drop([partition])
        ownership = await membership.take(partition)
        worker = Worker(
            partition,
            ownership,
            self._handler,
            owner=self._owner,
            max_deaths=self._max_deaths,
            limit=self._make_limit(),
            halts=self._halts,
            failed=self._fail,
            ordered=self._ordered,
        )
        try:
            await worker.open()
        except LogError:
            await worker.drop()
            raise
        self._workers[partition] = worker
        self._apply_resumes(worker)
        worker.start()
        # Only now: what a poll brings before its worker is there would be passed over for good.
        membership.read_from(partition, worker.next_fetch)
        return False

    def _apply_resumes(self, worker: Worker) -> None:
        for number in (None, worker.partition.number):
            worker.resume(self._resumes.get(number, 0))

    async def _drop(self, partitions: Sequence[Partition]) -> None:
        workers = [self._workers.pop(p) for p in partitions]
        await asyncio.gather(*(worker.drop() for worker in workers))


class _Session:
    """One membership of the group, from joining to leaving; see `RebalanceListener`."""

    def __init__(self, consumer: TransactionalConsumer) -> None:
        self._consumer = consumer
        self.closed = False
        self.membership: asyncio.Future[Membership] = asyncio.get_running_loop().create_future()

    async def revoked(self, _: Sequence[Partition]) -> None:
        if not self.closed:
            self._consumer._unsettled()
            await self._consumer._park()

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        await self._consumer._assign(self, partitions)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return
