"""The errors that services share, each with one meaning for whoever handles it.

A domain raises them; edges map them in one place: `penstock.rpc.interceptors` to gRPC statuses,
ingest's HTTP door to OpenAI error bodies, ingest's Kafka door to a rejected response.
"""

from __future__ import annotations

from penstock.v1 import common_pb2

Code = common_pb2.ErrorCode

__all__ = ["Code", "InvalidRequest", "PenstockError", "Unavailable"]


class PenstockError(Exception):
    """An error with a stable code, the field at fault and what to do next.

    Args:
        message: What is wrong and the remedy, for people.
        code: The contract's code.
        field: The request's field at fault, as the contract writes it; empty where none is.
        retryable: Whether the same request may succeed later.
        retry_after_s: When it may, in seconds from now; None where nobody knows.
    """

    code: Code.ValueType = Code.ERROR_CODE_INTERNAL
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        code: Code.ValueType | None = None,
        field: str = "",
        retryable: bool | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.message = message
        self.field = field
        if code is not None:
            self.code = code
        if retryable is not None:
            self.retryable = retryable

    def to_proto(self) -> common_pb2.Error:
        """The error as the contract carries it."""
        return common_pb2.Error(
            code=self.code,
            message=self.message,
            field=self.field,
            retryable=self.retryable,
            retry_after_s=self.retry_after_s or 0,
        )

    @classmethod
    def from_proto(cls, error: common_pb2.Error) -> PenstockError:
        """The error that a response carries, to be raised at a door."""
        return PenstockError(
            error.message,
            code=error.code,
            field=error.field,
            retryable=error.retryable,
            retry_after_s=error.retry_after_s or None,
        )


class InvalidRequest(PenstockError):
    """The request is at fault: refuse it, do not retry."""

    code = Code.ERROR_CODE_INVALID_ARGUMENT


class Unavailable(PenstockError):
    """Something that is needed is not there at the moment: retry later."""

    code = Code.ERROR_CODE_UNAVAILABLE
    retryable = True
