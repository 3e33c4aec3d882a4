"""Ticks of sources that have nothing to read: without them nothing would ever be looked at.

A source with traffic tells its ticks by event time, in the transactions of its records. One without
tells them by the clock, outside transactions, so it has to be sure that nothing of its own is on
the way: everything delivered is committed, and the log ends where it has read to, asked on a
connection of its own *after* the clock was read. So an owner that was stopped, and is none any
more, tells nothing that its successor has not done.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence

from penstock.kafka.consumer import Standing
from penstock.kafka.ports import LogError, Publisher
from penstock.kafka.watch import Ends
from penstock.records import Outgoing
from penstock.telemetry import logger
from penstock_drift.extraction import metrics
from penstock_drift.extraction.lines import Lines
from penstock_drift.extraction.steps import Parts

__all__ = ["IdleSources", "Topic"]

log = logger(__name__)

LOOK_S = 1.0


@dataclasses.dataclass(frozen=True)
class Topic:
    """A topic whose partitions are sources.

    Attributes:
        name: Without prefix.
        standing: Where its consumer stands.
        lines: Its partitions' lines.
        ends: Where it ends.
    """

    name: str
    standing: Callable[[], Sequence[Standing]]
    lines: Lines
    ends: Ends


class IdleSources:
    """Tells ticks by the clock.

    Args:
        topics: The sources.
        parts: What steps share.
        publisher: Writes the ticks.
        clock_ms: The present, milliseconds since 1970, UTC.
        timer: Seconds that never go back.
    """

    def __init__(
        self,
        topics: Sequence[Topic],
        parts: Parts,
        publisher: Publisher,
        *,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topics = topics
        self._parts = parts
        self._publisher = publisher
        self._clock_ms = clock_ms
        self._timer = timer
        self._moved: dict[tuple[str, int], tuple[int, float]] = {}

    async def run(self) -> None:
        """Looks every second until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Looks once. Where the log does not answer nothing is told; the next look tells more."""
        for topic in self._topics:
            topic.lines.keep(frozenset(each.partition for each in topic.standing()))
            metrics.JOIN_BYTES.labels(topic.name).set(topic.lines.held_bytes)
            try:
                await self._look_at(topic)
            except LogError as error:
                log.warning("no tick is told for idle sources", topic=topic.name, error=str(error))

    async def _look_at(self, topic: Topic) -> None:
        now_ms = self._clock_ms()
        idle = [each.partition for each in topic.standing() if self._is_idle(topic, each)]
        if not idle:
            return
        ends = await topic.ends.read()
        records: list[Outgoing] = []
        for each in topic.standing():
            number = each.partition
            if number not in idle or not self._is_idle(topic, each):
                continue
            if ends.get(number, 0) > each.read_to:
                continue
            plan, sources = self._parts.plan(), self._parts.sources()
            tick = topic.lines.step(number).clock.idle(now_ms, plan.grid, sources)
            if tick is not None:
                records += self._parts.writer.everywhere(tick)
                metrics.IDLE_TICKS.labels(topic.name).inc()
        if records:
            await self._publisher.publish(records)

    def _is_idle(self, topic: Topic, each: Standing) -> bool:
        name, now_s = (topic.name, each.partition), self._timer()
        mark, since_s = self._moved.get(name, (-1, now_s))
        if mark != each.position or name not in self._moved:
            since_s = now_s
            self._moved[name] = (each.position, now_s)
        if each.held or each.ready or each.halted:
            return False
        step = topic.lines.step(each.partition)
        return now_s - since_s >= step.clock.idle_after_s(self._parts.plan().grid)
