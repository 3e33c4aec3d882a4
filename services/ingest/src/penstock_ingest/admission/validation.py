"""What a request may hold. Pure; every refusal names the contract's field and the remedy."""

from __future__ import annotations

import math
import re
from typing import Any

from google.protobuf import struct_pb2

from penstock.errors import InvalidRequest
from penstock.v1 import feedback_pb2, request_pb2
from penstock_ingest.errors import TooLarge

__all__ = ["check_feedback", "check_name", "check_request", "check_schema", "check_size"]

ROLES = ("system", "user", "assistant", "tool")
MAX_PRIORITY = 100
MAX_STOPS = 8
MAX_STOP_LENGTH = 128
MAX_LABELS = 16
MAX_LABEL_KEY = 64
MAX_LABEL_VALUE = 256
MAX_KEY = 512
MAX_MESSAGES = 2048
MAX_CONTEXTS = 256
MAX_COMMENT = 4096
MAX_BUSINESS_VALUE = 1e9
MAX_SCHEMA_BYTES = 64 * 1024
# Each level is three messages in one another, and Protobuf reads a hundred.
MAX_SCHEMA_DEPTH = 24
_UNIT = re.compile(r"[^\s\x00-\x1f]{1,32}")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}")


def check_size(size: int, limit: int, field: str) -> None:
    """Refuses a request that is larger than the door admits.

    Raises:
        TooLarge: With the size and the limit, in bytes.
    """
    if size > limit:
        raise TooLarge(
            f"the request has {size} bytes and at most {limit} are admitted; shorten it",
            field=field,
        )


def check_request(request: request_pb2.GenerateRequest) -> None:
    """Refuses values that are not allowed, whoever asks and whatever is routed.

    Raises:
        InvalidRequest: The first fault that was found.
    """
    _check_prompt(request)
    _check_sampling(request.sampling)
    _between("priority", request.priority, -MAX_PRIORITY, MAX_PRIORITY)
    check_name("ordering_key", request.ordering_key)
    check_name("idempotency_key", request.idempotency_key)
    if request.tenant and not _TENANT.fullmatch(request.tenant):
        raise InvalidRequest(
            "a tenant is 1 to 128 letters, digits and . _ @ : -, and begins with a letter or digit",
            field="tenant",
        )
    _check_labels(request)
    _check_contexts(request)
    if request.HasField("response_schema"):
        check_schema(request.response_schema)


def check_schema(schema: struct_pb2.Struct) -> None:
    """Refuses a schema that is too large or too deep, or holds numbers that are none in JSON.

    Raises:
        InvalidRequest: The first fault that was found.
    """
    level: list[struct_pb2.Value] = list(schema.fields.values())
    depth = 1
    while level:
        depth += 1
        if depth > MAX_SCHEMA_DEPTH:
            raise InvalidRequest(
                f"the schema is nested more than {MAX_SCHEMA_DEPTH} levels deep; flatten it",
                field="response_schema",
            )
        if not all(math.isfinite(value.number_value) for value in level):
            raise InvalidRequest(
                "the schema has a number that is not finite, and JSON knows none; correct it",
                field="response_schema",
            )
        level = [
            inner
            for value in level
            for inner in (*value.struct_value.fields.values(), *value.list_value.values)
        ]
    if schema.ByteSize() > MAX_SCHEMA_BYTES:
        raise InvalidRequest(
            f"the schema is larger than {MAX_SCHEMA_BYTES} bytes; simplify it",
            field="response_schema",
        )


def check_name(field: str, name: str) -> None:
    """Refuses a key that is too long.

    Raises:
        InvalidRequest: It is longer than 512 characters.
    """
    if len(name) > MAX_KEY:
        raise InvalidRequest(
            f"{field} has {len(name)} characters; use at most {MAX_KEY}", field=field
        )


def check_feedback(feedback: feedback_pb2.Feedback) -> None:
    """Refuses feedback that says nothing or names no response.

    Raises:
        InvalidRequest: The first fault that was found.
    """
    if not feedback.request_id:
        raise InvalidRequest("name the request that the feedback is for", field="request_id")
    check_name("feedback_id", feedback.feedback_id)
    match feedback.WhichOneof("value"):
        case None if not feedback.HasField("business_value"):
            raise InvalidRequest(
                "set one of label, score and correction, or business_value", field="value"
            )
        case "score":
            _between("score", feedback.score, 0, 1)
        case "label":
            if not feedback.label.strip() or len(feedback.label) > MAX_LABEL_VALUE:
                raise InvalidRequest(
                    f"a label has 1 to {MAX_LABEL_VALUE} characters", field="label"
                )
    if len(feedback.comment) > MAX_COMMENT:
        raise InvalidRequest(f"use at most {MAX_COMMENT} characters", field="comment")
    _check_business_value(feedback)


