"""Writes records outside transactions: the doors' way onto the log, and best-effort tokens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from penstock.kafka.broker import MAX_RECORD_BYTES, send_all
from penstock.kafka.ports import LogError
from penstock.records import Outgoing

__all__ = ["KafkaPublisher"]

STOP_S = 10.0


class KafkaPublisher:
    """An idempotent producer that waits for all replicas in sync.

    Args:
        bootstrap: Kafka's bootstrap servers.
        client_id: Names the client in the broker's logs.
        linger_ms: How long a record may wait for company.
    """

    def __init__(self, bootstrap: str, client_id: str, *, linger_ms: int = 0) -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._linger_ms = linger_ms
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connects.

        Raises:
            LogError: Kafka cannot be reached.
        """
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            enable_idempotence=True,
            acks="all",
            linger_ms=self._linger_ms,
            max_batch_size=256 * 1024,
            max_request_size=MAX_RECORD_BYTES,
            request_timeout_ms=20_000,
        )
        try:
            await producer.start()
        except KafkaError as error:
            await producer.stop()
            raise LogError(f"Kafka at {self._bootstrap} cannot be reached: {error}") from error
        self._producer = producer

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """See `penstock.kafka.ports.Publisher`."""
        if self._producer is None:
            raise LogError("the publisher was not started")
        try:
            await send_all(self._producer, records)
        except KafkaError as error:
            raise LogError(f"writing failed: {error!r}") from error

    async def stop(self) -> None:
        """Sends what is queued and disconnects."""
        if self._producer is not None:
            # It flushes first, which takes for ever while the broker is away.
            with contextlib.suppress(TimeoutError, KafkaError):
                await asyncio.wait_for(self._producer.stop(), STOP_S)
            self._producer = None
