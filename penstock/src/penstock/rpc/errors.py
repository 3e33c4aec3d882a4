"""Penstock's errors as gRPC statuses with `google.rpc` details, and back.

The status tells a generic client what to do; `ErrorInfo.reason` keeps the exact code, so that a
client of penstock reads the very error that the server raised.
"""

from __future__ import annotations

from typing import ClassVar

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from penstock.errors import Code, PenstockError

__all__ = ["FailedPrecondition", "NotFound", "error_of", "status_code_of", "status_of"]

DOMAIN = "penstock"
RETRY_S = 1
# Details travel in HTTP/2 trailers, which peers cap at 8 KiB all together.
MAX_MESSAGE = 1000

_STATUS = {
    Code.ERROR_CODE_MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Code.ERROR_CODE_INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    Code.ERROR_CODE_UNKNOWN_MODEL: grpc.StatusCode.NOT_FOUND,
    Code.ERROR_CODE_CONTEXT_LENGTH_EXCEEDED: grpc.StatusCode.INVALID_ARGUMENT,
    Code.ERROR_CODE_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    Code.ERROR_CODE_DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Code.ERROR_CODE_CANCELLED: grpc.StatusCode.CANCELLED,
    Code.ERROR_CODE_OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.ERROR_CODE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Code.ERROR_CODE_INTERNAL: grpc.StatusCode.INTERNAL,
    Code.ERROR_CODE_BUDGET_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.ERROR_CODE_STREAM_DIVERGED: grpc.StatusCode.ABORTED,
}

# For servers that send no ErrorInfo: proxies, and gRPC's own errors.
_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: Code.ERROR_CODE_INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE: Code.ERROR_CODE_INVALID_ARGUMENT,
    grpc.StatusCode.DEADLINE_EXCEEDED: Code.ERROR_CODE_DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED: Code.ERROR_CODE_CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Code.ERROR_CODE_OVERLOADED,
    grpc.StatusCode.UNAVAILABLE: Code.ERROR_CODE_UNAVAILABLE,
}
_RETRYABLE = {Code.ERROR_CODE_OVERLOADED, Code.ERROR_CODE_UNAVAILABLE}


class NotFound(PenstockError):
    """The thing that an RPC names is not there, or is not the caller's."""

    code = Code.ERROR_CODE_INVALID_ARGUMENT
    status: ClassVar[grpc.StatusCode] = grpc.StatusCode.NOT_FOUND


class FailedPrecondition(PenstockError):
    """The RPC cannot be done until somebody changes the state that the message names."""

    code = Code.ERROR_CODE_INVALID_ARGUMENT
    status: ClassVar[grpc.StatusCode] = grpc.StatusCode.FAILED_PRECONDITION


_BY_STATUS: dict[grpc.StatusCode, type[PenstockError]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
}


def status_code_of(error: PenstockError) -> grpc.StatusCode:
    """The gRPC status of an error."""
    if isinstance(error, NotFound | FailedPrecondition):
        return error.status
    return _STATUS.get(error.code, grpc.StatusCode.UNKNOWN)


def status_of(error: PenstockError, *, call_id: str = "") -> status_pb2.Status:
    """An error as `google.rpc.Status`.

    Details: ErrorInfo always (reason is the code's name); BadRequest where a field is at fault;
    RetryInfo where the same request may succeed later; RequestInfo where `call_id` names the call.
    """
    details = [
        _packed(error_details_pb2.ErrorInfo(reason=Code.Name(error.code), domain=DOMAIN)),
    ]
    message = error.message[:MAX_MESSAGE]
    if error.field:
        bad_request = error_details_pb2.BadRequest()
        bad_request.field_violations.add(field=error.field, description=message)
        details.append(_packed(bad_request))
    if error.retryable:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round((error.retry_after_s or RETRY_S) * 1000))
        details.append(_packed(retry))
    if call_id:
        details.append(_packed(error_details_pb2.RequestInfo(request_id=call_id)))
    code: int = status_code_of(error).value[0]
    # Many clients show a status's message alone: it names the field too.
    shown = f"{error.field}: {message}" if error.field else message
    return status_pb2.Status(code=code, message=shown, details=details)


def error_of(error: grpc.RpcError) -> PenstockError:
    """The error that a server raised, read back from what its call raised.

    A status without penstock's details becomes the nearest code; NOT_FOUND and
    FAILED_PRECONDITION become `NotFound` and `FailedPrecondition` unless the code says more.
    """
    status_code: grpc.StatusCode = error.code()
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError):  # a proxy rewrote one half of it
        status = None
    details = list(status.details) if status is not None else []
    code = _CODE.get(status_code, Code.ERROR_CODE_INTERNAL)
    retryable = status is None and code in _RETRYABLE
    field, known = "", False
    retry_after_s = None
    message = error.details() or status_code.name
    for detail in details:
        info = error_details_pb2.ErrorInfo()
        violation = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN and info.reason in Code.keys():  # noqa: SIM118 - an enum wrapper, no mapping
            code, known = Code.Value(info.reason), True
        elif detail.Unpack(violation) and violation.field_violations:
            field = violation.field_violations[0].field
            message = violation.field_violations[0].description or message
        elif detail.Unpack(retry):
            retryable, retry_after_s = True, retry.retry_delay.ToMilliseconds() / 1000 or None
    kind = _BY_STATUS.get(status_code, PenstockError)
    if known and _STATUS.get(code) == status_code:
        kind = PenstockError
    return kind(message, code=code, field=field, retryable=retryable, retry_after_s=retry_after_s)


def _packed(
    detail: error_details_pb2.ErrorInfo
    | error_details_pb2.BadRequest
    | error_details_pb2.RetryInfo
    | error_details_pb2.RequestInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
