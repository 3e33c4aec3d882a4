"""Sends token chunks as they come, without holding up the answers."""

from __future__ import annotations

import asyncio

from penstock.kafka.ports import LogError, Publisher
from penstock.records import Outgoing
from penstock.telemetry import logger
from penstock_inference import metrics

__all__ = ["TokenSender"]

log = logger(__name__)

QUEUE = 20_000


class TokenSender:
    """A bounded queue before a publisher. A chunk that finds it full is dropped and counted."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._queue: asyncio.Queue[Outgoing] = asyncio.Queue(QUEUE)

    def offer(self, chunk: Outgoing) -> None:
        """Takes a chunk along, or drops it; never waits."""
        try:
            self._queue.put_nowait(chunk)
        except asyncio.QueueFull:
            metrics.CHUNKS_DROPPED.inc()

    async def run(self) -> None:
        """Sends until cancelled, in the order of offers."""
        while True:
            chunks = [await self._queue.get()]
            while not self._queue.empty() and len(chunks) < 500:
                chunks.append(self._queue.get_nowait())
            try:
                await self._publisher.publish(chunks)
            except LogError as error:
                metrics.CHUNKS_DROPPED.inc(len(chunks))
                log.warning("chunks dropped", count=len(chunks), error=str(error))
