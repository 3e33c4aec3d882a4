"""Reads what is new on the log for a comparison, round by round.

A round reads responses (and shadow copies) at least as far as the answers of all the feedback that
it reads: feedback is written after its answer, so where it ends is asked first. So no opinion has
to wait for its answer, and what a round found depends on the offsets alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from penstock.errors import InvalidRequest
from penstock.kafka.ports import LogError
from penstock.pricing import PriceTable
from penstock.records import Record
from penstock.telemetry import logger
from penstock_retrain.canary.folding import Finding, Folding
from penstock_retrain.canary.journal import Journal, Places
from penstock_retrain.canary.wire import answer_of, copy_of, opinion_of

__all__ = ["CanaryLog", "Observer", "Offsets", "Round", "Windows", "patiently"]

log = logger(__name__)

ANSWERS, COPIES, OPINIONS = "responses", "shadows", "feedback"
LIMIT = 5000
RETRY_S = 2.0

T = TypeVar("T")


# By partition, the offset of the next record.
Offsets = Mapping[int, int]


class Windows(Protocol):
    """Stretches of topics, of what is committed; `penstock_retrain.canary.log_windows` has Kafka's.

    Every call but `close` raises LogError where the log cannot be read now.
    """

    async def ends(self, topic: str) -> dict[int, int]:
        """Where the topic ends now."""
        ...

    async def at(self, topic: str, instant_ms: int) -> dict[int, int]:
        """The first records that are not older than an instant, milliseconds since 1970."""
        ...

    async def read(
        self, topic: str, start: Offsets, end: Offsets, limit: int
    ) -> tuple[list[Record], dict[int, int]]:
        """Records from `start` until before `end`, `limit` at most, and where to go on."""
        ...

    async def close(self) -> None:
        """Disconnects."""
        ...


@dataclasses.dataclass(frozen=True)
class CanaryLog:
    """Where answers and opinions are.

    Attributes:
        connect: Gives a reader of the log.
        id_of: What topics are called together; see `penstock.kafka.log_id`.
        topic: A topic's full name, by its name.
        prices: What tokens cost; None where nobody knows.
        clock_ms: Milliseconds since 1970.
    """

    connect: Callable[[], Windows]
    id_of: Callable[[Sequence[str]], Awaitable[str]]
    topic: Callable[[str], str]
    prices: PriceTable | None = None
    clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000

    async def id(self) -> str:
        """The log's id.

        Raises:
            LogError: Kafka does not say.
        """
        return await self.id_of([self.topic(name) for name in (ANSWERS, COPIES, OPINIONS)])


@dataclasses.dataclass(frozen=True)
class Round:
    """What was new.

    Attributes:
        findings: In their order.
        positions: Where to go on.
        watermark_ms: Everything that was on the log then has been folded; None where more waits.
        answered: Answers of the candidate among it.
        trimmed: Whether the oldest answers were let go of after it.
    """

    findings: list[Finding]
    positions: Places
    watermark_ms: int | None
    answered: int
    trimmed: bool = False


class Observer:
    """Reads for one comparison.

    Args:
        where: Where answers and opinions are.
        model: Whose.
        candidate: The candidate's variant.
        folding: Joins them.
        copies: Whether shadow copies are read.
    """

    def __init__(
        self, where: CanaryLog, model: str, candidate: str, folding: Folding, *, copies: bool
    ) -> None:
        self._where = where
        self._model = model
        self._candidate = candidate
        self._folding = folding
        self._answers = (ANSWERS, COPIES) if copies else (ANSWERS,)
        self._windows = where.connect()
        self._answered = 0

    async def close(self) -> None:
        """Disconnects."""
        await self._windows.close()

    async def here(self) -> dict[str, dict[int, int]]:
        """Where the topics end now."""
        return {
            name: await self._windows.ends(self._where.topic(name))
            for name in (*self._answers, OPINIONS)
        }

    async def at(self, instant_ms: int) -> dict[str, dict[int, int]]:
        """Where the topics' records of an instant are."""
        return {
            name: await self._windows.at(self._where.topic(name), instant_ms)
            for name in (*self._answers, OPINIONS)
        }

    async def recall(self, journal: Journal) -> None:
        """Folds again what was read before, and lets go of what comes of it.

        Raises:
            LogError: It cannot be read now.
        """
        self._folding.begin(journal.version)
        start = journal.origins
        for end in journal.trims:
            await self._again(start, end)
            self._folding.trim()
            start = end
        await self._again(start, journal.positions)
        for _ in self._folding.settled(journal.watermark_ms):
            pass

    async def _again(self, start: Places, end: Places) -> None:
        """Folds a stretch of the log, answers first, and lets go of what comes of it."""
        for name in (*self._answers, OPINIONS):
            here, whole = start[name], False
            while not whole:
                records, here = await self._windows.read(
                    self._where.topic(name), here, end[name], LIMIT
                )
                for _ in self._fold(name, records):
                    pass
                whole = _reached(here, end[name])

    async def round(self, positions: Places) -> Round:
        """Reads what is new.

        Raises:
            LogError: It cannot be read now; nothing was folded.
        """
        now_ms = self._where.clock_ms()
        said = await self._windows.ends(self._where.topic(OPINIONS))
        read: list[tuple[str, list[Record]]] = []
        after, whole = dict(positions), True
        for name in self._answers:
            topic = self._where.topic(name)
            end = await self._windows.ends(topic)
            records, after[name] = await self._windows.read(topic, positions[name], end, LIMIT)
            read.append((name, records))
            whole = whole and _reached(after[name], end)
        if whole:
            topic = self._where.topic(OPINIONS)
            records, after[OPINIONS] = await self._windows.read(
                topic, positions[OPINIONS], said, LIMIT
            )
            read.append((OPINIONS, records))
            whole = _reached(after[OPINIONS], said)
        # From here on nothing waits: what was read is folded, all of it.
        self._answered = 0
        findings = [found for name, records in read for found in self._fold(name, records)]
        if whole:
            findings += self._folding.settled(now_ms)
        trimmed = self._folding.full
        if trimmed:
            self._folding.trim()
        return Round(findings, after, now_ms if whole else None, self._answered, trimmed)

    def _fold(self, name: str, records: Iterable[Record]) -> Iterator[Finding]:
        for record in _as_they_came(records):
            try:
                yield from self._one(name, record)
            except InvalidRequest:
                log.warning("a record cannot be read", **record.where())

    def _one(self, name: str, record: Record) -> Iterator[Finding]:
        if name == OPINIONS:
            yield from self._folding.said(opinion_of(record))
        elif name == COPIES:
            copy = copy_of(record, self._model)
            if copy is not None:
                self._answered += copy.answered and copy.variant == self._candidate
                yield from self._folding.copied(copy)
        else:
            answer = answer_of(record, self._model, self._where.prices)
            if answer is not None:
                self._answered += answer.answered and answer.variant == self._candidate
                yield from self._folding.answered(answer)


def _as_they_came(records: Iterable[Record]) -> list[Record]:
    """By time over all partitions, which were read one after another; by offset in each."""
    reached: dict[int, int] = {}
    placed = []
    for record in records:
        number = record.partition.number
        reached[number] = max(reached.get(number, 0), record.timestamp_ms)
        placed.append((reached[number], number, record.offset, record))
    placed.sort(key=lambda each: each[:3])
    return [each[3] for each in placed]


def _reached(positions: Mapping[int, int], end: Mapping[int, int]) -> bool:
    return all(positions.get(number, 0) >= offset for number, offset in end.items())


async def patiently(call: Callable[[], Awaitable[T]], said: Callable[[str], None]) -> T:
    """What a call to Kafka returns, however long that is away; `said` is told why it takes long."""
    while True:
        try:
            return await call()
        except LogError as error:
            log.warning("a canary waits for Kafka", error=str(error))
            said("waiting for Kafka")
        await asyncio.sleep(RETRY_S)
