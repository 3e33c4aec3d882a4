"""The edge between `signals` and the folds: records in, evidence and state out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence

from penstock.codec import encode
from penstock.kafka.ports import Publisher
from penstock.records import Outgoing, Partition, Record
from penstock.telemetry import logger
from penstock.topics import topic_of
from penstock_drift.fold.keys import Bank
from penstock_drift.fold.partition import PartitionFold
from penstock_drift.records.evidence import TickEvidence
from penstock_drift.records.evidence_wire import tick_to_wire
from penstock_drift.records.signal_wire import from_record
from penstock_drift.records.values import Item
from penstock_drift.worker import metrics
from penstock_drift.worker.snapshots import StateRecords, fold_records, fold_state
from penstock_drift.worker.state_store import StateStore
from penstock_drift.worker.tenure import Lost, Tenure, Tenures, by_partition

__all__ = ["FoldAgent", "evidence_record"]

log = logger(__name__)

SAVE_S = 10.0
# Of many keys the state is written less often: a twentieth of the time at most goes into that.
SAVE_SHARE = 20
SAVE_RECORDS = 20_000


class FoldAgent:
    """Folds the partitions of `signals` that this worker has.

    Evidence is published as it is made, the state afterwards and in batches, and only then the
    records are acknowledged that it holds. What a crash leaves in between is made again, and is the
    same: the judge knows it by partition and tick.

    Args:
        bank: Makes channels.
        publisher: Writes evidence.
        store: Opens the place where a partition's state is kept.
        partitions: Asks how many partitions `signals` has.
        topic_prefix: What stands before the dot in topics' names.
        save_s: The state is kept so often, while there are records.
        save_records: Or after so many.
        timer: Seconds that never go back.
    """

    def __init__(
        self,
        bank: Bank,
        publisher: Publisher,
        store: Callable[[int], StateStore],
        partitions: Callable[[], Awaitable[int]],
        topic_prefix: str,
        *,
        save_s: float = SAVE_S,
        save_records: int = SAVE_RECORDS,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bank, self._publisher = bank, publisher
        self._store, self._partitions = store, partitions
        self._topic = topic_of("evidence").full_name(topic_prefix)
        self._save_s, self._save_records, self._timer = save_s, save_records, timer
        self._due: dict[Partition, tuple[float, int]] = {}
        self.tenures: Tenures[PartitionFold] = Tenures(
            topic_of("signals").full_name(topic_prefix), self._take
        )

    def dealt(self, partitions: Collection[Partition]) -> None:
        """Drops everything, and what is shown of it: partitions were dealt anew."""
        self.tenures.dealt(partitions)
        metrics.forget()

    async def handle(self, records: Sequence[Record]) -> None:
        """Returns when what the records closed is told; what was seen before does nothing.

        Raises:
            InvalidRequest: One is no record of `signals`; nothing of the batch was folded.
            Unavailable: A state cannot be read now; what was folded is not folded again.
            LogError: Evidence or state could not be written: the process has to end.
        """
        decoded = {
            partition: [(record.offset, from_record(record)) for record in own]
            for partition, own in by_partition(records).items()
        }
        for partition, own in decoded.items():
            try:
                await self._fold(await self.tenures.of(partition), own)
            except Lost:
                log.info("a partition went elsewhere", partition=partition.number)

    async def _fold(
        self,
        tenure: Tenure[PartitionFold],
        records: Sequence[tuple[int, Item | None]],
    ) -> None:
        fold = tenure.state
        # A tick of much traffic takes seconds: consumers in the loop must go on saying that they
        # live. Nothing else touches the fold meanwhile.
        told = await asyncio.to_thread(_applied, fold, records)
        if told:
            await self._publisher.publish([evidence_record(each, self._topic) for each in told])
        if not tenure.lost:
            metrics.show(tenure.partition.number, fold)
        await self._keep(tenure, len(records))

    async def _keep(self, tenure: Tenure[PartitionFold], records: int) -> None:
        now_s = self._timer()
        due_s, count = self._due.get(tenure.partition, (now_s + self._save_s, 0))
        count += records
        if count >= self._save_records or now_s >= due_s:
            with metrics.SAVE_SECONDS.time():
                state, resume_offset = await asyncio.to_thread(_state_of, tenure.state)
                await tenure.keep(state, resume_offset)
            took_s = self._timer() - now_s
            due_s, count = self._timer() + max(self._save_s, SAVE_SHARE * took_s), 0
        self._due[tenure.partition] = due_s, count

    async def _take(self, number: int) -> tuple[PartitionFold, StateStore]:
        store = self._store(number)
        progress, keys = fold_state(await store.take())
        partitions = await self._partitions()
        return PartitionFold(number, partitions, self._bank, progress, keys), store


def _applied(fold: PartitionFold, records: Sequence[tuple[int, Item | None]]) -> list[TickEvidence]:
    told = []
    for offset, item in records:
        if item is not None:
            told += fold.apply(item, offset)
    return told


def _state_of(fold: PartitionFold) -> tuple[StateRecords, int]:
    snapshot = fold.snapshot()
    return list(fold_records(snapshot)), snapshot.resume_offset


def evidence_record(told: TickEvidence, topic: str) -> Outgoing:
    """A tick's evidence as a record; the same evidence gives the same one."""
    return encode(
        tick_to_wire(told),
        topic=topic,
        key=str(told.partition),
        source="drift",
        event_id=f"{told.partition}/{told.until_ms}",
    )
