"""What a finished request writes: its response, its usage line, and the reply. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt

from google.protobuf import timestamp_pb2

from penstock.codec import encode
from penstock.errors import Code, PenstockError
from penstock.identity import response_id_of
from penstock.records import Outgoing
from penstock.topics import topic_of
from penstock.v1 import admitted_pb2, engine_service_pb2, response_pb2, usage_pb2

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


def outcome_of(result: engine_service_pb2.WorkResult) -> response_pb2.Outcome.ValueType:
    """How a request ended, by its result's error."""
    if not result.HasField("error"):
        return response_pb2.OUTCOME_ANSWERED
    return _OUTCOMES.get(result.error.code, response_pb2.OUTCOME_FAILED)


@dataclasses.dataclass(frozen=True)
class Answers:
    """Makes the records that end requests, for one deployment's topic prefix."""

    topic_prefix: str

    def records(
        self,
        admitted: admitted_pb2.AdmittedRequest,
        result: engine_service_pb2.WorkResult,
        *,
        key: bytes | None,
        attempt: int,
        started: dt.datetime,
        now: dt.datetime,
    ) -> list[Outgoing]:
        """The terminal response, its usage and its reply: written in one transaction.

        Args:
            admitted: The request.
            result: What the engine made of it, or the error that ended it.
            key: The admitted record's key, kept on the response.
            attempt: 1 unless the work was begun again.
            started: When the work began, UTC.
            now: When it ended, UTC.
        """
        response = _response(admitted, result, attempt=attempt, started=started, now=now)
        records = [
            encode(
                response,
                topic=self._topic("responses"),
                key=key,
                source=SOURCE,
                event_id=response.response_id,
                encoding=admitted.encoding or admitted_pb2.ENCODING_PROTOBUF,
                time=now,
            )
        ]
        if result.HasField("usage"):
            records.append(self._usage(admitted, result, now))
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

    def undecodable(self, request_id: str, key: bytes | None, error: PenstockError) -> Outgoing:
        """The terminal response of an admitted record that cannot be read."""
        response = response_pb2.GenerateResponse(
            request_id=request_id,
            response_id=response_id_of(request_id),
            outcome=response_pb2.OUTCOME_FAILED,
            error=error.to_proto(),
        )
        return encode(
            response,
            topic=self._topic("responses"),
            key=key,
            source=SOURCE,
            event_id=response.response_id,
        )

    def _usage(
        self,
        admitted: admitted_pb2.AdmittedRequest,
        result: engine_service_pb2.WorkResult,
        now: dt.datetime,
    ) -> Outgoing:
        line = usage_pb2.UsageLine(
            line_id=f"{admitted.request_id}/generation",
            request_id=admitted.request_id,
            kind=usage_pb2.USAGE_KIND_GENERATION,
            tenant=admitted.request.tenant,
            model=admitted.request.model,
            variant=admitted.variant,
            usage=result.usage,
            observed_at=_timestamp(now),
        )
        return encode(
            line,
            topic=self._topic("usage"),
            key=line.tenant,
            source=SOURCE,
            event_id=line.line_id,
            time=now,
        )

    def _topic(self, name: str) -> str:
        return topic_of(name).full_name(self.topic_prefix)


def _response(
    admitted: admitted_pb2.AdmittedRequest,
    result: engine_service_pb2.WorkResult,
    *,
    attempt: int,
    started: dt.datetime,
    now: dt.datetime,
) -> response_pb2.GenerateResponse:
    published = admitted.published_at.ToDatetime(dt.UTC)
    response = response_pb2.GenerateResponse(
        request_id=admitted.request_id,
        response_id=response_id_of(admitted.request_id),
        outcome=outcome_of(result),
        text=result.text,
        finish_reason=result.finish_reason,
        timings=response_pb2.Timings(
            queued_s=max(0.0, (started - published).total_seconds()),
            first_token_s=result.first_token_s,
            generation_s=result.generation_s,
            total_s=max(0.0, (now - published).total_seconds()),
        ),
        model=admitted.request.model,
        variant=admitted.variant,
        route_version=admitted.route_version,
        tenant=admitted.request.tenant,
        idempotency_key=admitted.request.idempotency_key,
        labels=admitted.request.labels,
        attempt=attempt,
        created_at=_timestamp(now),
    )
    if result.HasField("error"):
        response.error.CopyFrom(result.error)
    if result.HasField("usage"):
        response.usage.CopyFrom(result.usage)
    if result.HasField("log_probabilities"):
        response.log_probabilities.CopyFrom(result.log_probabilities)
    return response


def _timestamp(instant: dt.datetime) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(instant)
    return stamp
