"""aiokafka's faults that would stop a reader, or send it back to the beginning, mended.

Kafka does not look at header names, and a client whose language has no checked strings writes any
bytes there. aiokafka (0.14) decodes them strictly while it unpacks a fetch: one such record, which
anybody who may write `requests` can write, raises out of every poll for good, and takes the records
before it in its fetch along. Here such a fetch is unpacked again by aiokafka's own Python code with
names that escape what they cannot say. Records that decode take the usual way, at no cost.

A write to a connection that has just been closed is a warning on asyncio's own loop and a
RuntimeError on uvloop, which aiokafka (0.14) does not expect: it ends the task that fetches, and
the consumer stands still with its heartbeats going on. Here it is the lost connection that it is.

A coordinator that has moved, or still loads the group, answers a request for committed offsets with
an error for the whole and no partitions. aiokafka (0.14) looks at the partitions alone, takes their
absence for "never committed" and begins at the start of the log: after a coordinator's failover
everything was answered again. Here that answer is the error that it says, and is asked for again.

Importing the module puts it in place, once, for whoever uses aiokafka in this process.
"""

from __future__ import annotations

from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.consumer import fetcher
from aiokafka.errors import KafkaConnectionError, NoError, for_code
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.memory_records import _MemoryRecordsPy

__all__: list[str] = []

_V2 = 2  # the first format that has headers


class _Kept(fetcher.MemoryRecords):  # type: ignore[misc]
    """A fetch that remembers its bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class _Text(bytearray):
    def decode(self, *_: Any, **__: Any) -> str:
        return super().decode("utf-8", "backslashreplace")


class _Buffer(bytearray):
    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _Text(found) if isinstance(index, slice) else found


class _Batch(_DefaultRecordBatchPy):  # type: ignore[misc]
    """A batch whose header names always decode."""

    _buffer: Any

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        if not isinstance(self._buffer, _Buffer):
            self._buffer = _Buffer(self._buffer)


class _Records:
    """The rest of a fetch, unpacked by aiokafka's Python code.

    Args:
        data: The fetch's bytes.
        offset: Batches that end before it are left out: what they mean for open transactions is
            known already, and so is what they delivered.
    """

    def __init__(self, data: bytes, offset: int) -> None:
        self._records = _MemoryRecordsPy(data)
        self._offset = offset
        self._next = self._read()

    def has_next(self) -> bool:
        return self._next is not None

    def next_batch(self) -> Any:
        found, self._next = self._next, self._read()
        return found

    def _read(self) -> Any:
        while self._records.has_next():
            found = self._records._next_slice
            self._records._cache_next()
            magic = found[_MemoryRecordsPy.MAGIC_OFFSET]
            batch = _Batch(found) if magic >= _V2 else LegacyRecordBatch(found, magic)
            if batch.next_offset > self._offset:
                return batch
        return None


class _PartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """A partition's part of a fetch, gone on with where a header name does not decode."""

    def __init__(self, tp: Any, records: Any, *rest: Any, **more: Any) -> None:
        self._data = getattr(records, "data", None)
        super().__init__(tp, records, *rest, **more)

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except UnicodeDecodeError:
            if self._data is None:
                raise
            # Of the batch at hand, what was delivered lies below the offset and is passed over.
            self._records, self._data = _Records(self._data, self.next_fetch_offset), None
            self._records_iterator = self._unpack_records()
            return super().__next__()


_send = AIOKafkaConnection.send


def _send_or_close(self: AIOKafkaConnection, request: Any, expect_response: bool = True) -> Any:
    try:
        return _send(self, request, expect_response)
    except RuntimeError as error:
        self.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"connection to {self.host}:{self.port} broken") from error


_ask = AIOKafkaClient.send


async def _ask_or_raise(
    self: AIOKafkaClient, node_id: Any, request: Any, *rest: Any, **more: Any
) -> Any:
    response = await _ask(self, node_id, request, *rest, **more)
    if isinstance(request, OffsetFetchRequest):
        # Brokers that answer in the first version put the error at each partition instead.
        error = for_code(getattr(response, "error_code", 0))
        if error is not NoError:
            raise error(f"no committed offsets from node {node_id}")
    return response


AIOKafkaConnection.send = _send_or_close
AIOKafkaClient.send = _ask_or_raise
fetcher.MemoryRecords = _Kept
fetcher.PartitionRecords = _PartitionRecords
