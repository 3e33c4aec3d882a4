"""Callers who wait for requests to end, by request id."""

from __future__ import annotations

import asyncio
import dataclasses
import zlib
from collections.abc import Callable

from penstock.errors import Code, PenstockError
from penstock.v1 import response_pb2
from penstock_ingest import metrics
from penstock_ingest.errors import DeadlinePassed, Diverged, Overloaded
from penstock_ingest.waiting.transcript import Transcript

__all__ = ["Caller", "Piece", "Waiters"]


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """Text that a caller has not had yet.

    Attributes:
        text: The text.
        attempt: The attempt that drew its end.
        index: How many tokens were sent before.
        tokens: How many it holds, as far as known.
        crc32: CRC-32 of all text up to its end, in UTF-8.
    """

    text: str
    attempt: int
    index: int
    tokens: int
    crc32: int


class _Wait:
    """One request: its text so far, its end, and those who wait for it."""

    def __init__(self) -> None:
        self.transcript = Transcript()
        self.response: response_pb2.GenerateResponse | None = None
        self.error: PenstockError | None = None  # it never got onto the log
        self.diverged: Diverged | None = None  # its text cannot go on; its response can come
        self.callers = 0
        self.on_abandoned: Callable[[], None] | None = None
        self._changed = asyncio.Event()

    @property
    def ended(self) -> bool:
        return self.response is not None or self.error is not None

    @property
    def fault(self) -> PenstockError | None:
        """Why there is no more text."""
        return self.error or self.diverged

    def notify(self) -> None:
        # One event for each change: whoever waits on the old one wakes, whoever comes later
        # waits on the new one.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def change(self) -> None:
        await self._changed.wait()


class Caller:
    """One caller's view of a request; use as a context manager, so that leaving is noticed.

    Args:
        request_id: The request's id.
        model: The request's model.
        wait: What it waits for.
        left_s: How long it waits at most, in seconds from now.
        leave: Called once when it leaves.
    """

    def __init__(
        self,
        request_id: str,
        model: str,
        wait: _Wait,
        left_s: float,
        leave: Callable[[], None],
    ) -> None:
        self.request_id = request_id
        self.model = model
        self._wait = wait
        self._until = asyncio.get_running_loop().time() + left_s
        self._leave: Callable[[], None] | None = leave
        self._sent = 0
        self._sent_tokens = 0
        self._crc = 0
        self._cancelled = False

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()

    def opened(self, on_abandoned: Callable[[], None]) -> None:
        """The request is there for those who wait.

        Args:
            on_abandoned: Called when the last of them leaves before the end.
        """
        self._wait.on_abandoned = on_abandoned

    def cancel(self) -> None:
        """Ends this caller's waiting with ERROR_CODE_CANCELLED; others wait on."""
        self._cancelled = True
        self._wait.notify()

    async def response(self) -> response_pb2.GenerateResponse:
        """The terminal response, whatever its outcome.

        Raises:
            DeadlinePassed: There was none in time.
            PenstockError: The wait was cancelled, or the request never got onto the log.
        """
        while self._wait.response is None:
            await self._change(self._wait.error)
        return self._wait.response

    async def next(self) -> Piece | response_pb2.GenerateResponse:
        """The next text; after all of it, the terminal response.

        Text that came together is handed out together: a slow caller holds nothing up.

        Raises:
            Diverged: The text cannot go on.
            DeadlinePassed: There was no end in time.
            PenstockError: The wait was cancelled, or the request never got onto the log.
        """
        while True:
            transcript = self._wait.transcript
            if len(transcript.text) > self._sent:
                return self._piece(transcript)
            if self._wait.fault is None and self._wait.response is not None:
                return self._wait.response
            await self._change(self._wait.fault)

    def _piece(self, transcript: Transcript) -> Piece:
        text = transcript.text[self._sent :]
        self._crc = zlib.crc32(text.encode(), self._crc)
        piece = Piece(
            text=text,
            attempt=max(1, transcript.attempt),
            index=self._sent_tokens,
            tokens=transcript.tokens - self._sent_tokens,
            crc32=self._crc,
        )
        self._sent, self._sent_tokens = len(transcript.text), transcript.tokens
        return piece

    async def _change(self, fault: PenstockError | None) -> None:
        if fault is not None:
            raise fault
        if self._cancelled:
            raise PenstockError("the call was cancelled", code=Code.ERROR_CODE_CANCELLED)
        try:
            async with asyncio.timeout_at(self._until):
                await self._wait.change()
        except TimeoutError:
            raise DeadlinePassed(
                f"no response in time; ask for {self.request_id} later, or allow more time"
            ) from None


