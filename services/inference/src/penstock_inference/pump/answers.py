"""What a finished request writes: its response, its usage line, and the reply. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt

from google.protobuf import timestamp_pb2

from penstock.codec import decode, encode
from penstock.errors import Code, PenstockError
from penstock.failures import is_outage
from penstock.identity import response_id_of
from penstock.kafka.dlq import dead_letter
from penstock.records import Outgoing, Record
from penstock.topics import topic_of
from penstock.v1 import (
    admitted_pb2,
    common_pb2,
    engine_service_pb2,
    response_pb2,
)
from penstock_inference import metrics
from penstock_inference.pump.ledger_lines import usage_of_generation, usage_of_hit
from penstock_inference.streams.wire import failure_of

__all__ = ["Answers", "outcome_of"]

SOURCE = "inference"

_OUTCOMES = {
    Code.ERROR_CODE_INVALID_ARGUMENT: response_pb2.OUTCOME_REJECTED,
    Code.ERROR_CODE_CONTEXT_LENGTH_EXCEEDED: response_pb2.OUTCOME_REJECTED,
    Code.ERROR_CODE_MALFORMED: response_pb2.OUTCOME_REJECTED,
    Code.ERROR_CODE_UNKNOWN_MODEL: response_pb2.OUTCOME_REJECTED,
    Code.ERROR_CODE_DEADLINE_EXCEEDED: response_pb2.OUTCOME_EXPIRED,
    Code.ERROR_CODE_CANCELLED: response_pb2.OUTCOME_CANCELLED,
}

_COUNTED = {
    value: metrics.RESPONSES.labels(response_pb2.Outcome.Name(value))
    for value in response_pb2.Outcome.values()
}


def outcome_of(result: engine_service_pb2.WorkResult) -> response_pb2.Outcome.ValueType:
    """How a request ended, by its result's error."""
    if not result.HasField("error"):
        return response_pb2.OUTCOME_ANSWERED
    return _OUTCOMES.get(result.error.code, response_pb2.OUTCOME_FAILED)


