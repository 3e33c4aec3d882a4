"""One partition's records become files: read, kept, written, and only then ended.

    record -> row -> buffer -> file, durable -> the delivery ends -> the group's position commits

A death before the file brings the records again, and the file is written from its beginning. A
death between file and commit brings them again too, and the files' own names tell: what is in one
is passed over, after a look at whether it is the same record.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from penstock.kafka.delivery import Delivery
from penstock.kafka.ports import LogError
from penstock.records import Outgoing, Record
from penstock.telemetry import logger
from penstock_retrain.dataset import metrics
from penstock_retrain.dataset.buffer import Bounds, Buffer
from penstock_retrain.dataset.errors import AnotherLog
from penstock_retrain.dataset.names import FileName, Kind, Source, partition_prefix
from penstock_retrain.dataset.parquet import as_parquet, read_columns
from penstock_retrain.dataset.store import FileStore
from penstock_retrain.dataset.wire import row_of

__all__ = ["PartitionFiles", "files_of"]

log = logger(__name__)

RETRY_S = (0.5, 30.0)  # first and longest wait before a store is asked again

T = TypeVar("T")


def files_of(store: FileStore, kind: Kind, source: Source) -> list[FileName]:
    """The files of a partition, by offset. Blocks: lists the kind's whole folder."""
    names = (FileName.parse(path) for path in store.list(f"{kind}/log={source.log}"))
    mine = [name for name in names if name is not None and name.source == source]
    return sorted(mine, key=lambda name: (name.first, name.last))


