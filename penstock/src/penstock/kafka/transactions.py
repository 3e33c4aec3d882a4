"""Writes records in transactions under one name: all of a call's or none, one writer at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import IllegalOperation, KafkaError, ProducerFenced

from penstock.kafka.broker import MAX_RECORD_BYTES, send_all
from penstock.kafka.clients import stop_producer
from penstock.kafka.ports import Fenced, LogError
from penstock.records import Outgoing

__all__ = ["TransactionalPublisher"]

TRANSACTION_MS = 10_000
START_S = 30.0


class TransactionalPublisher:
    """A producer that owns a transactional id.

    Starting ends what an earlier owner of the id left open, and fences it: what is read from the
    log after `start` is all that it ever wrote.

    Args:
        bootstrap: Kafka's bootstrap servers.
        client_id: Names the client in the broker's logs.
        transactional_id: The name that one writer at a time has.
        transaction_ms: How long a transaction may take; the broker aborts it then.
    """

    def __init__(
        self,
        bootstrap: str,
        client_id: str,
        transactional_id: str,
        *,
        transaction_ms: int = TRANSACTION_MS,
    ) -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._id = transactional_id
        self._transaction_ms = transaction_ms
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connects and takes the id.

        Raises:
            LogError: Kafka cannot be reached, or did not give the id in time.
        """
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            transactional_id=self._id,
            transaction_timeout_ms=self._transaction_ms,
            acks="all",
            max_request_size=MAX_RECORD_BYTES,
        )
        try:
            async with asyncio.timeout(START_S):
                await producer.start()
        except (KafkaError, TimeoutError) as error:
            await stop_producer(producer)
            raise LogError(f"Kafka at {self._bootstrap} cannot be reached: {error!r}") from error
        self._producer = producer

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Writes the records in one transaction; returns when it is committed.

        Raises:
            Fenced: Another writer took the id over; nothing was written.
            LogError: It is not known whether it was written.
        """
        if self._producer is None:
            raise LogError("the publisher was not started")
        try:
            async with self._producer.transaction():
                await send_all(self._producer, records)
        except ProducerFenced as error:
            raise Fenced(f"another writer took {self._id} over; nothing was written") from error
        except (KafkaError, IllegalOperation, AssertionError) as error:
            raise LogError(f"the transaction of {self._id} failed: {error!r}") from error

    async def stop(self) -> None:
        """Disconnects."""
        if self._producer is not None:
            await stop_producer(self._producer)
            self._producer = None
