"""aiokafka's consumers, whose own tasks may have ended: noticed, and no hindrance to stopping."""

from __future__ import annotations

import contextlib

from aiokafka import AIOKafkaConsumer

from penstock.kafka.ports import LogError
from penstock.telemetry import logger

__all__ = ["check_fetching", "stop_consumer"]

log = logger(__name__)


def check_fetching(consumer: AIOKafkaConsumer) -> None:
    """Raises where nothing is fetched any more, though polls go on without an error.

    Raises:
        LogError: The task that fetches has ended: only another consumer will read on.
    """
    if consumer._fetcher is not None and consumer._fetcher._fetch_task.done():
        raise LogError("aiokafka's fetching has ended")


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stops a consumer, whatever ended its tasks before: aiokafka raises that here, half-way."""
    try:
        await consumer.stop()
    except Exception as error:  # noqa: BLE001 - it is to go, and another one is to begin
        log.info("a consumer did not stop in order", error=repr(error))
        with contextlib.suppress(Exception):
            await consumer._client.close()