class PartitionFiles:
    """One partition, from the first delivery until it is lost.

    Args:
        kind: What its records are.
        source: Where they stand.
        store: Where files go.
        bounds: When a file is full, asked anew each time: partitions come and go.
        failed: What is written for a record that cannot be read.
        end: Asks where the partition ends on the log.
        broken: Called when nothing of it may be collected any more.
        after: What has to end before: the last owner's work, in this process.
    """

    def __init__(
        self,
        kind: Kind,
        source: Source,
        store: FileStore,
        *,
        bounds: Callable[[], Bounds],
        failed: Callable[[Record, Exception], Sequence[Outgoing]],
        end: Callable[[], Awaitable[int]],
        broken: Callable[[Exception], None],
        after: Awaitable[object] | None = None,
    ) -> None:
        self._kind = kind
        self._source = source
        self._store = store
        self._bounds = bounds
        self._failed = failed
        self._end = end
        self._broken = broken
        self._after = after
        self._waiting: deque[Delivery] = deque()
        self._wake = asyncio.Event()
        self._flush = False
        self._buffer = Buffer(kind, source)
        self._open: list[Delivery] = []  # those of the buffer's rows
        self._stored: deque[FileName] = deque()
        self._known: tuple[FileName, Mapping[int, int]] | None = None
        self._blocking: asyncio.Future[Any] | None = None
        self._task = asyncio.create_task(self._run())

    def put(self, delivery: Delivery) -> None:
        """Adds a record at the end."""
        self._waiting.append(delivery)
        self._wake.set()

    def flush(self) -> None:
        """Has what is there become a file now."""
        self._flush = True
        self._wake.set()

    async def close(self) -> None:
        """Ends the work; what is no file yet is delivered again, to whoever owns it then.

        A file that is being written is written to its end: nothing of this process writes later.
        """
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._blocking is not None:
            await asyncio.gather(self._blocking, return_exceptions=True)
        self._drop()
        self._waiting.clear()

    async def _run(self) -> None:
        try:
            if self._after is not None:
                await self._after
            await self._open_partition()
            while True:
                await self._wait()
                while self._waiting:
                    await self._take(self._waiting.popleft())
                    await asyncio.sleep(0)  # a long queue must not keep the consumer from polling
                if self._flush or self._due_s() == 0.0:
                    self._flush = False
                    await self._write()
        except Exception as error:  # noqa: BLE001 - handed on; nothing of the partition may end
            self._broken(error)

    async def _open_partition(self) -> None:
        folder = f"{self._kind}/log={self._source.log}"
        # Whoever left a half-done file is dead, or is refused when it wakes and misses it.
        await self._patiently(
            lambda: self._store.sweep(folder, partition_prefix(self._source)), "sweeping"
        )
        found = await self._patiently(
            lambda: files_of(self._store, self._kind, self._source), "listing"
        )
        if not found:
            return
        self._stored = deque(found)
        last = max(name.last for name in found)
        end = await self._ended()
        if last >= end:
            raise AnotherLog(
                f"{self._source} ends before offset {end}, and files hold up to {last}: another "
                "topic of that name was collected there; give the collector another directory"
            )

    async def _ended(self) -> int:
        while True:
            try:
                return await self._end()
            except LogError as error:
                log.warning("the end of a partition is not known", error=str(error))
                await asyncio.sleep(RETRY_S[0])

    async def _wait(self) -> None:
        if self._waiting or self._flush:
            return
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._due_s()):
                await self._wake.wait()

    def _due_s(self) -> float | None:
        return self._buffer.due_in_s(self._bounds(), time.monotonic())

    async def _take(self, delivery: Delivery) -> None:
        record = delivery.record
        if delivery.dropped or await self._recognised(delivery):
            return
        try:
            row = row_of(self._kind, record)
        except Exception as error:  # noqa: BLE001 - becomes the record's dead letter
            log.error("a record cannot be read", error=type(error).__name__, **record.where())
            delivery.complete(self._failed(record, error), dead=True)
            return
        if not self._buffer.fits(row.time_ms):
            await self._write()
        self._buffer.add(row, delivery.size, time.monotonic())
        self._open.append(delivery)
        metrics.HELD.labels(self._kind).inc()
        if self._buffer.full(self._bounds()):
            await self._write()

    async def _recognised(self, delivery: Delivery) -> bool:
        """Ends a record that is in a file already.

        Raises:
            AnotherLog: The file has another record at its offset.
        """
        offset = delivery.record.offset
        while self._stored and self._stored[0].last < offset:
            self._stored.popleft()
        if not self._stored or offset < self._stored[0].first:
            return False
        name = self._stored[0]
        if self._known is None or self._known[0] != name:
            # A file's offsets must not reach over another's.
            await self._write()
            known = await self._patiently(lambda: self._offsets(name), "reading")
            self._known = name, known or {}
        time_ms = self._known[1].get(offset)
        if time_ms is None:
            return False  # a record that cannot be read, and whose dead letter may be missing
        if time_ms != delivery.record.timestamp_ms:
            raise AnotherLog(
                f"{name.path} has another record at offset {offset}: another topic of that name "
                "was collected there; give the collector another directory"
            )
        metrics.RECOGNISED.labels(self._kind).inc()
        delivery.complete(())
        return True

    def _offsets(self, name: FileName) -> Mapping[int, int]:
        rows = read_columns(self._store.read(name.path), ("offset", "time_ms"))
        return {row["offset"]: row["time_ms"] for row in rows}

    async def _write(self) -> None:
        if not self._buffer:
            return
        name, rows = self._buffer.name(), self._buffer.rows
        data = await asyncio.to_thread(as_parquet, self._kind, rows)

        def write() -> FileName:
            with metrics.WRITE_SECONDS.labels(self._kind).time():
                self._store.write(name.path, data)
            return name

        if await self._patiently(write, "writing", unless=lambda: self._open[0].dropped):
            metrics.FILES.labels(self._kind).inc()
            metrics.BYTES.labels(self._kind).inc(len(data))
            metrics.ROWS.labels(self._kind).inc(len(rows))
            # Only now: the position may move over them.
            for delivery in self._open:
                delivery.complete(())
        self._drop()

    async def _patiently(
        self, call: Callable[[], T], what: str, *, unless: Callable[[], bool] = lambda: False
    ) -> T | None:
        """What a call to the store returns, however often it fails; None when nobody needs it."""
        wait_s = RETRY_S[0]
        while not unless():
            self._blocking = called = asyncio.ensure_future(asyncio.to_thread(call))
            try:
                return await asyncio.shield(called)
            except Exception as error:  # noqa: BLE001 - stores have errors of their own kinds
                metrics.WRITE_FAILURES.labels(self._kind).inc()
                log.warning(
                    "the store of datasets fails; the log waits",
                    doing=what,
                    source=str(self._source),
                    # What a store says of a file is no text of a record; other errors may quote.
                    error=repr(error) if isinstance(error, OSError) else type(error).__name__,
                    wait_s=wait_s,
                )
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_S[1])
        return None

    def _drop(self) -> None:
        metrics.HELD.labels(self._kind).dec(len(self._buffer))
        self._buffer.clear()
        self._open = []
