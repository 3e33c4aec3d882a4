"""What an upstream's refusals mean: whether to try again, and what to tell whom. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from penstock.errors import Code, InvalidRequest, PenstockError, Unavailable

__all__ = ["Refusal", "refusal_of", "retry_after_s"]

MESSAGE_CHARS = 500
_TRANSIENT = frozenset({408, 409, 425, 429})
# Texts of servers that give no code for it: vLLM, llama.cpp, TGI.
_TOO_LONG = re.compile(
    r"context (length|size|window)|maximum.{0,20}tokens|too (long|many tokens)", re.I
)
_FIELDS = {
    "messages": "messages",
    "prompt": "prompt",
    "input_tokens": "messages",
    "max_tokens": "sampling.max_tokens",
    "max_completion_tokens": "sampling.max_tokens",
    "temperature": "sampling.temperature",
    "top_p": "sampling.top_p",
    "top_k": "sampling.top_k",
    "presence_penalty": "sampling.presence_penalty",
    "frequency_penalty": "sampling.frequency_penalty",
    "stop": "sampling.stop",
    "seed": "sampling.seed",
    "response_format": "response_schema",
}


class Refusal(Exception):
    """An attempt failed.

    Attributes:
        error: What the request ends with if it is not tried again.
        again: Whether another attempt may go better.
        after_s: The upstream's own word on when; None where it said nothing.
        limited: Whether it was too much at once: everything waits then.
    """

    def __init__(
        self,
        error: PenstockError,
        *,
        again: bool = False,
        after_s: float | None = None,
        limited: bool = False,
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.again = again
        self.after_s = after_s
        self.limited = limited


def refusal_of(
    name: str, status: int, body: Any, headers: Mapping[str, str], now: dt.datetime
) -> Refusal:
    """What an HTTP status other than 200 means.

    Args:
        name: The base model, for messages.
        status: The HTTP status.
        body: The answer's JSON; anything where it is none.
        headers: By lower-case names.
        now: The present, UTC, for a date in `retry-after`.
    """
    details = _details(body)
    code = str(details.get("code") or details.get("type") or "")
    if status in {401, 403}:
        # Their texts repeat parts of keys.
        return Refusal(
            Unavailable(
                f"the upstream of {name} refuses penstock's key (HTTP {status}): the operator "
                "has to set a valid one that may use the model",
                retryable=False,
            )
        )
    if status == 429 and code == "insufficient_quota":
        return Refusal(
            Unavailable(f"the upstream of {name} has no quota left for penstock", retryable=False)
        )
    if status in _TRANSIENT or status >= 500:
        after_s = retry_after_s(headers, now)
        return Refusal(
            Unavailable(
                f"the upstream of {name} answers HTTP {status}: try again later",
                code=Code.ERROR_CODE_OVERLOADED if status == 429 else None,
                retry_after_s=after_s,
            ),
            again=True,
            after_s=after_s,
            limited=status == 429,
        )
    return Refusal(_fault(name, status, code, details))


def retry_after_s(headers: Mapping[str, str], now: dt.datetime) -> float | None:
    """Seconds from `retry-after-ms` or `retry-after`, which holds seconds or a date."""
    for header, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(header, "").strip()
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value) / scale
        if value and header == "retry-after":
            try:
                date = parsedate_to_datetime(value)
            except ValueError:
                return None
            # A date without a zone is UTC in HTTP.
            aware = date if date.tzinfo else date.replace(tzinfo=dt.UTC)
            return max(0.0, (aware - now).total_seconds())
    return None


def _fault(name: str, status: int, code: str, details: Mapping[str, Any]) -> PenstockError:
    message = " ".join(str(details.get("message") or "no reason given").split())[:MESSAGE_CHARS]
    if status < 400:
        return Unavailable(
            f"the upstream of {name} is not there (HTTP {status}): the operator has to correct "
            "`base_url` of its entry",
            retryable=False,
        )
    if status == 404:
        return PenstockError(
            f"the upstream of {name} does not know the model (HTTP 404): the operator has to "
            "correct `model`, `adapters` or `base_url` of its entry",
            code=Code.ERROR_CODE_UNKNOWN_MODEL,
            field="model",
        )
    field = _FIELDS.get(str(details.get("param") or ""), "")
    too_long = code == "context_length_exceeded" or bool(_TOO_LONG.search(message))
    return InvalidRequest(
        f"the upstream of {name} refuses the request (HTTP {status}): {message}",
        code=Code.ERROR_CODE_CONTEXT_LENGTH_EXCEEDED if too_long else None,
        field=field or ("messages" if too_long else ""),
    )


def _details(body: Any) -> Mapping[str, Any]:
    """The error's own object: {"error": {...}} as OpenAI has it, or bare as others do."""
    if not isinstance(body, Mapping):
        return {}
    error = body.get("error", body)
    if isinstance(error, Mapping):
        return error
    return {"message": error}
