"""Dead letters: records that could not be handled, kept as they were with the reason.

A letter is the record's own key, value and headers, and headers that say where it stood and why it
was given up. Those under `kafka_dlt-` are named and encoded as Spring Kafka's
`DeadLetterPublishingRecoverer` does it, which many tools read: names and types as UTF-8, the
partition as a big-endian 32-bit integer, offset and timestamp as big-endian 64-bit ones. Those
under `penstock-` are ours. None of them carries text of a prompt, or of an exception, which may
quote one. Pure.
"""

from __future__ import annotations

import dataclasses
import struct

from penstock.failures import Reason, reason_of
from penstock.kafka.ports import LogError
from penstock.records import Headers, Outgoing, Partition, Record

__all__ = ["REPLAYED_FROM", "Letter", "NotALetter", "dead_letter", "original_headers"]

SPRING = "kafka_dlt-"
OURS = "penstock-"
# Where a replayed record was kept as a dead letter; stays on the record if it dies again.
REPLAYED_FROM = "penstock-replayed-from"

_TIME_TYPES = (b"CreateTime", b"LogAppendTime")  # as Java's TimestampType prints them
_INT = struct.Struct(">i")
_LONG = struct.Struct(">q")


class NotALetter(LogError):
    """A record of the dlq has not the headers of a dead letter."""


def dead_letter(
    record: Record,
    *,
    dlq_topic: str,
    service: str,
    reason: str,
    error: Exception | None,
    attempts: int,
    code: Reason | None = None,
    group: str = "",
    request_id: str = "",
    tenant: str = "",
) -> Outgoing:
    """The record's own bytes and headers, with where it stood and why it was given up.

    Args:
        record: The record as it was delivered.
        dlq_topic: The dead letter topic's full name.
        service: Who gave it up.
        reason: Why, in words without content of the record.
        error: What was raised, if anything; only its type is kept.
        attempts: How often it was tried.
        code: Why, as a stable code; follows from the error when left out.
        group: The consumer group that read it, where it is known.
        request_id: The request that ended with it, where there was one.
        tenant: Whose request it was, where that is known.
    """
    partition = _INT.pack(record.partition.number)
    why: list[tuple[str, bytes]] = [
        ("kafka_dlt-original-topic", record.partition.topic.encode()),
        ("kafka_dlt-original-partition", partition),
        ("kafka_dlt-original-offset", _LONG.pack(record.offset)),
        ("kafka_dlt-original-timestamp", _LONG.pack(record.timestamp_ms)),
        ("kafka_dlt-original-timestamp-type", _TIME_TYPES[record.log_append_time]),
        ("kafka_dlt-original-consumer-group", group.encode()),
        ("kafka_dlt-exception-fqcn", _type_name(error).encode()),
        ("kafka_dlt-exception-message", reason.encode()),
        ("penstock-service", service.encode()),
        ("penstock-reason", (code or reason_of(error)).value.encode()),
        ("penstock-attempts", str(attempts).encode()),
        ("penstock-request-id", request_id.encode()),
        ("penstock-tenant", tenant.encode()),
    ]
    return Outgoing(
        topic=dlq_topic,
        key=record.key,
        value=record.value,
        headers=(
            *_kept(record.headers),
            # Spring leaves the group out too where it is not known.
            *((name, value) for name, value in why if value or name in _ALWAYS),
        ),
    )


def original_headers(headers: Headers) -> Headers:
    """A letter's headers without those that `dead_letter` put there."""
    return tuple((n, v) for n, v in headers if not n.startswith((SPRING, OURS)))


@dataclasses.dataclass(frozen=True, slots=True)
class Letter:
    """A record of the dlq, read back.

    Attributes:
        record: The record as it stands on the dlq: the original key and value, more headers.
        origin: Where the original stood.
        origin_offset: Its offset there.
        origin_timestamp_ms: Its time, in milliseconds since 1970, UTC.
        group: The consumer group that gave it up; empty where that is not known.
        service: Who gave it up; empty in a letter that another tool wrote.
        reason: The stable code; empty likewise.
        message: Why, in words.
        error: The type of what was raised; empty where nothing was.
        attempts: How often it was tried.
        request_id: The request that ended with it; empty where there was none.
        tenant: Whose request it was; empty where that is not known.
    """

    record: Record
    origin: Partition
    origin_offset: int
    origin_timestamp_ms: int
    group: str
    service: str
    reason: str
    message: str
    error: str
    attempts: int
    request_id: str
    tenant: str

    @classmethod
    def of(cls, record: Record) -> Letter:
        """Reads a record of the dlq, whether penstock or Spring Kafka wrote it.

        Raises:
            NotALetter: It does not say where the original stood.
        """
        topic = record.header("kafka_dlt-original-topic")
        number = _int(record, "kafka_dlt-original-partition")
        offset = _int(record, "kafka_dlt-original-offset")
        if topic is None or number is None or offset is None:
            where = f"{record.partition.topic}/{record.partition.number}-{record.offset}"
            raise NotALetter(f"{where} has no kafka_dlt-original-* headers")
        attempts = record.header("penstock-attempts") or ""
        return cls(
            record=record,
            origin=Partition(topic, number),
            origin_offset=offset,
            origin_timestamp_ms=_int(record, "kafka_dlt-original-timestamp") or 0,
            group=record.header("kafka_dlt-original-consumer-group") or "",
            service=record.header("penstock-service") or "",
            reason=record.header("penstock-reason") or "",
            message=record.header("kafka_dlt-exception-message") or "",
            error=record.header("kafka_dlt-exception-fqcn") or "",
            attempts=int(attempts) if attempts.isdecimal() else 1,
            request_id=record.header("penstock-request-id") or "",
            tenant=record.header("penstock-tenant") or "",
        )

    @property
    def letter_id(self) -> str:
        """What people name it by: its partition and offset on the dlq."""
        return f"{self.record.partition.number}-{self.record.offset}"


_ALWAYS = frozenset({"kafka_dlt-original-topic", "kafka_dlt-exception-message"})


def _kept(headers: Headers) -> Headers:
    # A producer's headers in our names would lie about the record's end.
    return tuple(
        (n, v) for n, v in headers if n == REPLAYED_FROM or not n.startswith((SPRING, OURS))
    )


def _type_name(error: Exception | None) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}" if error is not None else ""


def _int(record: Record, name: str) -> int | None:
    for candidate, value in reversed(record.headers):
        if candidate == name:
            return _number(value)
    return None


def _number(value: bytes) -> int | None:
    for form in (_INT, _LONG):
        if len(value) == form.size:
            return int(form.unpack(value)[0])
    return None
