"""One partition while it is owned: what was delivered, what ended, and the commits.

One committer writes everything that ended meanwhile, in any order, with the position and its
metadata, in one transaction after another. A record with deaths behind it is noted in a commit
before it is begun; one with two of them is a suspect, and suspects run one at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from opentelemetry import context as trace_context
from opentelemetry import propagate

from penstock.failures import SUSPECT_DEATHS, Poisoned
from penstock.kafka import metrics
from penstock.kafka.delivery import Delivery, Halts, Handler
from penstock.kafka.limits import Breach, DeadLetterLimit
from penstock.kafka.ports import LogError, Ownership
from penstock.kafka.progress import SPAN
from penstock.kafka.tracker import Batch, Delivered, Tracker
from penstock.records import Outgoing, Partition, Record
from penstock.telemetry import logger

__all__ = ["Worker"]

log = logger(__name__)

BATCH_RECORDS = 1000
REVOKE_S = 5.0  # a transaction that is under way may finish within this
NOTE_S = 0.5  # work that goes on for longer is noted, so that its owner's death counts against it
# While much ends at once a moment's wait makes one transaction of many.
BUSY_RECORDS = 3
BUSY_WAIT_S = 0.012


class Worker:
    """The work of one partition.

    Args:
        partition: The partition.
        owner: Who owns it: see `Tracker`.
        ownership: The right to answer for it.
        handler: Does the work.
        max_deaths: A record with this many behind it is given up.
        limit: On dead letters; at a breach the partition halts.
        halts: Makes the alerts that are written with a halt and with its end.
        failed: Called when the partition cannot go on; it has to be taken anew.
        ordered: No record waits to be noted: see `TransactionalConsumer`.
    """

    def __init__(
        self,
        partition: Partition,
        ownership: Ownership,
        handler: Handler,
        *,
        owner: int,
        max_deaths: int,
        limit: DeadLetterLimit,
        halts: Halts,
        failed: Callable[[LogError], None],
        ordered: bool = False,
    ) -> None:
        position = ownership.position
        self.partition = partition
        self.tracker: Tracker[tuple[Sequence[Outgoing], int]] = Tracker(
            position.offset, position.metadata, owner=owner
        )
        self.held_bytes = 0  # of records whose end is not committed
        self.committed = 0
        self.broken = False
        self._ownership = ownership
        self._handler = handler
        self._ordered = ordered
        self._max_deaths = max_deaths
        self._limit = limit
        self._halts = halts
        self._failed = failed
        self._deliveries: dict[int, Delivery] = {}
        self._lane: deque[Record] = deque()  # wait to be noted
        self._lane_keys: set[bytes | None] = set()  # of what waits there or is just being noted
        self._suspect: int | None = None
        self._resuming = False
        self._alerts: list[Outgoing] = []
        self._wake = asyncio.Event()
        self._parked = asyncio.Event()
        self._committer: asyncio.Task[None] | None = None
        self._counted = metrics.HANDLED.labels(partition.topic, "ok")
        self._counted_dead = metrics.HANDLED.labels(partition.topic, "failed")
        self._uncommitted = metrics.UNCOMMITTED.labels(partition.topic, partition.number)

    @property
    def halted(self) -> bool:
        """Whether it stopped at the limit on dead letters, and waits to be resumed."""
        return bool(self.tracker.halted_at_ms)

    @property
    def next_fetch(self) -> int:
        """The next offset to be read."""
        return self.tracker.delivered_to

    def takes(self, max_records: int, max_bytes: int) -> bool:
        """Whether more may be delivered now."""
        return (
            not (self.broken or self.halted or self._parked.is_set())
            and self.tracker.uncommitted < max_records
            and self.held_bytes < max_bytes
            and self.tracker.span < SPAN
        )

    async def open(self) -> None:
        """Says on the log that the partition is taken, before any work begins.

        Raises:
            LogError: It could not be written.
        """
        await self._commit(self.tracker.ready(BATCH_RECORDS))

    def start(self) -> None:
        """Begins to commit."""
        self._parked.clear()
        self._committer = asyncio.create_task(self._commit_for_ever())

    def began(self, offset: int) -> None:
        """See `Progress`."""
        self.tracker.begin(offset)

    def died(self, offset: int) -> None:
        """See `Progress`."""
        self.tracker.died(offset)
        self._wake.set()

    def submit(self, records: Sequence[Record]) -> None:
        """Takes what was delivered; a repeat and what has ended before do nothing."""
        for record in records:
            if self.broken or self.halted:  # a record before it may have brought that about
                return
            state = self.tracker.deliver(record.offset)
            if state is Delivered.NEW:
                self.held_bytes += len(record.value or b"")
                waits = not self._ordered and (
                    self.tracker.careful or self.tracker.deaths(record.offset) > 0
                )
                # What shares a key must not overtake.
                if waits or (record.key is not None and record.key in self._lane_keys):
                    self._lane.append(record)
                    self._lane_keys.add(record.key)
                    self._wake.set()
                else:
                    self._accept(record)
            elif state is Delivered.DONE:
                self.tracker.touch()  # the position may move over it
                self._wake.set()

    def ended(self, delivery: Delivery, outputs: Sequence[Outgoing], *, dead: bool) -> None:
        """See `Progress`."""
        offset = delivery.record.offset
        self.tracker.complete(offset, (outputs, delivery.size))
        self._deliveries.pop(offset, None)
        if offset == self._suspect:
            self._suspect = None
        (self._counted_dead if dead else self._counted).inc()
        breach = self._limit.observe(dead, time.monotonic())
        if breach is not None and not self.halted:
            self._halt(breach)
        self._wake.set()

    def _accept(self, record: Record) -> None:
        deaths = self.tracker.deaths(record.offset)
        delivery = Delivery(record, deaths, self)
        self._deliveries[record.offset] = delivery
        traced = record.header("traceparent") is not None
        token = trace_context.attach(propagate.extract(record.carrier())) if traced else None
        try:
            if deaths >= self._max_deaths:
                raise Poisoned(f"{deaths} owners or engines died while they had this record")
            self._handler.accept(delivery)
        except Exception as error:
            if not isinstance(error, Poisoned):
                log.exception("handler failed", **record.where())
            self._give_up(delivery, error)
        finally:
            if token is not None:
                trace_context.detach(token)

    def _give_up(self, delivery: Delivery, error: Exception) -> None:
        try:
            outputs = self._handler.failed(delivery.record, error)
        except Exception as second:
            # Nothing may be committed for a record that has no answer: stop here, loudly.
            log.exception("no answer for a record", **delivery.record.where())
            self._break(LogError(f"no answer for {delivery.record.where()}: {second!r}"))
            return
        delivery.complete(outputs, dead=True)

    def _halt(self, breach: Breach) -> None:
        self.tracker.halted_at_ms = time.time_ns() // 1_000_000
        self.tracker.touch()
        self._alerts.extend(self._halts.opened(self.partition, breach, self.tracker.halted_at_ms))
        log.error("the partition halts", **self._name(), reason=str(breach))
        metrics.HALTED.labels(*self.partition).set(1)
        self._drop_open()

    def resume(self, at_ms: int) -> None:
        """Lets a halted partition flow again, unless the command is older than the halt.

        What was dropped at the halt has to be read again: the partition is taken anew.
        """
        if not self.halted or at_ms <= self.tracker.halted_at_ms:
            return
        log.warning("the partition is resumed", **self._name())
        self._alerts.extend(self._halts.resolved(self.partition, self.tracker.halted_at_ms))
        self.tracker.halted_at_ms = 0
        self._resuming = True
        metrics.HALTED.labels(*self.partition).set(0)
        self._wake.set()

    async def park(self) -> None:
        """Stops committing, and says that it let go in order; work that is under way goes on."""
        self._parked.set()
        self._wake.set()
        if self._committer is None or self.broken:
            return
        try:
            async with asyncio.timeout(REVOKE_S):
                # Not awaited itself: were it cancelled, so would whoever parks seem to be.
                await asyncio.wait([self._committer])
                if not self.broken:
                    await self._commit(self.tracker.ready(BATCH_RECORDS, clean=True))
        except (LogError, TimeoutError) as error:
            # The next owner's fencing ends the transaction, one way or the other.
            log.warning("the partition was not let go in order", **self._name(), error=repr(error))
            self.broken = True

    async def reclaim(self) -> bool:
        """Goes on with a partition that came straight back; False if it was somebody else's.

        A commit without results proves that nobody took the transactional id meanwhile.
        """
        if self.broken:
            return False
        self.tracker.touch()
        try:
            await self._commit(self.tracker.ready(BATCH_RECORDS))
        except LogError as error:
            log.info("the partition did not come back whole", **self._name(), error=str(error))
            return False
        self.start()
        return True

    async def drop(self) -> None:
        """Lets go of the partition: nothing that its work brings counts any more."""
        self.broken = True
        self._parked.set()
        self._wake.set()
        self._drop_open()
        if self._committer is not None:
            _, pending = await asyncio.wait([self._committer], timeout=REVOKE_S)
            for task in pending:
                task.cancel()
        await self._ownership.release()
        self._uncommitted.set(0)
        metrics.HALTED.labels(*self.partition).set(0)

    async def _commit_for_ever(self) -> None:
        while not self._parked.is_set():
            self._wake.clear()
            noted = self._note_lane()
            batch = self.tracker.ready(BATCH_RECORDS, clean=self._resuming)
            if batch is None:
                await self._wait()
                continue
            try:
                await self._commit(batch)
            except LogError as error:
                self._break(error)
                return
            for record in noted:
                if not (self.broken or self.halted):
                    self._accept(record)
            if not self._lane:
                self._lane_keys.clear()
            if self._resuming:
                self._break(LogError(f"{self.partition} was resumed and is read again"))
                return
            if len(batch.offsets) >= BUSY_RECORDS:
                await asyncio.sleep(BUSY_WAIT_S)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(NOTE_S):
                await self._wake.wait()
        except TimeoutError:
            self.tracker.note_begun()

    async def _commit(self, batch: Batch[tuple[Sequence[Outgoing], int]] | None) -> None:
        if batch is None:
            return
        topic = self.partition.topic
        alerts, self._alerts = self._alerts, []
        outputs = [output for results, _ in batch.results for output in results]
        try:
            with metrics.COMMIT_SECONDS.labels(topic).time():
                await self._ownership.commit([*outputs, *alerts], batch.next_offset, batch.metadata)
        except Exception as error:  # whatever it is, nothing commits any more
            metrics.COMMITS.labels(topic, "failed").inc()
            self.broken = True
            if isinstance(error, LogError):
                raise
            raise LogError(repr(error)) from error
        metrics.COMMITS.labels(topic, "ok").inc()
        self.tracker.committed(batch)
        self.committed += len(batch.offsets)
        self.held_bytes -= sum(size for _, size in batch.results)
        self._uncommitted.set(self.tracker.uncommitted)

    def _note_lane(self) -> list[Record]:
        """Records to begin once a commit has noted them; a suspect goes alone."""
        noted: list[Record] = []
        if self._suspect is not None or self._resuming:
            return noted
        while self._lane:
            record = self._lane[0]
            alone = self.tracker.careful or self.tracker.deaths(record.offset) >= SUSPECT_DEATHS
            if alone and noted:
                break
            self._lane.popleft()
            noted.append(record)
            if alone:
                self._suspect = record.offset
                break
        for record in noted:
            self.tracker.begin(record.offset)
        if noted:
            self.tracker.touch()
        return noted

    def _drop_open(self) -> None:
        deliveries, self._deliveries = list(self._deliveries.values()), {}
        # All of them before anybody hears of one: what follows it in a line must not end now.
        for delivery in deliveries:
            delivery.dropped = True
        for delivery in deliveries:
            delivery.drop()
        self._lane.clear()
        self._lane_keys.clear()
        self.tracker.let_go()
        self._suspect = None

    def _break(self, error: LogError) -> None:
        self.broken = True
        self._failed(error)

    def _name(self) -> dict[str, object]:
        return {"topic": self.partition.topic, "partition": self.partition.number}
