"""How a job begins and how it can end other than by its answer. Pure."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from penstock.codec import PROTOBUF, decode, encoding_of
from penstock.errors import Code, InvalidRequest, PenstockError
from penstock.records import Record
from penstock.v1 import admitted_pb2, engine_service_pb2
from penstock_inference.pump.job import Job
from penstock_inference.streams.wire import failure_of

__all__ = ["cancellation", "ending_of", "expiry", "item_of"]


def item_of(record: Record) -> engine_service_pb2.WorkItem:
    """An admitted request as engines take it.

    Raises:
        InvalidRequest: The record is none.
    """
    item = engine_service_pb2.WorkItem()
    if record.value is not None and encoding_of(record) == PROTOBUF:
        try:
            item.request.ParseFromString(record.value)  # in place: a copy costs as much again
        except DecodeError as error:
            raise _malformed() from error
    else:
        item.request.CopyFrom(decode(record, admitted_pb2.AdmittedRequest))
    if not item.request.request_id:
        raise _malformed()
    return item


def _malformed() -> InvalidRequest:
    return InvalidRequest(
        "the record is no admitted request", code=Code.ERROR_CODE_MALFORMED, field="value"
    )


def expiry() -> PenstockError:
    """The deadline passed."""
    return PenstockError(
        "the deadline passed before the answer was complete; allow more time or ask for fewer "
        "tokens",
        code=Code.ERROR_CODE_DEADLINE_EXCEEDED,
        field="deadline",
    )


def cancellation() -> PenstockError:
    """Somebody who may took the request back."""
    return PenstockError("the request was cancelled", code=Code.ERROR_CODE_CANCELLED)


def ending_of(
    job: Job, result: engine_service_pb2.WorkResult | None
) -> engine_service_pb2.WorkResult:
    """How a job ends that was taken back while it ran."""
    if result is not None and not result.HasField("error"):
        return result  # the answer was quicker
    assert job.verdict is not None
    ended = failure_of(job.verdict)
    if result is not None and result.HasField("usage"):
        ended.usage.CopyFrom(result.usage)
    elif job.observed_tokens:
        ended.usage.completion_tokens = job.observed_tokens
    return ended
