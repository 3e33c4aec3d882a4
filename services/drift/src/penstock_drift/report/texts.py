"""Fetches what was asked and answered, by where it stands on the log; nothing of it is kept."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Iterable, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from penstock.codec import decode
from penstock.errors import InvalidRequest
from penstock.kafka.broker import record_of
from penstock.kafka.clients import stop_consumer
from penstock.kafka.ports import LogError
from penstock.records import Record
from penstock.v1 import admitted_pb2, drift_pb2, feedback_pb2, request_pb2, response_pb2
from penstock_drift.report.page import Sample

__all__ = ["fetch_samples", "words_of"]

# How long before its answer a request may have been admitted.
ADMITTED_BEFORE = dt.timedelta(minutes=15)
MAX_SCANNED = 50_000
READ_S = 20.0


async def fetch_samples(
    bootstrap: str, prefix: str, exemplars: Iterable[drift_pb2.Exemplar]
) -> dict[str, Sample]:
    """What exemplars say in words, by request id; those that are gone are left out.

    Raises:
        LogError: Kafka cannot be read, or not in time.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    )
    try:
        async with asyncio.timeout(READ_S):
            await consumer.start()
            found = await _records(consumer, prefix, exemplars)
            asked = await _asked(consumer, f"{prefix}.admitted", found)
    except (KafkaError, TimeoutError) as error:
        raise LogError(f"Kafka at {bootstrap} cannot be read: {error!r}") from error
    finally:
        await stop_consumer(consumer)
    return {
        request_id: Sample(asked.get(request_id, ""), _answer(record))
        for request_id, record in found.items()
    }


async def _records(
    consumer: AIOKafkaConsumer, prefix: str, exemplars: Iterable[drift_pb2.Exemplar]
) -> dict[str, Record]:
    found = {}
    for each in exemplars:
        topic = each.source.topic.removeprefix(f"{prefix}.")
        tp = TopicPartition(f"{prefix}.{topic}", each.source.partition)
        consumer.assign([tp])
        ends = await consumer.end_offsets([tp])
        if each.source.offset >= ends[tp]:
            continue
        consumer.seek(tp, each.source.offset)
        record = record_of(await consumer.getone())
        # What retention took away makes the reader begin with what is left.
        if record.offset == each.source.offset:
            found[each.request_id] = record
    return found


async def _asked(
    consumer: AIOKafkaConsumer, topic: str, found: Mapping[str, Record]
) -> dict[str, str]:
    """The requests' words. A request's partition of `admitted` has its answer's number."""
    asked = {}
    for request_id, answer in found.items():
        tp = TopicPartition(topic, answer.partition.number)
        admitted = await _admitted(consumer, tp, request_id, answer.timestamp_ms)
        if admitted is not None:
            asked[request_id] = words_of(admitted.request)
    return asked


async def _admitted(
    consumer: AIOKafkaConsumer, tp: TopicPartition, request_id: str, until_ms: int
) -> admitted_pb2.AdmittedRequest | None:
    since_ms = until_ms - round(ADMITTED_BEFORE.total_seconds() * 1000)
    consumer.assign([tp])
    start = (await consumer.offsets_for_times({tp: max(since_ms, 0)}))[tp]
    end = (await consumer.end_offsets([tp]))[tp]
    if start is None:
        return None
    consumer.seek(tp, start.offset)
    scanned = 0
    while scanned < MAX_SCANNED and await consumer.position(tp) < end:
        batch = await consumer.getmany(tp, timeout_ms=500)
        for message in batch.get(tp, ()):
            scanned += 1
            with contextlib.suppress(InvalidRequest):
                admitted = decode(record_of(message), admitted_pb2.AdmittedRequest)
                if admitted.request_id == request_id:
                    return admitted
            if message.timestamp > until_ms:
                return None
    return None


def words_of(request: request_pb2.GenerateRequest) -> str:
    """A request's prompt, or the turns of its conversation, for people."""
    if request.prompt:
        return str(request.prompt)
    return "\n".join(f"{turn.role}: {turn.content}" for turn in request.messages)


def _answer(record: Record) -> str:
    if record.partition.topic.endswith(".feedback"):
        said = decode(record, feedback_pb2.Feedback)
        value = said.WhichOneof("value")
        told = f"{value}: {getattr(said, value)}" if value else ""
        return f"{told} {said.comment}".strip()
    return str(decode(record, response_pb2.GenerateResponse).text)
