"""Dead letters: records that could not be handled, kept as they were with the reason."""

from __future__ import annotations

from penstock.records import Outgoing, Record

__all__ = ["dead_letter"]


def dead_letter(
    record: Record,
    *,
    dlq_topic: str,
    service: str,
    reason: str,
    error: Exception | None,
    attempts: int,
) -> Outgoing:
    """The record's own bytes and headers, with where it stood and why it was given up.

    Header names are Spring Kafka's, which most tools read, and ours under `penstock-`. None of
    them carries prompt text.

    Args:
        record: The record as it was delivered.
        dlq_topic: The dead letter topic's full name.
        service: Who gave it up.
        reason: Why, in words without content of the record.
        error: What was raised, if anything; only its type is kept.
        attempts: How often it was tried.
    """
    kept = [(n, v) for n, v in record.headers if not n.startswith(("kafka_dlt-", "penstock-"))]
    why = [
        ("kafka_dlt-original-topic", record.partition.topic),
        ("kafka_dlt-original-partition", str(record.partition.number)),
        ("kafka_dlt-original-offset", str(record.offset)),
        ("kafka_dlt-original-timestamp", str(record.timestamp_ms)),
        ("kafka_dlt-exception-fqcn", _type_name(error)),
        ("kafka_dlt-exception-message", reason),
        ("penstock-service", service),
        ("penstock-attempts", str(attempts)),
    ]
    return Outgoing(
        topic=dlq_topic,
        key=record.key,
        value=record.value,
        headers=(*kept, *((name, value.encode()) for name, value in why)),
    )


def _type_name(error: Exception | None) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}" if error is not None else ""
