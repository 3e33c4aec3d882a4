"""The Kafka door: a record of `requests` becomes an admitted record or a terminal response.

What it returns is committed with the record's offset, by the kit's transactional consumer.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import deque
from collections.abc import Callable, Sequence

from opentelemetry import trace

from penstock.codec import JSON, PROTOBUF, decode_value, encode, encoding_of
from penstock.errors import Code, InvalidRequest, PenstockError, Unavailable
from penstock.identity import id_of_record, response_id_of
from penstock.kafka.consumer import Delivery
from penstock.kafka.dlq import dead_letter
from penstock.records import Outgoing, Partition, Record
from penstock.telemetry import logger, tracer
from penstock.topics import topic_of
from penstock.v1 import admitted_pb2, common_pb2, request_pb2, response_pb2
from penstock_ingest import metrics
from penstock_ingest.admission.pipeline import Admission, Arrival, tenant_of, timestamp_of
from penstock_ingest.admission.quota import TenantQuota
from penstock_ingest.admission.records import SOURCE, admitted_records
from penstock_ingest.admission.shedding import Shedding
from penstock_ingest.admission.validation import MAX_KEY, MAX_LABELS, check_size
from penstock_ingest.desk import decision_of
from penstock_ingest.errors import DeadlinePassed, Overloaded
from penstock_ingest.waiting.index import KnownIds

__all__ = ["KafkaDoor"]

log = logger(__name__)

# Where nothing is routed that could answer, records wait; the consumer pauses behind them.
UNROUTED_RETRY_S = 1.0


class KafkaDoor:
    """Handles records of `requests`; see `penstock.kafka.consumer.Handler`.

    Args:
        admission: Decides about requests.
        known: Ids that were admitted lately.
        quota: What each tenant has queued.
        topic_prefix: What stands before the dot in topics' names.
        clock: The present, UTC.
        shedding: Which new requests are refused for now.
    """

    def __init__(
        self,
        *,
        admission: Admission,
        known: KnownIds,
        quota: TenantQuota,
        topic_prefix: str,
        clock: Callable[[], dt.datetime],
        shedding: Shedding | None = None,
    ) -> None:
        self._admission = admission
        self._known = known
        self._quota = quota
        self._shedding = shedding or Shedding()
        self._admitted = topic_of("admitted").full_name(topic_prefix)
        self._responses = topic_of("responses").full_name(topic_prefix)
        self._dlq = topic_of("dlq").full_name(topic_prefix)
        self._clock = clock
        self._waiting: dict[Partition, deque[Delivery]] = {}

    def accept(self, delivery: Delivery) -> None:
        """Writes the admitted record, or the terminal response of a refused one.

        Nothing for a repeat of a request that its idempotency key names. Where nothing is routed
        that could answer, the partition's records wait in their order.
        """
        waiting = self._waiting.get(delivery.record.partition)
        if waiting is not None:
            waiting.append(delivery)
            return
        try:
            outputs = self._traced(delivery.record)
        except Unavailable as error:
            log.warning("a partition waits", reason=error.message, **delivery.record.where())
            self._waiting[delivery.record.partition] = deque([delivery])
            self._retry_later(delivery.record.partition)
            return
        delivery.complete(outputs)

    def _retry_later(self, partition: Partition) -> None:
        asyncio.get_running_loop().call_later(UNROUTED_RETRY_S, self._retry, partition)

    def _retry(self, partition: Partition) -> None:
        waiting = self._waiting[partition]
        while waiting:
            delivery = waiting[0]
            if not delivery.dropped:
                try:
                    delivery.complete(self._traced(delivery.record))
                except Unavailable:
                    self._retry_later(partition)
                    return
                except Exception as error:
                    log.exception("handler failed", **delivery.record.where())
                    delivery.complete(self.failed(delivery.record, error), dead=True)
            waiting.popleft()
        del self._waiting[partition]

    def _traced(self, record: Record) -> Sequence[Outgoing]:
        with tracer(__name__).start_as_current_span("admit", kind=trace.SpanKind.CONSUMER):
            return self._decide(record)

    def failed(self, record: Record, error: Exception) -> Sequence[Outgoing]:
        """The dead letter and the terminal response of a record whose handling raised."""
        fault = PenstockError(
            "the request could not be handled; it is kept as a dead letter",
            code=Code.ERROR_CODE_INTERNAL,
        )
        metrics.REQUESTS.labels("kafka", "internal").inc()
        response = self._response(record, fault, None, response_pb2.OUTCOME_FAILED)
        return [
            self._encoded(record, response, _encoding(record)),
            self._dead_letter(record, "the handler raised", error),
        ]

    def _decide(self, record: Record) -> Sequence[Outgoing]:
        encoding = _encoding(record)
        request: request_pb2.GenerateRequest | None = None
        try:
            check_size(len(record.value or b""), self._admission.max_request_bytes, "value")
            request = decode_value(record.value, request_pb2.GenerateRequest, encoding_of(record))
            if record.key:
                # The producer's choice: the key already decides about partition and order.
                request.ordering_key = record.key.decode("utf-8", "backslashreplace")
            return self._admit(record, request, encoding)
        except (InvalidRequest, DeadlinePassed, Overloaded) as error:
            metrics.REQUESTS.labels("kafka", decision_of(error)).inc()
            return self._refuse(record, error, request, encoding)

    def _admit(
        self,
        record: Record,
        request: request_pb2.GenerateRequest,
        encoding: admitted_pb2.Encoding.ValueType,
    ) -> Sequence[Outgoing]:
        now = self._clock()
        published = dt.datetime.fromtimestamp(max(0, record.timestamp_ms) / 1000, dt.UTC)
        admitted = self._admission.admit(
            request,
            Arrival(
                fallback_id=id_of_record(record),
                published_at=min(published, now),  # a producer's clock may be ahead
                now=now,
                encoding=encoding,
                source=common_pb2.Coordinates(
                    topic=record.partition.topic,
                    partition=record.partition.number,
                    offset=record.offset,
                ),
            ),
        )
        claimant = (record.partition, record.offset)
        if request.idempotency_key and not self._known.claim(
            admitted.request_id, claimant, now.timestamp()
        ):
            metrics.REQUESTS.labels("kafka", "repeated").inc()
            log.info("a repeat is dropped", request_id=admitted.request_id, **record.where())
            return []
        try:
            self._shedding.check(admitted, now)
            self._quota.reserve(admitted, now.timestamp())
        except Overloaded:
            self._known.release(admitted.request_id)
            raise
        metrics.REQUESTS.labels("kafka", "admitted").inc()
        shed = self._shedding.sheds(admitted.request.model, now)
        return admitted_records(
            admitted,
            () if shed else self._admission.shadows(request, admitted),
            topic=self._admitted,
            key=_key(record, request, admitted.request_id),
            time=now,
        )

    def _refuse(
        self,
        record: Record,
        error: PenstockError,
        request: request_pb2.GenerateRequest | None,
        encoding: admitted_pb2.Encoding.ValueType,
    ) -> Sequence[Outgoing]:
        outcome = (
            response_pb2.OUTCOME_EXPIRED
            if isinstance(error, DeadlinePassed)
            else response_pb2.OUTCOME_REJECTED
        )
        response = self._response(record, error, request, outcome)
        outputs = [self._encoded(record, response, encoding, request)]
        if error.code == Code.ERROR_CODE_MALFORMED:
            # The parser's own words quote the record: people find it on the dlq, not in headers.
            reason = f"the record is no request ({error.field})"
            outputs.append(self._dead_letter(record, reason, error))
        return outputs

    def _response(
        self,
        record: Record,
        error: PenstockError,
        request: request_pb2.GenerateRequest | None,
        outcome: response_pb2.Outcome.ValueType,
    ) -> response_pb2.GenerateResponse:
        # Never the id of an idempotency key: a refused request does not use its key up.
        request_id = id_of_record(record)
        now = self._clock()
        response = response_pb2.GenerateResponse(
            request_id=request_id,
            response_id=response_id_of(request_id),
            outcome=outcome,
            error=error.to_proto(),
            created_at=timestamp_of(now),
        )
        response.timings.total_s = max(0.0, now.timestamp() - record.timestamp_ms / 1000)
        if request is not None:
            response.model = request.model[:MAX_KEY]
            response.tenant = tenant_of(request)[:MAX_KEY]
            response.idempotency_key = request.idempotency_key[:MAX_KEY]
            if len(request.labels) <= MAX_LABELS:
                response.labels.update(request.labels)
        return response

    def _encoded(
        self,
        record: Record,
        response: response_pb2.GenerateResponse,
        encoding: admitted_pb2.Encoding.ValueType,
        request: request_pb2.GenerateRequest | None = None,
    ) -> Outgoing:
        return encode(
            response,
            topic=self._responses,
            key=_key(record, request, response.request_id),
            source=SOURCE,
            event_id=response.response_id,
            encoding=encoding,
        )

    def _dead_letter(self, record: Record, reason: str, error: Exception) -> Outgoing:
        return dead_letter(
            record,
            dlq_topic=self._dlq,
            service=SOURCE,
            reason=reason,
            error=error,
            attempts=1,
            request_id=id_of_record(record),
        )


def _key(record: Record, request: request_pb2.GenerateRequest | None, request_id: str) -> bytes:
    if record.key:
        return record.key
    ordering_key = request.ordering_key[:MAX_KEY] if request is not None else ""
    return (ordering_key or request_id).encode()


def _encoding(record: Record) -> admitted_pb2.Encoding.ValueType:
    # Also for a content type that is not known: what looks like JSON is answered in JSON.
    try:
        return encoding_of(record)
    except InvalidRequest:
        looks_like_json = (record.value or b"").lstrip()[:1] in (b"{", b"[")
        named_json = "json" in (record.header("content-type") or "").lower()
        return JSON if looks_like_json or named_json else PROTOBUF
