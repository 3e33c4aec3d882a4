"""Keeps admitted requests, responses and feedback as Parquet, each record in one file."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial

from penstock.kafka.broker import KafkaBroker
from penstock.kafka.consumer import ReadAhead, TransactionalConsumer
from penstock.kafka.dlq import dead_letter
from penstock.kafka.ends import LogEnds
from penstock.kafka.halts import HaltAlerts, Resumes
from penstock.kafka.log_id import log_id
from penstock.kafka.ports import LogError
from penstock.kafka.progress import SPAN
from penstock.kafka.reader import LogReader, Start
from penstock.kafka.watch import ConsumerWatch
from penstock.records import Outgoing, Record
from penstock.telemetry import logger
from penstock.topics import topic_of
from penstock_retrain.dataset.buffer import Bounds
from penstock_retrain.dataset.lines import Lines
from penstock_retrain.dataset.names import Kind, Source, day_of, expired
from penstock_retrain.dataset.partition_files import PartitionFiles
from penstock_retrain.dataset.store import FileStore

__all__ = ["Collector", "CollectorConfig"]

log = logger(__name__)

RETRY_S = 2.0
DRAIN_S = 10.0
LEAVE_S = 5.0
LOOK_S = 0.2
EXPIRE_S = 3600.0
DAY_MS = 86_400_000


@dataclasses.dataclass(frozen=True)
class CollectorConfig:
    """What the collector needs to know.

    Attributes:
        bootstrap: Kafka's bootstrap servers.
        topic_prefix: What stands before the dot in every topic's name.
        url: Where files go: a directory, or a URL that fsspec knows.
        file: When a file is full.
        held_bytes: Values in memory at most, for each of the three kinds.
        held_rows: Rows in memory at most, for each kind.
        keep_days: Files of earlier days than so many ago are removed; 0 keeps all.
    """

    bootstrap: str
    topic_prefix: str
    url: str
    file: Bounds = dataclasses.field(default_factory=Bounds)
    held_bytes: int = 64 * 1024 * 1024
    held_rows: int = 20_000
    keep_days: int = 90


class Collector:
    """Collects until it is told to stop.

    Several processes may collect: Kafka deals the partitions. The position of a partition moves
    when the file that has its records is durable, so a death loses nothing; what is delivered
    again is recognised by the files' names, so it doubles nothing.

    Args:
        config: Where from, where to, and how much at a time.
        store: Where files go instead of `config.url`.
    """

    def __init__(self, config: CollectorConfig, store: FileStore | None = None) -> None:
        self._config = config
        self._store = store or FileStore(config.url)
        self._ends = {kind: LogEnds(config.bootstrap, self._topic(kind.topic)) for kind in Kind}
        self._asking = asyncio.Lock()
        self._failure: Exception | None = None
        self._failed = asyncio.Event()
        self._consuming = False
        self._lines: dict[Kind, Lines] = {}
        self._consumers: dict[Kind, TransactionalConsumer] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Collects until `stop` is set, then makes files of what is there.

        Raises:
            ExceptionGroup: A consumer stood still, or the files are another log's: `AnotherLog`.
        """
        async with asyncio.TaskGroup() as parts:
            working = parts.create_task(self._work())
            stopped = parts.create_task(stop.wait())
            try:
                await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
            finally:  # also when it is cancelled: what is there becomes files
                stopped.cancel()
                await self._stop()
                working.cancel()
        log.info("collecting stopped")

    def flush(self) -> None:
        """Has everything that is there become files now."""
        for lines in self._lines.values():
            lines.flush()

    async def settle(self, timeout_s: float) -> bool:
        """Waits until all that is on the log now, in the partitions dealt here, is in files.

        What other processes collect is in files within `Bounds.age_s`.

        Returns:
            Whether it is; False after `timeout_s`, also where no partition is dealt here.

        Raises:
            LogError: Kafka does not say where the topics end.
        """
        ends = {kind: await self._read_ends(kind) for kind in Kind}
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    settled = [self._hurry(kind, ends[kind]) for kind in Kind]
                    if all(settled):
                        return True
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            return False

    def _hurry(self, kind: Kind, ends: Mapping[int, int]) -> bool:
        """Has what stands before the ends become files; whether all of it is. More may follow."""
        consumer = self._consumers.get(kind)
        standing = consumer.standing() if consumer is not None else []
        late = [each.partition for each in standing if each.ended_to < ends.get(each.partition, 0)]
        if late:
            self._lines[kind].flush(late)
        return bool(standing) and not late

    async def _work(self) -> None:
        name = await self._patient_log_id()
        for kind in Kind:
            self._lines[kind] = self._make_lines(kind, name)
            self._consumers[kind] = self._make_consumer(kind)
        resumes = [
            Resumes(self._group(kind), self._topic(kind.topic), self._consumers[kind].resume)
            for kind in Kind
        ]

        def resume(record: Record) -> None:
            for each in resumes:
                each.take(record)

        commands = LogReader(self._config.bootstrap, self._topic("control"), start=Start.BEGINNING)
        async with asyncio.TaskGroup() as parts:
            parts.create_task(commands.run(resume))
            parts.create_task(self._fail())
            self._consuming = True
            for kind in Kind:
                consumer = self._consumers[kind]
                parts.create_task(consumer.run())
                # On connections of its own: those that stopped hearing would not hear of that.
                ends = LogEnds(self._config.bootstrap, self._topic(kind.topic))
                parts.create_task(ConsumerWatch.of(consumer, ends).run())
            if self._config.keep_days:
                parts.create_task(self._expire())
            log.info("collecting", log=name, to=self._config.url)

    async def _expire(self) -> None:
        def expire() -> int:
            before = day_of(time.time_ns() // 1_000_000 - self._config.keep_days * DAY_MS)
            found = expired(self._store.list(""), before)
            for path in found:
                self._store.remove(path)
            return len(found)

        while True:
            try:
                removed = await asyncio.to_thread(expire)
            except Exception as error:  # noqa: BLE001 - stores have errors of their own kinds
                log.warning("old files are not removed", error=type(error).__name__)
            else:
                if removed:
                    log.info("old files removed", files=removed)
            await asyncio.sleep(EXPIRE_S)

    async def _fail(self) -> None:
        await self._failed.wait()
        assert self._failure is not None
        raise self._failure

    def _broken(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._failed.set()

    async def _stop(self) -> None:
        async def stop(kind: Kind) -> None:
            self._lines[kind].flush()
            try:
                async with asyncio.timeout(DRAIN_S + LEAVE_S):
                    await self._consumers[kind].stop(DRAIN_S)
            except TimeoutError:
                # What is not committed is delivered again, to whoever owns the partition then.
                log.warning("a consumer did not stop in time", kind=kind)

        if self._consuming:
            await asyncio.gather(*(stop(kind) for kind in self._consumers))
        await asyncio.gather(*(lines.close() for lines in self._lines.values()))
        await asyncio.gather(*(each.stop() for each in self._ends.values()))

    async def _patient_log_id(self) -> str:
        topics = [self._topic(kind.topic) for kind in Kind]
        while True:
            try:
                return await log_id(self._config.bootstrap, topics)
            except LogError as error:
                log.warning("waiting for Kafka", error=str(error))
            await asyncio.sleep(RETRY_S)

    def _make_lines(self, kind: Kind, name: str) -> Lines:
        failed = partial(self._letter, kind)

        def make(number: int, after: Awaitable[object] | None) -> PartitionFiles:
            return PartitionFiles(
                kind,
                Source(name, self._topic(kind.topic), number),
                self._store,
                bounds=partial(self._bounds, kind),
                failed=failed,
                end=partial(self._end, kind, number),
                broken=self._broken,
                after=after,
            )

        return Lines(make, failed)

    def _bounds(self, kind: Kind) -> Bounds:
        """A file within half a partition's share of what is held: reading goes on beside it."""
        config = self._config
        shares = 2 * max(1, len(self._consumers[kind].assigned))
        return Bounds(
            rows=max(1, min(config.file.rows, config.held_rows // shares)),
            value_bytes=max(1, min(config.file.value_bytes, config.held_bytes // shares)),
            span=max(1, min(config.file.span, SPAN // 2)),
            age_s=config.file.age_s,
        )

    def _letter(self, kind: Kind, record: Record, error: Exception) -> Sequence[Outgoing]:
        letter = dead_letter(
            record,
            dlq_topic=self._topic("dlq"),
            service="retrain",
            reason="the record cannot be collected",
            error=error,
            attempts=1,
            group=self._group(kind),
        )
        return [letter]

    async def _end(self, kind: Kind, number: int) -> int:
        return (await self._read_ends(kind)).get(number, 0)

    async def _read_ends(self, kind: Kind) -> Mapping[int, int]:
        async with self._asking:  # the client connects on the first question
            return await self._ends[kind].read()

    def _make_consumer(self, kind: Kind) -> TransactionalConsumer:
        group = self._group(kind)
        return TransactionalConsumer(
            KafkaBroker(self._config.bootstrap, f"penstock-retrain-{kind}"),
            topic=self._topic(kind.topic),
            group=group,
            handler=self._lines[kind],
            read_ahead=ReadAhead(self._config.held_rows, self._config.held_bytes),
            halts=HaltAlerts("retrain", group, self._topic("alerts")),
            # A file's records end together, so one that kills could not be told from the others.
            ordered=True,
        )

    def _topic(self, name: str) -> str:
        return topic_of(name).full_name(self._config.topic_prefix)

    def _group(self, kind: Kind) -> str:
        return f"{self._config.topic_prefix}-retrain-{kind}"
