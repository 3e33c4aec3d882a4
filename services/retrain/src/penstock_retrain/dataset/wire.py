"""Records of the log as rows."""

from __future__ import annotations

from google.protobuf import json_format

from penstock.codec import decode
from penstock.records import Record
from penstock.v1 import admitted_pb2, common_pb2, feedback_pb2, request_pb2, response_pb2
from penstock_retrain.dataset.names import Kind
from penstock_retrain.dataset.rows import (
    FeedbackRow,
    Message,
    Passage,
    RequestRow,
    ResponseRow,
    Row,
)

__all__ = ["row_of"]


def row_of(kind: Kind, record: Record) -> Row:
    """A record as a row.

    Raises:
        InvalidRequest: Its value is not what its topic holds.
    """
    match kind:
        case Kind.REQUESTS:
            return _request(record, decode(record, admitted_pb2.AdmittedRequest))
        case Kind.RESPONSES:
            return _response(record, decode(record, response_pb2.GenerateResponse))
        case Kind.FEEDBACK:
            return _feedback(record, decode(record, feedback_pb2.Feedback))


def _request(record: Record, admitted: admitted_pb2.AdmittedRequest) -> RequestRow:
    request = admitted.request
    return RequestRow(
        partition=record.partition.number,
        offset=record.offset,
        time_ms=record.timestamp_ms,
        key=_key(record),
        request_id=admitted.request_id,
        tenant=request.tenant,
        model=request.model,
        variant=admitted.variant,
        route_version=admitted.route_version,
        purpose=_purpose(admitted.purpose),
        ordering_key=request.ordering_key,
        labels=dict(request.labels),
        messages=tuple(Message(each.role, each.content) for each in request.messages),
        prompt=request.prompt,
        passages=tuple(Passage(each.text, each.id or each.source) for each in request.contexts),
        schema=_schema(request),
    )


def _schema(request: request_pb2.GenerateRequest) -> str:
    """As JSON; empty for none, and where a number in it is none, which no JSON holds."""
    if not request.HasField("response_schema"):
        return ""
    try:
        return json_format.MessageToJson(request.response_schema, indent=None, sort_keys=True)
    except (json_format.SerializeToJsonError, ValueError):
        return ""


def _response(record: Record, response: response_pb2.GenerateResponse) -> ResponseRow:
    return ResponseRow(
        partition=record.partition.number,
        offset=record.offset,
        time_ms=record.timestamp_ms,
        key=_key(record),
        request_id=response.request_id,
        tenant=response.tenant,
        outcome=_short(response_pb2.Outcome.Name(response.outcome), "OUTCOME_"),
        text=response.text,
        finish=_short(response_pb2.FinishReason.Name(response.finish_reason), "FINISH_REASON_"),
        model=response.model,
        variant=response.variant,
        adapter=response.adapter,
        route_version=response.route_version,
        purpose=_purpose(response.purpose),
        cached=response.cached,
        labels=dict(response.labels),
        prompt_tokens=response.usage.prompt_tokens,
        completion_tokens=response.usage.completion_tokens,
        total_s=response.timings.total_s,
    )


def _feedback(record: Record, feedback: feedback_pb2.Feedback) -> FeedbackRow:
    given = feedback.WhichOneof("value")
    return FeedbackRow(
        partition=record.partition.number,
        offset=record.offset,
        time_ms=record.timestamp_ms,
        key=_key(record),
        feedback_id=feedback.feedback_id,
        request_id=feedback.request_id,
        tenant=feedback.tenant,
        label=feedback.label if given == "label" else None,
        score=feedback.score if given == "score" else None,
        correction=feedback.correction if given == "correction" else None,
        business_value=feedback.business_value if feedback.HasField("business_value") else None,
        value_unit=feedback.value_unit,
    )


def _key(record: Record) -> str:
    return (record.key or b"").decode("utf-8", "replace")


def _purpose(purpose: common_pb2.Purpose.ValueType) -> str:
    return _short(common_pb2.Purpose.Name(purpose), "PURPOSE_")


def _short(name: str, prefix: str) -> str:
    short = name.removeprefix(prefix).lower()
    return "" if short == "unspecified" else short