class Waiters:
    """Everybody who waits at this instance.

    Args:
        max_waiting: Requests that may be waited for at a time.
    """

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._waits: dict[str, _Wait] = {}

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._waits

    def __len__(self) -> int:
        return len(self._waits)

    def attach(self, request_id: str, left_s: float, *, model: str = "") -> Caller:
        """A caller of a request, next to those who wait for it already.

        Raises:
            Overloaded: Too many requests are waited for.
        """
        wait = self._waits.get(request_id)
        if wait is None:
            if len(self._waits) >= self._max_waiting:
                raise Overloaded(
                    f"{self._max_waiting} requests are waited for here; try again in a moment"
                )
            wait = self._waits[request_id] = _Wait()
            metrics.WAITING.set(len(self._waits))
        wait.callers += 1
        return Caller(request_id, model, wait, left_s, lambda: self._left(request_id, wait))

    def keep(self, request_id: str) -> None:
        """The request is there for others too: it goes on when those who wait here leave."""
        wait = self._waits.get(request_id)
        if wait is not None:
            wait.on_abandoned = None

    @staticmethod
    def ended(response: response_pb2.GenerateResponse) -> Caller:
        """A caller of a request that has ended already."""
        wait = _Wait()
        _end(wait, response)
        return Caller(response.request_id, response.model, wait, 0.0, lambda: None)

    def chunk(self, chunk: response_pb2.TokenChunk) -> None:
        """Hands text to those who wait for it, if anybody does."""
        wait = self._waits.get(chunk.request_id)
        if wait is None or wait.ended or wait.diverged:
            return
        broken = wait.transcript.broken
        try:
            grew = wait.transcript.add(chunk)
        except Diverged as error:
            metrics.STREAM_FAULTS.labels("diverged").inc()
            wait.diverged = error
            grew = True
        if wait.transcript.broken and not broken:
            metrics.STREAM_FAULTS.labels("lost").inc()
        if grew:
            wait.notify()

    def end(self, response: response_pb2.GenerateResponse) -> None:
        """Hands the terminal response to those who wait for it; a repeat does nothing."""
        wait = self._waits.pop(response.request_id, None)
        if wait is None:
            return
        metrics.WAITING.set(len(self._waits))
        _end(wait, response)

    def fail(self, request_id: str, error: PenstockError) -> None:
        """Ends the waiting for a request that never got onto the log."""
        wait = self._waits.pop(request_id, None)
        if wait is None:
            return
        metrics.WAITING.set(len(self._waits))
        wait.error = error
        wait.notify()

    def _left(self, request_id: str, wait: _Wait) -> None:
        wait.callers -= 1
        if wait.callers == 0 and self._waits.get(request_id) is wait:
            del self._waits[request_id]
            metrics.WAITING.set(len(self._waits))
            # A stream that diverged has ended for its callers; its response can still be fetched.
            if wait.on_abandoned is not None and wait.fault is None:
                wait.on_abandoned()


def _end(wait: _Wait, response: response_pb2.GenerateResponse) -> None:
    wait.response = response
    if wait.fault is None and response.outcome == response_pb2.OUTCOME_ANSWERED:
        try:
            wait.transcript.finish(response.text, response.usage.completion_tokens)
        except Diverged as error:
            metrics.STREAM_FAULTS.labels("diverged").inc()
            wait.diverged = error
    wait.notify()
