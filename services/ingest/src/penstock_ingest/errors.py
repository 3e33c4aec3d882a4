"""Errors of ingest, each with one meaning for the doors."""

from __future__ import annotations

from penstock.errors import Code, InvalidRequest, PenstockError, Unavailable

__all__ = ["DeadlinePassed", "Diverged", "Overloaded", "TooLarge", "unwritten"]


class TooLarge(InvalidRequest):
    """The request is larger than the door admits."""

    code = Code.ERROR_CODE_TOO_LARGE


class DeadlinePassed(PenstockError):
    """The request's deadline passed before it was answered: its client has given up."""

    code = Code.ERROR_CODE_DEADLINE_EXCEEDED


class Overloaded(PenstockError):
    """Too much waits here already: try again later, or elsewhere."""

    code = Code.ERROR_CODE_OVERLOADED
    retryable = True


class Diverged(PenstockError):
    """A run after a fault drew other text than what was sent: the stream cannot go on."""

    code = Code.ERROR_CODE_STREAM_DIVERGED


def unwritten() -> Unavailable:
    """The log did not take a record, or did not say so: whether it is there is not known."""
    return Unavailable(
        "the log could not be written; repeat with an idempotency key, so that it runs once"
    )