def _check_business_value(feedback: feedback_pb2.Feedback) -> None:
    if feedback.HasField("business_value"):
        _between("business_value", feedback.business_value, -MAX_BUSINESS_VALUE, MAX_BUSINESS_VALUE)
    elif feedback.value_unit:
        raise InvalidRequest("a unit needs its business_value", field="value_unit")
    if feedback.value_unit and not _UNIT.fullmatch(feedback.value_unit):
        raise InvalidRequest(
            "a unit has at most 32 characters, without spaces: EUR, minutes", field="value_unit"
        )


def _check_prompt(request: request_pb2.GenerateRequest) -> None:
    if request.prompt and request.messages:
        raise InvalidRequest("set prompt or messages, not both", field="prompt")
    if not request.prompt and not request.messages:
        raise InvalidRequest("set prompt or messages; both are empty", field="prompt")
    if request.prompt and not request.prompt.strip():
        raise InvalidRequest("the prompt is blank; write some text", field="prompt")
    if len(request.messages) > MAX_MESSAGES:
        raise InvalidRequest(f"use at most {MAX_MESSAGES} messages", field="messages")
    for index, message in enumerate(request.messages):
        if message.role not in ROLES:
            raise InvalidRequest(
                f"role {message.role[:50]!r} is not known; use one of {', '.join(ROLES)}",
                field=f"messages[{index}].role",
            )
        # Templates put system and earlier turns in as they are; an empty question has no answer.
        if message.role == "user" and not message.content.strip():
            raise InvalidRequest("the message is blank", field=f"messages[{index}].content")


def _check_sampling(sampling: request_pb2.SamplingParameters) -> None:
    name: Any  # a field's name: the generated stubs want literals
    for name, low, high in (
        ("temperature", 0.0, 2.0),
        ("presence_penalty", -2.0, 2.0),
        ("frequency_penalty", -2.0, 2.0),
    ):
        if sampling.HasField(name):
            _between(f"sampling.{name}", getattr(sampling, name), low, high)
    if sampling.HasField("top_p") and not 0 < sampling.top_p <= 1:
        raise InvalidRequest(
            f"it is {sampling.top_p} and must be above 0 and at most 1", field="sampling.top_p"
        )
    for name in ("top_k", "max_tokens"):
        if sampling.HasField(name) and getattr(sampling, name) < 1:
            raise InvalidRequest(
                f"it is {getattr(sampling, name)} and must be at least 1", field=f"sampling.{name}"
            )
    if len(sampling.stop) > MAX_STOPS:
        raise InvalidRequest(f"use at most {MAX_STOPS} stop strings", field="sampling.stop")
    for index, stop in enumerate(sampling.stop):
        if not 0 < len(stop) <= MAX_STOP_LENGTH:
            raise InvalidRequest(
                f"a stop string has 1 to {MAX_STOP_LENGTH} characters",
                field=f"sampling.stop[{index}]",
            )


def _check_labels(request: request_pb2.GenerateRequest) -> None:
    if len(request.labels) > MAX_LABELS:
        raise InvalidRequest(
            f"there are {len(request.labels)} labels; use at most {MAX_LABELS}", field="labels"
        )
    for key, value in request.labels.items():
        if not 0 < len(key) <= MAX_LABEL_KEY or len(value) > MAX_LABEL_VALUE:
            raise InvalidRequest(
                f"a label's name has 1 to {MAX_LABEL_KEY} characters and its value at most "
                f"{MAX_LABEL_VALUE}",
                field="labels",
            )


def _check_contexts(request: request_pb2.GenerateRequest) -> None:
    if len(request.contexts) > MAX_CONTEXTS:
        raise InvalidRequest(f"use at most {MAX_CONTEXTS} contexts", field="contexts")
    for index, context in enumerate(request.contexts):
        if not context.text.strip():
            raise InvalidRequest("the passage is blank", field=f"contexts[{index}].text")


def _between(field: str, value: float, low: float, high: float) -> None:
    # Written so that NaN, which compares false with everything, is refused too.
    if not (math.isfinite(value) and low <= value <= high):
        raise InvalidRequest(f"it is {value} and must be from {low:g} to {high:g}", field=field)
