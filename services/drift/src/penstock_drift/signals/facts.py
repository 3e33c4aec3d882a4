"""What signals are drawn from: a response, its request, an opinion. Pure.

Texts are looked at up to `MAX_TEXT` characters, so that no single answer holds the others up.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cached_property
from typing import Any

__all__ = [
    "MAX_TEXT",
    "Answer",
    "Facts",
    "Finish",
    "Opinion",
    "Outcome",
    "Passage",
    "Question",
    "parsed",
]

MAX_TEXT = 8000
# Nested deeper than any answer that is meant; the parser's own bound is an error elsewhere.
MAX_JSON = 64 * 1024

_WORD = re.compile(r"\w+")


class Outcome(Enum):
    """How a request ended."""

    ANSWERED = "answered"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Finish(Enum):
    """Why the engine stopped."""

    STOP = "stop"
    LENGTH = "length"
    OTHER = "other"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A terminal response. What is None is not known.

    Attributes:
        request_id: The request that it ends.
        model: The model that was asked.
        variant: The variant that answered.
        route_version: The route that the request was admitted under.
        adapter: The adapter that answered; empty for the base model alone.
        outcome: How it ended.
        labels: The request's own segments.
        text: The answer; empty unless answered.
        finish: Why the engine stopped.
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens of the answer.
        cached_tokens: Of the prompt's, those found in the engine's prefix cache.
        queued_s: From publication to the start of the work, in seconds.
        first_token_s: From the start of the work to the first token, in seconds.
        generation_s: From the start of the work to the last token, in seconds.
        total_s: From publication to the response, in seconds.
        mean_log_probability: Of the tokens drawn, in nats.
        minimum_log_probability: Of the least likely one, in nats.
        attempt: 1 unless the work was run again; 0 where not known.
        cost_usd: Price of its tokens, in US dollars.
    """

    request_id: str
    model: str
    variant: str
    route_version: int = 0
    adapter: str | None = None
    outcome: Outcome = Outcome.ANSWERED
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    text: str = ""
    finish: Finish = Finish.STOP
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    queued_s: float | None = None
    first_token_s: float | None = None
    generation_s: float | None = None
    total_s: float | None = None
    mean_log_probability: float | None = None
    minimum_log_probability: float | None = None
    attempt: int = 0
    cost_usd: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Passage:
    """A passage that the answer should rest on.

    Attributes:
        text: The passage.
        score: The retriever's, in its own unit.
    """

    text: str
    score: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """An admitted request.

    Attributes:
        text: The prompt, or the last turn of the user.
        turns: Turns of the conversation; 1 of a bare prompt.
        passages: What the answer should rest on.
        schema: The JSON Schema that the answer must satisfy; None for none.
    """

    text: str
    turns: int = 1
    passages: Sequence[Passage] = ()
    schema: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Opinion:
    """What somebody thought of a response: one of the three.

    Attributes:
        label: The right answer's class, or the right answer as a JSON object.
        score: In [0, 1], 1 is best.
        correction: The text that the answer should have been.
    """

    label: str | None = None
    score: float | None = None
    correction: str | None = None


class Facts:
    """All that is known of one request, with what several signals need computed once.

    Args:
        answer: Its terminal response.
        question: The request; None where it is not known.
        opinion: What somebody thought of the answer; None where signals of the answer itself are
            drawn.
    """

    def __init__(
        self, answer: Answer, question: Question | None = None, opinion: Opinion | None = None
    ) -> None:
        self.answer = answer
        self.question = question
        self.opinion = opinion

    @property
    def answered(self) -> bool:
        """Whether there is an answer to be looked at."""
        return self.answer.outcome is Outcome.ANSWERED

    @cached_property
    def text(self) -> str | None:
        """The answer, as far as it is looked at; None where there is none, or nothing in it."""
        return (self.answer.text[:MAX_TEXT] or None) if self.answered else None

    @cached_property
    def prompt(self) -> str | None:
        """The question, as far as it is looked at; None where it is not known."""
        return (self.question.text[:MAX_TEXT] or None) if self.question else None

    @cached_property
    def words(self) -> list[str]:
        """The answer's words, without regard to case."""
        return _WORD.findall(self.text.casefold()) if self.text else []

    @cached_property
    def word_set(self) -> frozenset[str]:
        """The answer's distinct words."""
        return frozenset(self.words)

    @cached_property
    def prompt_word_set(self) -> frozenset[str]:
        """The question's distinct words."""
        return frozenset(self.prompt_words)

    @cached_property
    def prompt_words(self) -> list[str]:
        """The question's words, without regard to case."""
        return _WORD.findall(self.prompt.casefold()) if self.prompt else []

    @cached_property
    def passage_words(self) -> frozenset[str]:
        """The words of all passages, without regard to case."""
        if self.question is None:
            return frozenset()
        words: set[str] = set()
        left = 4 * MAX_TEXT
        for passage in self.question.passages:
            words.update(_WORD.findall(passage.text[:left].casefold()))
            left -= len(passage.text)
            if left <= 0:
                break
        return frozenset(words)

    @cached_property
    def json(self) -> Any:
        """The answer as JSON; None where it is none (`null` included)."""
        return parsed(self.answer.text) if self.answered else None


def parsed(text: str) -> Any:
    """A text as JSON; None where it is none, or is longer than anybody reads."""
    stripped = text.strip()
    if not stripped or stripped[0] not in '{["-0123456789tf' or len(stripped) > MAX_JSON:
        return None
    try:
        return json.loads(stripped)
    except (ValueError, RecursionError):
        return None
