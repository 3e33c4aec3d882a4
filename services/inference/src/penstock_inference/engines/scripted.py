"""An engine with fixed times and seeded text: for tests, and for measuring what is around it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import os
import random
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from penstock.telemetry import logger
from penstock_inference.engines.generation import Adapter, Completion, Delta, Finish, Generation
from penstock_inference.engines.recording import Recording

__all__ = ["POISONED_STATUS", "ScriptedEngine"]

log = logger(__name__)

_WORDS = ("river", "gate", "flow", "weir", "lock", "spill", "head", "race", "sluice", "turbine")
_TEXTS = 1 << 16
POISONED_STATUS = 70  # what the process ends with

OnEvent = Callable[[Delta | Completion | Exception], None]


class ScriptedEngine:
    """Answers each seed with the same words, at a fixed pace, a timer per generation.

    The words depend on seed, adapter and system prompt. A token is a word with the space before it.

    Args:
        first_token_s: Seconds to the first token.
        token_s: Seconds to each further one.
        max_tokens: Bound on the tokens of an answer, under the request's own.
        slots: Generations at a time; more wait, by priority. 0: as many as come.
        diverge: Share of the runs begun again that say something else than the first run.
        poison: A prompt that holds this text ends the process, as a crash would. Empty: none does.
        recording: What is answered to prompts that it has; None: each seed's words to all.
    """

    def __init__(
        self,
        *,
        first_token_s: float,
        token_s: float,
        max_tokens: int,
        slots: int = 0,
        diverge: float = 0.0,
        poison: str = "",
        recording: Recording | None = None,
    ) -> None:
        self._first_token_s = first_token_s
        self._token_s = token_s
        self._max_tokens = max_tokens
        self._slots = slots
        self._diverge = diverge
        self._poison = poison
        self._recording = recording
        # Answers are windows of one long text: to draw each word anew would cost more than all
        # the rest of a request.
        draw = random.Random(0)  # noqa: S311 - text, not a secret
        length = _TEXTS + max_tokens
        self._words = [f" {word}" for word in draw.choices(_WORDS, k=length)]
        self._log_probabilities = [-draw.random() for _ in range(length)]
        self._adapters: set[str] = set()
        self._runs: dict[str, _Run] = {}
        self._running = 0
        self._waiting: list[tuple[int, int, _Run]] = []
        self._arrivals = itertools.count()

    @property
    def slots(self) -> int:
        """See `Engine`."""
        return self._slots

    async def start(self) -> None:
        """Nothing to load."""

    async def generate(self, generation: Generation) -> AsyncIterator[Delta | Completion]:
        """See `Engine`."""
        events: asyncio.Queue[Delta | Completion | Exception] = asyncio.Queue()
        self.begin(generation, events.put_nowait)
        try:
            while True:
                event = await events.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, Completion):
                    return
        finally:
            self.cancel(generation.request_id)

    def begin(self, generation: Generation, on_event: OnEvent) -> None:
        """See `DirectEngine`."""
        run = _Run(generation, on_event, min(self._max_tokens, generation.max_tokens))
        self._runs[generation.request_id] = run
        if self._slots and self._running >= self._slots:
            heapq.heappush(self._waiting, (generation.priority, next(self._arrivals), run))
        else:
            self._start(run)

    def cancel(self, request_id: str) -> None:
        """See `Engine`."""
        run = self._runs.get(request_id)
        if run is None:
            return
        if run.timer is None:  # it waits; its place in the queue is passed over
            del self._runs[request_id]
            run.on_event(self._completion(run, 0, Finish.CANCELLED))
            return
        run.timer.cancel()
        self._finish(run, self._observed(run), Finish.CANCELLED)

    async def check(self) -> None:
        """Always able."""

    async def stop(self) -> None:
        """Nothing to end."""

    @property
    def adapters(self) -> Collection[str]:
        """See `AdapterHost`."""
        return self._adapters

    async def load_adapter(self, adapter: Adapter) -> None:
        """See `AdapterHost`: only the name counts."""
        self._adapters.add(adapter.name)

    async def unload_adapter(self, name: str) -> None:
        """See `AdapterHost`."""
        self._adapters.discard(name)

    def _start(self, run: _Run) -> None:
        loop = asyncio.get_running_loop()
        self._running += 1
        run.started = loop.time()
        self._choose(run)
        if self._poison and self._poison in _prompt(run.generation):
            run.timer = loop.call_later(self._first_token_s, _die, run.generation.request_id)
        elif run.generation.stream:
            run.timer = loop.call_later(self._first_token_s, self._say, run)
        else:
            whole_s = self._first_token_s + self._token_s * max(0, run.wanted - 1)
            run.timer = loop.call_later(whole_s, self._end, run)

    def _choose(self, run: _Run) -> None:
        """What the answer's words are."""
        recorded = self._recording.tokens(run.generation) if self._recording else None
        if recorded is None:
            run.words, run.offset = self._words, self._offset(run.generation)
        else:
            run.words, run.offset = recorded, 0
            run.wanted = min(run.wanted, len(recorded))

    def _offset(self, generation: Generation) -> int:
        """Where in the long text an answer begins."""
        drawn = f"{generation.seed}/{generation.adapter}/{generation.system_prompt}"
        if generation.attempt > 1 and self._diverge:
            again = f"{drawn}/{generation.attempt}"
            if zlib.crc32(again.encode()) < self._diverge * 2**32:
                drawn = f"{again}/diverged"
        return zlib.crc32(drawn.encode()) % _TEXTS

    def _say(self, run: _Run) -> None:
        """The next word of a stream; without a pace, all that are left."""
        loop = asyncio.get_running_loop()
        while run.said < run.wanted:
            word = run.words[run.offset + run.said]
            run.said += 1
            run.on_event(Delta(word, 1))
            if self._token_s and run.said < run.wanted:
                run.timer = loop.call_later(self._token_s, self._say, run)
                return
        self._end(run)

    def _end(self, run: _Run) -> None:
        finish = Finish.LENGTH if run.wanted == run.generation.max_tokens else Finish.STOP
        self._finish(run, run.wanted, finish)

    def _observed(self, run: _Run) -> int:
        """Tokens made until now."""
        if run.generation.stream:
            return run.said
        after_first_s = asyncio.get_running_loop().time() - run.started - self._first_token_s
        if after_first_s < 0:
            return 0
        return min(run.wanted, 1 + int(after_first_s / self._token_s)) if self._token_s else 1

    def _finish(self, run: _Run, tokens: int, finish: Finish) -> None:
        del self._runs[run.generation.request_id]
        run.timer = None  # it holds the run: a ring that only the cycle collector would free
        self._running -= 1
        while self._waiting and self._running < self._slots:
            following = heapq.heappop(self._waiting)[2]
            if self._runs.get(following.generation.request_id) is following:
                self._start(following)
        run.on_event(self._completion(run, tokens, finish))

    def _completion(self, run: _Run, tokens: int, finish: Finish) -> Completion:
        first, last = run.offset, run.offset + tokens
        return Completion(
            text="".join(run.words[first:last]),
            finish=finish,
            prompt_tokens=len(_prompt(run.generation).split()) if tokens else 0,
            completion_tokens=tokens,
            cached_prompt_tokens=0,
            log_probabilities=self._log_probabilities[first:last],
            first_token_s=self._first_token_s if tokens else 0.0,
        )


class _Run:
    """One generation under way, or waiting for its turn."""

    __slots__ = ("generation", "offset", "on_event", "said", "started", "timer", "wanted", "words")

    def __init__(self, generation: Generation, on_event: OnEvent, wanted: int) -> None:
        self.generation = generation
        self.on_event = on_event
        self.wanted = wanted
        self.said = 0
        self.words: Sequence[str] = ()
        self.offset = 0
        self.started = 0.0
        self.timer: asyncio.TimerHandle | None = None


def _prompt(generation: Generation) -> str:
    said = generation.prompt or " ".join(m.content for m in generation.messages)
    return f"{generation.system_prompt} {said}" if generation.system_prompt else said


def _die(request_id: str) -> None:
    log.error("poisoned: the process ends", request_id=request_id)
    os._exit(POISONED_STATUS)
