"""Ends a consumer's process when the consumer stands still without an error (aiokafka#1154)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, Self

from penstock.kafka.consumer import Standing, TransactionalConsumer
from penstock.kafka.ports import LogError
from penstock.telemetry import logger
from penstock.watchdog import Look, Watch

__all__ = ["ConsumerWatch", "Ends", "StoodStill", "looks_of"]

log = logger(__name__)

LIMIT_S = 60.0
LOOK_S = 5.0


class StoodStill(Exception):
    """A consumer has work and makes no progress: only a new one will."""


class Ends(Protocol):
    """Where a topic ends, as others than the watched consumer see it."""

    async def read(self) -> Mapping[int, int]:
        """The offset after the last record that readers may see, by partition.

        Raises:
            LogError: The broker did not answer.
        """
        ...

    async def stop(self) -> None:
        """Disconnects; the next question connects anew."""
        ...


class ConsumerWatch:
    """Watches one consumer.

    Args:
        standing: Where it stands, by its own account.
        settling: Whether it still has to get its partitions, where that can take for ever.
        ends: Asked by other connections: a client that fetches nothing hears of nothing new.
        limit_s: How long it may stand still.
    """

    def __init__(
        self,
        standing: Callable[[], Sequence[Standing]],
        ends: Ends,
        *,
        settling: Callable[[], Look] | None = None,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._standing = standing
        self._settling = settling
        self._ends = ends
        self._watch = Watch(limit_s)

    @classmethod
    def of(cls, consumer: TransactionalConsumer, ends: Ends, *, limit_s: float = LIMIT_S) -> Self:
        """Watches a transactional consumer, and whether it gets its partitions."""
        return cls(consumer.standing, ends, settling=consumer.settling, limit_s=limit_s)

    async def run(self) -> None:
        """Looks every few seconds until cancelled, then lets go of its connections.

        Raises:
            StoodStill: The consumer must be replaced.
        """
        try:
            while True:
                await self.look(time.monotonic())
                await asyncio.sleep(LOOK_S)
        finally:
            await self._ends.stop()

    async def look(self, now_s: float) -> None:
        """Looks once; see `run`. Where the log does not answer, nothing is held against anybody."""
        try:
            ends = await self._ends.read()
        except LogError as error:
            log.warning("the log's ends are not known", error=str(error))
            return
        looks = looks_of(self._standing(), ends)
        if self._settling is not None:
            looks["getting partitions"] = self._settling()
        stalled = self._watch.look(looks, now_s)
        if stalled:
            raise StoodStill("; ".join(str(each) for each in stalled))


def looks_of(standing: Sequence[Standing], ends: Mapping[int, int]) -> dict[str, Look]:
    """What to watch of a consumer: reading and committing, partition by partition.

    Work in hand is not watched here: it may rightly take as long as its deadline, and another
    consumer would not end it sooner.
    """
    looks = {}
    for each in standing:
        unread = ends.get(each.partition, 0) > each.read_to
        looks[f"reading of partition {each.partition}"] = Look(
            unread and each.flowing, each.read_to
        )
        looks[f"committing of partition {each.partition}"] = Look(each.ready > 0, each.committed)
    return looks