@dataclasses.dataclass(frozen=True)
class Answers:
    """Makes the records that end requests.

    Attributes:
        topic_prefix: What stands before the dot in topics' names.
        group: The consumer group, for dead letters.
    """

    topic_prefix: str
    group: str = ""

    def __post_init__(self) -> None:
        """Looks the topics' names up once."""
        names = ("responses", "replays", "shadows", "replies", "tokens", "usage", "dlq")
        full = {name: topic_of(name).full_name(self.topic_prefix) for name in names}
        object.__setattr__(self, "_topics", full)
        terminal = {
            common_pb2.PURPOSE_UNSPECIFIED: full["responses"],
            common_pb2.PURPOSE_REPLAY: full["replays"],
            common_pb2.PURPOSE_SHADOW: full["shadows"],
        }
        object.__setattr__(self, "_terminal", terminal)

    def records(
        self,
        admitted: admitted_pb2.AdmittedRequest,
        result: engine_service_pb2.WorkResult,
        *,
        key: bytes | None,
        partition: int,
        attempt: int,
        started_s: float,
        now_s: float,
        avoided: common_pb2.Usage | None = None,
        similarity: float | None = None,
        adapter: str | None = None,
    ) -> list[Outgoing]:
        """The terminal response, its usage and its reply: written in one transaction.

        A probe's goes to the reply only: nobody else asked.

        Args:
            admitted: The request.
            result: What the engine made of it, or the error that ended it.
            key: The admitted record's key, kept on the response.
            partition: The admitted record's partition, the response's too: what shares a key
                stays in one place, whatever client chose it.
            attempt: 1 unless the work was begun again.
            started_s: When the work began, in seconds since 1970.
            now_s: When it ended.
            avoided: For an answer from the cache, what it did not have to generate.
            similarity: For one from the semantic cache, how alike the questions are.
            adapter: For one that an engine answered, the adapter, empty for the base model alone.
        """
        response = _response(admitted, result, attempt=attempt, started_s=started_s, now_s=now_s)
        if adapter is not None:
            response.adapter = adapter
        if avoided is not None:
            response.cached = True
            if similarity is not None:
                response.cache_similarity = similarity
        _COUNTED[response.outcome].inc()
        if response.outcome == response_pb2.OUTCOME_ANSWERED:
            metrics.LATENCY_SECONDS.observe(response.timings.total_s)
        now = dt.datetime.fromtimestamp(now_s, dt.UTC)
        records = []
        terminal = self._terminal.get(admitted.purpose)  # type: ignore[attr-defined]
        if terminal is not None:
            records.append(
                encode(
                    response,
                    topic=terminal,
                    key=key,
                    source=SOURCE,
                    event_id=response.response_id,
                    encoding=admitted.encoding or admitted_pb2.ENCODING_PROTOBUF,
                    partition=partition,
                    time=now,
                )
            )
        if result.HasField("usage"):
            records.append(self._usage(admitted, result, now, avoided))
        if admitted.HasField("reply_partition"):
            records.append(
                encode(
                    response,
                    topic=self._topic("replies"),
                    key=admitted.request_id,
                    source=SOURCE,
                    event_id=response.response_id,
                    partition=admitted.reply_partition,
                    time=now,
                )
            )
        return records

    def chunk(self, chunk: response_pb2.TokenChunk, partition: int) -> Outgoing:
        """A piece of text for the caller who waits at a reply partition."""
        return encode(
            chunk,
            topic=self._topic("tokens"),
            key=chunk.request_id,
            source=SOURCE,
            partition=partition,
        )

    def given_up(
        self, record: Record, error: Exception, now_s: float, *, attempts: int = 1
    ) -> list[Outgoing]:
        """The dead letter and the failed response of a record that cannot be handled."""
        reason = PenstockError(
            "the request could not be handled; it is kept on the dead letter topic",
            code=Code.ERROR_CODE_INTERNAL,
        )
        if is_outage(error):
            reason = error
        admitted = _decoded(record)
        request_id = (
            admitted.request_id
            if admitted is not None
            else record.header("ce_id") or f"{record.partition.number}-{record.offset}"
        )
        letter = dead_letter(
            record,
            dlq_topic=self._topic("dlq"),
            service=SOURCE,
            reason="admitted record could not be handled",
            error=error,
            attempts=attempts,
            group=self.group,
            request_id=request_id,
            tenant=admitted.request.tenant if admitted is not None else "",
        )
        if admitted is None:
            return [letter, self._undecodable(request_id, record, reason)]
        finished = self.records(
            admitted,
            failure_of(reason),
            key=record.key,
            partition=record.partition.number,
            attempt=attempts,
            started_s=now_s,
            now_s=now_s,
        )
        return [letter, *finished]

    def _undecodable(self, request_id: str, record: Record, error: PenstockError) -> Outgoing:
        response = response_pb2.GenerateResponse(
            request_id=request_id,
            response_id=response_id_of(request_id),
            outcome=response_pb2.OUTCOME_FAILED,
            error=error.to_proto(),
        )
        return encode(
            response,
            topic=self._topic("responses"),
            key=record.key,
            source=SOURCE,
            event_id=response.response_id,
            partition=record.partition.number,
        )

    def _usage(
        self,
        admitted: admitted_pb2.AdmittedRequest,
        result: engine_service_pb2.WorkResult,
        now: dt.datetime,
        avoided: common_pb2.Usage | None,
    ) -> Outgoing:
        if avoided is not None:
            line = usage_of_hit(admitted, avoided, now)
        else:
            line = usage_of_generation(admitted, result.usage, now)
        return encode(
            line,
            topic=self._topic("usage"),
            key=line.tenant,
            source=SOURCE,
            event_id=line.line_id,
            time=now,
        )

    def _topic(self, name: str) -> str:
        topics: dict[str, str] = self._topics  # type: ignore[attr-defined]
        return topics[name]


def _decoded(record: Record) -> admitted_pb2.AdmittedRequest | None:
    try:
        admitted = decode(record, admitted_pb2.AdmittedRequest)
    except PenstockError:
        return None
    return admitted if admitted.request_id else None


def _response(
    admitted: admitted_pb2.AdmittedRequest,
    result: engine_service_pb2.WorkResult,
    *,
    attempt: int,
    started_s: float,
    now_s: float,
) -> response_pb2.GenerateResponse:
    published_s = admitted.published_at.seconds + admitted.published_at.nanos * 1e-9
    response = response_pb2.GenerateResponse(
        request_id=admitted.request_id,
        response_id=response_id_of(admitted.request_id),
        outcome=outcome_of(result),
        text=result.text,
        finish_reason=result.finish_reason,
        timings=response_pb2.Timings(
            queued_s=max(0.0, started_s - published_s),
            first_token_s=result.first_token_s,
            generation_s=result.generation_s,
            total_s=max(0.0, now_s - published_s),
        ),
        model=admitted.request.model,
        variant=admitted.variant,
        route_version=admitted.route_version,
        tenant=admitted.request.tenant,
        idempotency_key=admitted.request.idempotency_key,
        labels=admitted.request.labels,
        attempt=attempt,
        created_at=_timestamp(now_s),
        purpose=admitted.purpose,
        origin_request_id=admitted.origin_request_id,
    )
    if result.HasField("error"):
        response.error.CopyFrom(result.error)
    if result.HasField("usage"):
        response.usage.CopyFrom(result.usage)
    if result.HasField("log_probabilities"):
        response.log_probabilities.CopyFrom(result.log_probabilities)
    return response


def _timestamp(instant_s: float) -> timestamp_pb2.Timestamp:
    seconds = int(instant_s)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=int((instant_s - seconds) * 1e9))
