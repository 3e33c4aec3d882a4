"""The body of `POST /v1/feedback`: the contract's `Feedback` in JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from penstock.errors import Code, InvalidRequest
from penstock.v1 import feedback_pb2

__all__ = ["feedback_of"]

# What the door fills in itself.
_OURS = ("created_at", "createdAt")


def feedback_of(body: Mapping[str, Any], tenant: str) -> feedback_pb2.Feedback:
    """Feedback as a body has it; a tenant that a header names wins.

    Raises:
        InvalidRequest: The body is no feedback (ERROR_CODE_MALFORMED).
    """
    given = {name: value for name, value in body.items() if name not in _OURS}
    try:
        feedback = json_format.ParseDict(given, feedback_pb2.Feedback())
    except (json_format.ParseError, RecursionError, OverflowError) as error:
        raise InvalidRequest(
            f"the body is not a Feedback in JSON: {error}",
            code=Code.ERROR_CODE_MALFORMED,
            field="body",
        ) from None
    if tenant:
        feedback.tenant = tenant
    return feedback
