"""What an engine is asked and what it says, and the protocol behind which engines live."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

__all__ = ["Completion", "Delta", "Engine", "Finish", "Generation", "Message", "Passage"]


class Finish(Enum):
    """Why a generation ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """A turn of a conversation."""

    role: str
    content: str


@dataclasses.dataclass(frozen=True, slots=True)
class Passage:
    """A text that the answer should rest on."""

    name: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Generation:
    """One piece of work for an engine, with nothing left to decide.

    Attributes:
        request_id: Names the work in the engine.
        messages: The conversation; empty where there is a prompt.
        prompt: The text to continue; empty where there are messages.
        passages: Rendered before the last user turn.
        max_tokens: Upper bound of the answer, in tokens.
        temperature: 0 is greedy.
        top_p: In (0, 1].
        top_k: 0 considers all tokens.
        presence_penalty: In [-2, 2].
        frequency_penalty: In [-2, 2].
        stop: Generation ends before the first that appears.
        seed: Draws the same tokens again in a re-run on the same engine state.
        schema: A JSON Schema that the answer satisfies, or None.
        priority: Lower is sooner.
        stream: Whether deltas are wanted; without them the engine does less.
    """

    request_id: str
    messages: Sequence[Message]
    prompt: str
    passages: Sequence[Passage]
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    presence_penalty: float
    frequency_penalty: float
    stop: Sequence[str]
    seed: int
    schema: Mapping[str, Any] | None
    priority: int
    stream: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Delta:
    """Text that was added, with the number of tokens it took."""

    text: str
    tokens: int


@dataclasses.dataclass(frozen=True, slots=True)
class Completion:
    """The end of a generation.

    Attributes:
        text: The whole answer.
        finish: Why it ended.
        prompt_tokens: As the engine counted them.
        completion_tokens: As the engine counted them.
        cached_prompt_tokens: Of the prompt's, those found in the prefix cache.
        log_probabilities: Of the drawn tokens, in nats; empty where the engine has none.
        first_token_s: From the start of the work to the first token.
    """

    text: str
    finish: Finish
    prompt_tokens: int
    completion_tokens: int
    cached_prompt_tokens: int
    log_probabilities: Sequence[float]
    first_token_s: float


class Engine(Protocol):
    """A model that generates. Cancelling the iteration of `generate` ends the work."""

    async def start(self) -> None:
        """Loads the model and warms up; may take minutes.

        Raises:
            EngineUnusable: The model cannot be served; says why and what to change.
        """
        ...

    def generate(self, generation: Generation) -> AsyncIterator[Delta | Completion]:
        """Deltas where they are wanted, then one completion.

        Raises:
            InvalidRequest: The request does not fit this model; names the field.
        """
        ...

    async def check(self) -> None:
        """Raises if the engine does not generate any more."""
        ...

    async def stop(self) -> None:
        """Ends the engine and its processes."""
        ...
