"""Penstock's responses and errors in OpenAI's shapes. Pure."""

from __future__ import annotations

import json
from typing import Any, Literal

from penstock.errors import Code, PenstockError
from penstock.rpc.errors import NotFound
from penstock.v1 import response_pb2, route_pb2
from penstock_ingest.doors.openai_requests import param_of

__all__ = ["DONE", "Kind", "Shapes", "error_body", "event", "http_status", "model_body"]

Kind = Literal["chat", "text"]
DONE = "data: [DONE]\n\n"

_STATUS = {
    Code.ERROR_CODE_MALFORMED: 400,
    Code.ERROR_CODE_INVALID_ARGUMENT: 400,
    Code.ERROR_CODE_UNKNOWN_MODEL: 404,
    Code.ERROR_CODE_CONTEXT_LENGTH_EXCEEDED: 400,
    Code.ERROR_CODE_TOO_LARGE: 413,
    Code.ERROR_CODE_DEADLINE_EXCEEDED: 504,
    Code.ERROR_CODE_CANCELLED: 499,
    Code.ERROR_CODE_OVERLOADED: 429,
    Code.ERROR_CODE_UNAVAILABLE: 503,
    Code.ERROR_CODE_INTERNAL: 500,
    Code.ERROR_CODE_BUDGET_EXHAUSTED: 429,
    Code.ERROR_CODE_STREAM_DIVERGED: 500,
}
# The codes that OpenAI has a word of its own for.
_CODES = {
    Code.ERROR_CODE_INVALID_ARGUMENT: None,
    Code.ERROR_CODE_UNKNOWN_MODEL: "model_not_found",
    Code.ERROR_CODE_OVERLOADED: "rate_limit_exceeded",
    Code.ERROR_CODE_BUDGET_EXHAUSTED: "insufficient_quota",
}
_FINISH = {
    response_pb2.FINISH_REASON_STOP: "stop",
    response_pb2.FINISH_REASON_LENGTH: "length",
}


def http_status(error: PenstockError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, NotFound):
        return 404
    return _STATUS.get(error.code, 500)


def error_body(error: PenstockError) -> dict[str, Any]:
    """An error as the official client reads it."""
    status = http_status(error)
    default = Code.Name(error.code).removeprefix("ERROR_CODE_").lower()
    kind = "invalid_request_error" if status < 500 else "server_error"
    if status == 429:
        kind = _CODES.get(error.code) or default
    param = param_of(error.field)
    return {
        "error": {
            # The official client shows the message alone: it names the parameter too.
            "message": f"{param}: {error.message}" if param else error.message,
            "type": kind,
            "param": param or None,
            "code": _CODES.get(error.code, default),
        }
    }


def event(data: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


def model_body(route: route_pb2.Route) -> dict[str, Any]:
    """A model of `/v1/models`."""
    return {
        "id": route.model,
        "object": "model",
        "created": 0,
        "owned_by": "penstock",
        "route_version": route.version,
    }


class Shapes:
    """The bodies and events of one answer.

    Args:
        kind: Chat completions or text completions.
        request_id: The answer's id.
        model: The model's name as the client will see it.
        created_s: Seconds since 1970.
    """

    def __init__(self, kind: Kind, request_id: str, model: str, created_s: int) -> None:
        self._kind = kind
        self._id = request_id
        self._model = model
        self._created_s = created_s

    def whole(self, response: response_pb2.GenerateResponse) -> dict[str, Any]:
        """The body of an answer that is sent at once."""
        choice: dict[str, Any] = {
            "index": 0,
            "logprobs": None,
            "finish_reason": _FINISH.get(response.finish_reason, "stop"),
        }
        if self._kind == "chat":
            choice["message"] = {"role": "assistant", "content": response.text, "refusal": None}
        else:
            choice["text"] = response.text
        return {
            **self._head("chat.completion", response),
            "choices": [choice],
            "usage": _usage(response),
        }

    def first(self) -> dict[str, Any] | None:
        """The event before any text: who speaks. Text completions have none."""
        if self._kind == "text":
            return None
        return self._chunk({"role": "assistant", "content": ""}, None)

    def piece(self, text: str) -> dict[str, Any]:
        """An event with text."""
        return self._chunk({"content": text}, None, text=text)

    def last(self, response: response_pb2.GenerateResponse) -> dict[str, Any]:
        """The event that says why the text ended."""
        return self._chunk({}, _FINISH.get(response.finish_reason, "stop"), response=response)

    def usage(self, response: response_pb2.GenerateResponse) -> dict[str, Any]:
        """The event with the usage, where it was asked for."""
        return {
            **self._head("chat.completion.chunk", response),
            "choices": [],
            "usage": _usage(response),
        }

    def _chunk(
        self,
        delta: dict[str, Any],
        finish: str | None,
        *,
        text: str = "",
        response: response_pb2.GenerateResponse | None = None,
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": finish}
        if self._kind == "chat":
            choice["delta"] = delta
        else:
            choice["text"] = text
        return {**self._head("chat.completion.chunk", response), "choices": [choice]}

    def _head(self, name: str, response: response_pb2.GenerateResponse | None) -> dict[str, Any]:
        head: dict[str, Any] = {
            "id": self._id,
            "object": name if self._kind == "chat" else "text_completion",
            "created": self._created_s,
            "model": self._model,
        }
        if response is not None:
            head["system_fingerprint"] = f"{response.variant}@{response.route_version}"
        return head


def _usage(response: response_pb2.GenerateResponse) -> dict[str, Any]:
    usage = response.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_prompt_tokens},
    }
