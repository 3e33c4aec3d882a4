"""Tells a cancellation that somebody asked for from one that a client of Kafka let through.

aiokafka cancels tasks of its own and awaits them in its caller's (`Fetcher.close`, while brokers
are away). That looks like the caller's cancellation, and a task that ends so ends in silence: a
task group takes a cancelled task for one that was to go.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from penstock.kafka.ports import LogError

__all__ = ["own_cancellation"]


@contextlib.contextmanager
def own_cancellation() -> Iterator[None]:
    """Lets through that the current task is cancelled, if somebody asked for that.

    Raises:
        LogError: It was a task that is waited for, and not this one.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise LogError("the client cancelled what was waited for") from error
