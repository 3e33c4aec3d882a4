"""OpenAI request bodies as penstock requests. Pure.

What penstock serves is taken over; what changes nothing is ignored; what a client would miss is
refused by name. Errors name the body's own field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from google.protobuf import struct_pb2
from pydantic import BaseModel, ConfigDict, StrictBool, StrictInt, StrictStr, ValidationError

from penstock.errors import InvalidRequest
from penstock.v1 import request_pb2
from penstock_ingest.admission.validation import check_schema

__all__ = ["Asked", "chat_request", "completion_request", "param_of"]

# Neutral values by which clients say "without": accepted, since they ask for nothing.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "audio": (),
    "echo": (False,),
    "suffix": ("",),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
    "min_p": (0,),
    "repetition_penalty": (1,),
}
_IGNORED = frozenset(
    {
        "user",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
    }
)
# The contract's fields by the names that OpenAI's clients know them by.
_PARAMS = {
    "response_schema": "response_format",
    "labels": "metadata",
    "timeout": "X-Penstock-Timeout",
    "deadline": "X-Penstock-Timeout",
    "tenant": "X-Penstock-Tenant",
    "ordering_key": "X-Penstock-Ordering-Key",
    "idempotency_key": "Idempotency-Key",
}

B = TypeVar("B", bound=BaseModel)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a body asks for.

    Attributes:
        request: The request, without what headers say.
        stream: Whether text is sent as it is made.
        include_usage: Whether a stream ends with the usage.
    """

    request: request_pb2.GenerateRequest
    stream: bool
    include_usage: bool


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _StreamOptions(_Body):
    include_usage: StrictBool = False
    include_obfuscation: StrictBool = False


class _ResponseFormat(_Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class _Part(_Body):
    model_config = ConfigDict(extra="ignore", strict=True)
    type: Literal["text"]
    text: StrictStr


class _Message(_Body):
    model_config = ConfigDict(extra="ignore", strict=True)
    role: StrictStr
    content: StrictStr | list[_Part] | None = None
    tool_calls: list[Any] | None = None
    function_call: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None


class _Common(_Body):
    model: StrictStr = ""
    stream: StrictBool = False
    stream_options: _StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: StrictInt | None = None
    max_tokens: StrictInt | None = None
    stop: StrictStr | list[StrictStr] | None = None
    seed: StrictInt | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    priority: StrictInt = 0
    metadata: dict[str, StrictStr] | None = None


class _Chat(_Common):
    messages: list[_Message]
    max_completion_tokens: StrictInt | None = None
    response_format: _ResponseFormat | None = None


class _Completion(_Common):
    prompt: StrictStr | list[StrictStr]


def chat_request(body: Mapping[str, Any]) -> Asked:
    """A body of `/v1/chat/completions`.

    Raises:
        InvalidRequest: It is none, or asks for what penstock does not do; names the body's field.
    """
    chat = _parse(_Chat, body)
    if chat.max_completion_tokens is not None:
        if chat.max_tokens is not None:
            raise InvalidRequest(
                "set max_completion_tokens or max_tokens, not both", field="max_tokens"
            )
        chat.max_tokens = chat.max_completion_tokens
    request = _request(chat)
    for index, message in enumerate(chat.messages):
        request.messages.add(
            # OpenAI's newer name for the system's turn.
            role="system" if message.role == "developer" else message.role,
            content=_content(message, f"messages[{index}]"),
        )
    if not request.messages:
        raise InvalidRequest("it is empty; send at least one message", field="messages")
    schema = _schema(chat.response_format)
    if schema is not None:
        request.response_schema.CopyFrom(schema)
    return _asked(chat, request)


def completion_request(body: Mapping[str, Any]) -> Asked:
    """A body of `/v1/completions`.

    Raises:
        InvalidRequest: It is none, or asks for what penstock does not do; names the body's field.
    """
    completion = _parse(_Completion, body)
    prompt = completion.prompt
    if isinstance(prompt, list):
        if len(prompt) != 1:
            raise InvalidRequest("send one prompt a request", field="prompt")
        prompt = prompt[0]
    request = _request(completion)
    request.prompt = prompt
    return _asked(completion, request)


def param_of(field: str) -> str:
    """The contract's field under the name that OpenAI's clients know."""
    return _PARAMS.get(field, field).removeprefix("sampling.")


def _parse(model: type[B], body: Mapping[str, Any]) -> B:
    try:
        return model.model_validate(_refuse_unsupported(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = _path(first["loc"])
        if first["type"] == "extra_forbidden":
            raise InvalidRequest(f"{field} is not known; leave it out", field=field) from None
        raise InvalidRequest(f"{field}: {first['msg']}", field=field) from None


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif path and not part.isidentifier():
            continue  # pydantic's name for a branch of a union
        elif part in ("str", "float", "int"):
            continue
        else:
            path += f".{part}" if path else part
    return path


def _request(body: _Common) -> request_pb2.GenerateRequest:
    request = request_pb2.GenerateRequest(model=body.model)
    sampling = request.sampling
    try:
        for name in (
            "temperature",
            "top_p",
            "top_k",
            "max_tokens",
            "seed",
            "presence_penalty",
            "frequency_penalty",
        ):
            value = getattr(body, name)
            if value is not None:
                setattr(sampling, name, value)
        name = "priority"
        request.priority = body.priority
    except (ValueError, OverflowError) as error:  # an integer beyond the contract's range
        raise InvalidRequest(f"{name} is out of range", field=name) from error
    if body.stop:
        sampling.stop.extend([body.stop] if isinstance(body.stop, str) else body.stop)
    request.labels.update(body.metadata or {})
    return request


def _asked(body: _Common, request: request_pb2.GenerateRequest) -> Asked:
    options = body.stream_options
    if options is not None and not body.stream:
        raise InvalidRequest("it needs stream: true", field="stream_options")
    return Asked(request, body.stream, bool(options and options.include_usage))


def _content(message: _Message, where: str) -> str:
    for name in ("tool_calls", "function_call", "audio"):
        if getattr(message, name):
            raise _unsupported(f"{where}.{name}")
    if isinstance(message.content, list):
        return "".join(part.text for part in message.content)
    return message.content or ""


def _schema(response_format: _ResponseFormat | None) -> struct_pb2.Struct | None:
    if response_format is None or response_format.type == "text":
        return None
    struct = struct_pb2.Struct()
    if response_format.type == "json_object":
        struct.update({"type": "object"})
        return struct
    schema = (response_format.json_schema or {}).get("schema")
    if not isinstance(schema, dict):
        raise InvalidRequest(
            "it must hold a JSON Schema", field="response_format.json_schema.schema"
        )
    try:
        struct.update(schema)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidRequest(
            "it is no JSON Schema", field="response_format.json_schema.schema"
        ) from error
    # Before it is copied: what is too deep cannot be.
    check_schema(struct)
    return struct


def _refuse_unsupported(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body without what asks for nothing."""
    kept = {}
    for name, value in body.items():
        if value is None or name in _IGNORED:
            continue
        if name in _NEUTRAL:
            if not any(value == neutral for neutral in _NEUTRAL[name]):
                raise _unsupported(name)
            continue
        kept[name] = value
    return kept


def _unsupported(field: str) -> InvalidRequest:
    return InvalidRequest(f"{field} is not supported here; leave it out", field=field)
