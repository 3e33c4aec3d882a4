"""What is collected, row by row; times are milliseconds since 1970, UTC. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

__all__ = ["CUT_OFF", "FeedbackRow", "Message", "Passage", "RequestRow", "ResponseRow", "Row"]

# How an answer ended that had to be short.
CUT_OFF = "length"


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: system, user, assistant or tool.
        content: What it says.
    """

    role: str
    content: str


@dataclasses.dataclass(frozen=True, slots=True)
class Passage:
    """A passage that the answer should rest on.

    Attributes:
        text: The passage.
        name: Its id, or where it comes from.
    """

    text: str
    name: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class RequestRow:
    """An admitted request.

    Attributes:
        partition: Of `admitted`.
        offset: Its offset there.
        time_ms: The log's time.
        key: The record's key, as text; the ordering key, or the request's id.
        request_id: Its id.
        tenant: Whose it is.
        model: The route that was asked.
        variant: The variant that answers.
        route_version: The route's version.
        purpose: Empty of a client's; else replay, shadow or probe.
        ordering_key: What it shares with others that are one conversation; may be empty.
        labels: Segments for monitoring.
        messages: The conversation; empty where `prompt` is set.
        prompt: Text to continue.
        passages: What the answer should rest on.
        schema: The JSON Schema of the answer, as JSON; empty for none that JSON could hold.
    """

    partition: int
    offset: int
    time_ms: int
    key: str
    request_id: str
    tenant: str
    model: str
    variant: str
    route_version: int
    purpose: str
    ordering_key: str
    labels: Mapping[str, str]
    messages: Sequence[Message]
    prompt: str
    passages: Sequence[Passage]
    schema: str


@dataclasses.dataclass(frozen=True, slots=True)
class ResponseRow:
    """A terminal response.

    Attributes:
        partition: Of `responses`.
        offset: Its offset there.
        time_ms: The log's time.
        key: The record's key, as text.
        request_id: The request that it ends.
        tenant: Whose it is.
        outcome: answered, rejected, expired, cancelled or failed.
        text: The answer.
        finish: stop, length, aborted, or empty.
        model: The route that was asked.
        variant: The variant that answered.
        adapter: Its adapter; empty for none, or where it is not known.
        route_version: The route's version.
        purpose: Empty of a client's; else replay, shadow or probe.
        cached: Answered from the cache.
        labels: Segments for monitoring.
        prompt_tokens: Tokens of the prompt; 0 where not known.
        completion_tokens: Tokens of the answer.
        total_s: From publication to the response, in seconds; 0 where not known.
    """

    partition: int
    offset: int
    time_ms: int
    key: str
    request_id: str
    tenant: str
    outcome: str
    text: str
    finish: str
    model: str
    variant: str
    adapter: str
    route_version: int
    purpose: str
    cached: bool
    labels: Mapping[str, str]
    prompt_tokens: int
    completion_tokens: int
    total_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class FeedbackRow:
    """What somebody thought of a response; what is None was not said.

    Attributes:
        partition: Of `feedback`.
        offset: Its offset there.
        time_ms: The log's time.
        key: The record's key, as text.
        feedback_id: The same for a repeat.
        request_id: The request whose response it is about.
        tenant: Whose it is.
        label: The right answer's class, or the right answer as a JSON object.
        score: In [0, 1], 1 is best.
        correction: The text that the answer should have been.
        business_value: What the answer was worth, in `value_unit`.
        value_unit: Its unit.
    """

    partition: int
    offset: int
    time_ms: int
    key: str
    feedback_id: str
    request_id: str
    tenant: str
    label: str | None = None
    score: float | None = None
    correction: str | None = None
    business_value: float | None = None
    value_unit: str = ""


Row = RequestRow | ResponseRow | FeedbackRow
