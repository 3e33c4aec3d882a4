"""An engine with fixed times and seeded text: for tests, and for measuring what is around it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

from penstock_inference.generation import Completion, Delta, Finish, Generation

__all__ = ["ScriptedEngine"]

_WORDS = ("river", "gate", "flow", "weir", "lock", "spill", "head", "race", "sluice", "turbine")


class ScriptedEngine:
    """Answers each seed with the same words, at a fixed pace.

    Args:
        first_token_s: Seconds to the first token.
        token_s: Seconds to each further one.
        max_tokens: Bound on the tokens of an answer, under the request's own.
    """

    def __init__(self, *, first_token_s: float, token_s: float, max_tokens: int) -> None:
        self._first_token_s = first_token_s
        self._token_s = token_s
        self._max_tokens = max_tokens

    async def start(self) -> None:
        """Nothing to load."""

    async def generate(self, generation: Generation) -> AsyncIterator[Delta | Completion]:
        """See `Engine`. A token is a word with the space before it."""
        wanted = min(self._max_tokens, generation.max_tokens)
        draw = random.Random(generation.seed)  # noqa: S311 - text, not a secret
        words = [f" {draw.choice(_WORDS)}" for _ in range(wanted)]
        started = time.monotonic()
        await asyncio.sleep(self._first_token_s)
        first_token_s = time.monotonic() - started
        if generation.stream:
            for index, word in enumerate(words):
                if index:
                    await asyncio.sleep(self._token_s)
                yield Delta(word, 1)
        elif self._token_s:
            await asyncio.sleep(self._token_s * (wanted - 1))
        prompt = generation.prompt or " ".join(m.content for m in generation.messages)
        yield Completion(
            text="".join(words),
            finish=Finish.LENGTH if wanted == generation.max_tokens else Finish.STOP,
            prompt_tokens=len(prompt.split()),
            completion_tokens=wanted,
            cached_prompt_tokens=0,
            log_probabilities=[-draw.random() for _ in words],
            first_token_s=first_token_s,
        )

    async def check(self) -> None:
        """Always able."""

    async def stop(self) -> None:
        """Nothing to end."""
