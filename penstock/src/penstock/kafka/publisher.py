"""Writes records outside transactions: the doors' way onto the log, and best-effort tokens.

An idempotent producer numbers what it writes to a partition. A batch that the broker refused for
good leaves a gap in these numbers, and the broker refuses everything after it; aiokafka's producer
does not recover from that, nor from an end of its sending task. The publisher replaces it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    UnknownTopicOrPartitionError,
)

from penstock.kafka.broker import MAX_RECORD_BYTES
from penstock.kafka.clients import stop_producer
from penstock.kafka.ports import LogError
from penstock.records import Outgoing
from penstock.telemetry import logger

__all__ = ["KafkaPublisher"]

log = logger(__name__)

CONNECT_S = 15.0
RENEW_S = (0.1, 5.0)  # first and longest wait between attempts to connect anew
WAIT_S = 10.0  # how long a write waits for a new producer
STALLED_S = 10.0
REQUEST_MS = 10_000
# Refused before anything was numbered: the producer goes on.
_REFUSED = (MessageSizeTooLargeError, UnknownTopicOrPartitionError, KafkaTimeoutError)


class KafkaPublisher:
    """An idempotent producer that waits for all replicas in sync, and its successors.

    Args:
        bootstrap: Kafka's bootstrap servers.
        client_id: Names the client in the broker's logs.
        linger_ms: How long a record may wait for company.
        timer: A clock that never goes back, in seconds.
    """

    def __init__(
        self,
        bootstrap: str,
        client_id: str,
        *,
        linger_ms: int = 0,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._linger_ms = linger_ms
        self._timer = timer
        self._link: _Link | None = None
        self._linked = asyncio.Event()
        self._renewal: asyncio.Task[None] | None = None
        self._stopping: set[asyncio.Task[None]] = set()
        self._started = False
        # Writes under way by when they began, oldest first; and when one last succeeded.
        self._pending: dict[object, float] = {}
        self._written_at = 0.0

    @property
    def can_write(self) -> bool:
        """Whether writes go through, as far as those under way tell."""
        if self._link is None:
            return False
        oldest = next(iter(self._pending.values()), None)
        return oldest is None or self._timer() - max(oldest, self._written_at) < STALLED_S

    async def start(self) -> None:
        """Connects.

        Raises:
            LogError: Kafka cannot be reached.
        """
        self._link = await self._connect()
        self._linked.set()
        self._started = True

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """See `penstock.kafka.ports.Publisher`."""
        if not self._started:
            raise LogError("the publisher was not started")
        link = self._link or await self._next_link()
        write = object()
        self._pending[write] = self._timer()
        try:
            await link.write(records)
        except KafkaError as error:
            if link.broken:
                self._replace(link, error)
            raise LogError(f"writing failed: {error!r}") from error
        finally:
            del self._pending[write]
        self._written_at = self._timer()

    async def stop(self) -> None:
        """Sends what is queued and disconnects."""
        self._started = False
        if self._renewal is not None:
            self._renewal.cancel()
        link, self._link = self._link, None
        await asyncio.gather(*self._stopping, *([link.close()] if link else []))

    async def _next_link(self) -> _Link:
        try:
            async with asyncio.timeout(WAIT_S):
                while self._link is None:
                    await self._linked.wait()
        except TimeoutError:
            raise LogError(f"there was no connection to write by for {WAIT_S:g} s") from None
        return self._link

    def _replace(self, link: _Link, error: Exception) -> None:
        if link is not self._link:  # somebody else's write failed on it too
            return
        log.warning("the producer is replaced", client=self._client_id, error=repr(error))
        self._link = None
        self._linked.clear()
        closing = asyncio.create_task(link.close())
        self._stopping.add(closing)
        closing.add_done_callback(self._stopping.discard)
        self._renewal = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        wait_s = RENEW_S[0]
        while True:
            try:
                self._link = await self._connect()
            except LogError as error:
                log.warning("no new producer yet", client=self._client_id, error=str(error))
            else:
                self._linked.set()
                return
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RENEW_S[1])

    async def _connect(self) -> _Link:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            enable_idempotence=True,
            acks="all",
            linger_ms=self._linger_ms,
            max_batch_size=256 * 1024,
            max_request_size=MAX_RECORD_BYTES,
            request_timeout_ms=REQUEST_MS,
        )
        try:
            # It waits for a producer id for as long as no broker gives one.
            async with asyncio.timeout(CONNECT_S):
                await producer.start()
        except BaseException as error:
            await stop_producer(producer)
            if isinstance(error, KafkaError | TimeoutError):
                reason = f"Kafka at {self._bootstrap} cannot be reached: {error!r}"
                raise LogError(reason) from error
            raise
        return _Link(producer)


class _Link:
    """One producer, until something was refused for good.

    Attributes:
        broken: Whether the producer cannot go on.
    """

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.broken = False

    async def write(self, records: Sequence[Outgoing]) -> None:
        """Returns when each record is acknowledged.

        Raises:
            KafkaError: Some were not; they may still arrive.
        """
        try:
            delivered = asyncio.gather(*[await self._send(record) for record in records])
            delivered.add_done_callback(_heard)
        except _REFUSED:
            raise
        except KafkaError:
            self.broken = True
            raise
        await asyncio.wait((delivered, self._closed), return_when=asyncio.FIRST_COMPLETED)
        if not delivered.done():
            raise KafkaError("the producer was closed before the record was acknowledged")
        try:
            delivered.result()
        except KafkaError:
            self.broken = True
            raise

    async def _send(self, record: Outgoing) -> asyncio.Future[object]:
        sent: asyncio.Future[object] = await self._producer.send(
            record.topic,
            value=record.value,
            key=record.key,
            partition=record.partition,
            headers=list(record.headers),
        )
        sent.add_done_callback(_heard)
        return sent

    async def close(self) -> None:
        """Sends what is queued, within a bound, and disconnects; writes under way end with it."""
        try:
            await stop_producer(self._producer)
        finally:
            if not self._closed.done():
                self._closed.set_result(None)


def _heard(future: asyncio.Future[Any]) -> None:
    # Whoever waited may have left, or another record failed first.
    if not future.cancelled():
        future.exception()
