"""A header name that is not UTF-8 stops no reader, loses no record and changes no order."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.util import calc_crc32c

import penstock.kafka.tolerance  # noqa: F401 - puts itself in place

COMMITTED = 1
GZIP = 1


class Raw(str):
    """A name whose bytes are what a client without checked strings sends."""

    def encode(self, *_: Any) -> bytes:
        return b"x-\xff\xfe"


def batch(
    first: int,
    names: list[str],
    *,
    producer: int = -1,
    transactional: int = 0,
    compression: int = 0,
) -> bytes:
    builder = _DefaultRecordBatchBuilderPy(2, compression, transactional, producer, 0, 0, 1 << 20)
    for n, name in enumerate(names):
        builder.append(n, 1000 + n, b"k", b"%d" % (first + n), [(name, b"v"), ("ok", None)])
    built = bytearray(builder.build())
    struct.pack_into(">q", built, 0, first)
    return bytes(built)


def read(data: bytes, *, start: int = 0, aborted: list[tuple[int, int]] | None = None) -> list[Any]:
    return list(
        fetcher.PartitionRecords(
            TopicPartition("t", 0),
            fetcher.MemoryRecords(data),
            aborted,
            start,
            None,
            None,
            True,
            COMMITTED,
        )
    )


@pytest.mark.parametrize("compression", [0, GZIP])
@pytest.mark.parametrize("bad", [0, 1, 2])
def test_every_record_is_delivered_once_in_order(bad: int, compression: int) -> None:
    names = [Raw("bad") if n == bad else "fine" for n in range(3)]
    data = batch(0, ["a", "b"]) + batch(2, names, compression=compression) + batch(5, ["c"])
    found = read(data)
    assert [(r.offset, r.value) for r in found] == [(n, b"%d" % n) for n in range(6)]
    assert found[2 + bad].headers == (("x-\\xff\\xfe", b"v"), ("ok", None))
    assert found[5].headers[0] == ("c", b"v")


def test_a_reader_that_begins_in_the_middle_gets_nothing_twice() -> None:
    data = batch(0, ["a", Raw("bad"), "b", Raw("bad")]) + batch(4, [Raw("bad")])
    assert [r.offset for r in read(data, start=2)] == [2, 3, 4]


def marker(at: int, producer: int, *, commit: bool) -> bytes:
    """The control batch that ends a transaction."""
    builder = _DefaultRecordBatchBuilderPy(2, 0, 1, producer, 0, 0, 1 << 20)
    builder.append(0, 1000, struct.pack(">hh", 0, int(commit)), b"", [])
    built = bytearray(builder.build())
    struct.pack_into(">q", built, 0, at)
    # The control bit, and the checksum over what follows it.
    struct.pack_into(">h", built, 21, struct.unpack_from(">h", built, 21)[0] | 0x20)
    struct.pack_into(">I", built, 17, calc_crc32c(bytes(built[21:])))
    return bytes(built)


@pytest.mark.parametrize("odd", range(6))
def test_transactions_keep_their_meaning(odd: int) -> None:
    names = [Raw("bad") if n == odd else "fine" for n in range(6)]
    data = (
        batch(0, [names[0]])
        + batch(1, [names[1]], producer=7, transactional=1)  # aborted
        + marker(2, 7, commit=False)
        + batch(3, ["fine", names[2]], producer=7, transactional=1)  # the same producer commits
        + batch(5, [names[3]], producer=8, transactional=1)  # aborted, not ended in this fetch
        + marker(6, 7, commit=True)
        + batch(7, [names[4], "fine"])
        + batch(9, [names[5]], producer=8, transactional=1)
    )
    assert [r.offset for r in read(data, aborted=[(7, 1), (8, 5)])] == [0, 3, 4, 7, 8]


def test_other_damage_is_still_told() -> None:
    data = bytearray(batch(0, ["a"]))
    data[-1] ^= 0xFF
    with pytest.raises(Exception, match="CRC"):
        read(bytes(data))
