"""Ends aiokafka's clients: within a bound, whatever their own tasks wait for or died of.

Left alone, a client that stops waits for its tasks and for its connections to close, and both may
wait for a broker that is away; and it passes on that it cancelled some of its tasks. Whoever stops
it would wait as long, or seem to be cancelled: a rebalance, a whole service.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from penstock.kafka.ports import LogError
from penstock.telemetry import logger

__all__ = ["bounded", "check_fetching", "stop_consumer", "stop_producer"]

log = logger(__name__)

STOP_S = 10.0
END_S = 1.0  # for each part of one that did not stop by itself


def check_fetching(consumer: AIOKafkaConsumer) -> None:
    """Raises where nothing comes any more, though polls go on without an error.

    Raises:
        LogError: A task of the client has ended: only another consumer will read on.
    """
    if consumer._fetcher is not None and consumer._fetcher._fetch_task.done():
        raise LogError("aiokafka's fetching has ended")
    coordination = getattr(consumer._coordinator, "_coordination_task", None)
    if coordination is not None and coordination.done():
        raise LogError("aiokafka's part in the group has ended")


async def stop_consumer(consumer: AIOKafkaConsumer, limit_s: float = STOP_S) -> None:
    """Stops a consumer and leaves its group, or at least ends what it does."""
    coordinator, fetcher = consumer._coordinator, consumer._fetcher
    # One that was left alive would stay a member, with partitions that nobody reads.
    parts = [] if fetcher is None else [fetcher.close]
    tasks = [getattr(coordinator, name, None) for name in ("_coordination_task", "_heartbeat_task")]
    await _stop(consumer.stop(), limit_s, [*parts, consumer._client.close], tasks)


async def stop_producer(producer: AIOKafkaProducer, limit_s: float = STOP_S) -> None:
    """Stops a producer, which sends what is queued first, or at least ends what it does."""
    # It flushes, which takes for ever while the broker is away, and raises once it is fenced.
    await _stop(producer.stop(), limit_s, [producer._sender.close, producer.client.close], ())


async def _stop(
    stopping: Coroutine[Any, Any, None],
    limit_s: float,
    parts: Sequence[Callable[[], Coroutine[Any, Any, None]]],
    tasks: Sequence[asyncio.Task[None] | None],
) -> None:
    try:
        await bounded(stopping, limit_s)
    except Exception as error:  # noqa: BLE001 - it is to go, and another one is to begin
        log.warning("a client did not stop in order", error=repr(error))
        for task in tasks:
            if task is not None:
                task.cancel()
        for part in parts:
            with contextlib.suppress(Exception):
                await bounded(part(), END_S)


async def bounded(closing: Coroutine[Any, Any, None], limit_s: float) -> None:
    """Waits for something to close, but no longer than that: it may not even heed its end.

    Raises:
        TimeoutError: It goes on closing; says what it waits for.
        LogError: A task that it waited for was cancelled, which is no cancellation of the caller.
        Exception: As it raised itself.
    """
    task = asyncio.create_task(closing)
    try:
        await asyncio.wait({task}, timeout=limit_s)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_heard)
    if not task.done():
        raise TimeoutError(f"not closed within {limit_s:g} s: {_place(task)}")
    if task.cancelled():
        raise LogError("what it waited for was cancelled")
    task.result()


def _place(task: asyncio.Task[None]) -> str:
    """Where a task stands, innermost last."""
    frames = []
    awaited: Any = task.get_coro()
    while awaited is not None and (frame := getattr(awaited, "cr_frame", None)) is not None:
        frames.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        awaited = awaited.cr_await
    return " > ".join(frames)


def _heard(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
