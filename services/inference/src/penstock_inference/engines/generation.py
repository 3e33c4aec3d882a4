"""What an engine is asked and what it says, and the protocol behind which engines live."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

__all__ = [
    "Adapter",
    "AdapterHost",
    "Completion",
    "Delta",
    "DirectEngine",
    "Engine",
    "Finish",
    "Generation",
    "Message",
    "Passage",
]


class Finish(Enum):
    """Why a generation ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


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
        request_id: Names the work in the engine; another run of the request has another one.
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
        adapter: The adapter that answers, loaded before; empty for the base model alone.
        system_prompt: A system turn before the request's own; empty for none.
        cache_salt: Prefixes that were cached under other salts are never used.
        attempt: 1 unless the work was begun again.
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
    adapter: str = ""
    system_prompt: str = ""
    cache_salt: str = ""
    attempt: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Delta:
    """Text that was added, with the number of tokens it took."""

    text: str
    tokens: int


@dataclasses.dataclass(frozen=True, slots=True)
class Completion:
    """The end of a generation.

    Attributes:
        text: The whole answer, or what there was of it when it was cancelled.
        finish: Why it ended.
        prompt_tokens: As the engine counted them; 0 where it was cancelled before the first token.
        completion_tokens: As the engine counted them, those before a cancellation too.
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


@dataclasses.dataclass(frozen=True, slots=True)
class Adapter:
    """One version of LoRA weights.

    Attributes:
        name: Its own for ever: another version has another name.
        path: The directory that holds it, in PEFT's format.
        digest: Of all its files; tells whether a name came back with other weights.
    """

    name: str
    path: Path
    digest: str


class Engine(Protocol):
    """A model that generates."""

    @property
    def slots(self) -> int:
        """Generations that it runs at a time; more wait inside it. 0: as many as come."""
        ...

    async def start(self) -> None:
        """Loads the model and warms up; may take minutes.

        Raises:
            EngineUnusable: The model cannot be served; says why and what to change.
        """
        ...

    def generate(self, generation: Generation) -> AsyncIterator[Delta | Completion]:
        """Deltas where they are wanted, then one completion.

        Cancelling the iteration ends the work and tells nothing of it; see `cancel`.

        Raises:
            InvalidRequest: The request does not fit this model; names the field.
            EngineLost: The engine is gone, with all its work.
        """
        ...

    def cancel(self, request_id: str) -> None:
        """Ends a generation within a second, by a completion that says CANCELLED and what it used.

        Returns at once. Does nothing for one that is unknown or ended already.
        """
        ...

    async def check(self) -> None:
        """Raises if the engine does not generate any more."""
        ...

    async def stop(self) -> None:
        """Ends the engine and its processes."""
        ...


@runtime_checkable
class DirectEngine(Protocol):
    """An `Engine` that needs no task per generation, and costs less for it."""

    def begin(
        self, generation: Generation, on_event: Callable[[Delta | Completion | Exception], None]
    ) -> None:
        """Like `generate`, but calls back; never from within. Only `cancel` ends it early."""
        ...


@runtime_checkable
class AdapterHost(Protocol):
    """An `Engine` that can answer through adapters, loaded and unloaded while it runs."""

    @property
    def adapters(self) -> Collection[str]:
        """Names of those that work may be sent to."""
        ...

    async def load_adapter(self, adapter: Adapter) -> None:
        """Loads and probes an adapter; does nothing when it is loaded. Work goes on meanwhile.

        Raises:
            AdapterUnusable: It cannot be served; says why and what to change.
            EngineLost: The engine is gone.
        """
        ...

    async def unload_adapter(self, name: str) -> None:
        """Takes no more work for an adapter, at once, and frees what it holds."""
        ...
