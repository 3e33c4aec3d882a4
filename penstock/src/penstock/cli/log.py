"""Bounded reads of the log, for commands that want what is there and then end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

from penstock.cli.run import CliError
from penstock.cli.settings import CliSettings
from penstock.kafka.admin import KafkaAdmin
from penstock.kafka.publisher import KafkaPublisher
from penstock.kafka.reader import LogReader, Start
from penstock.records import Record

__all__ = ["CLIENT_ID", "publisher", "read_all", "reading", "reading_each", "require_topic"]

CLIENT_ID = "penstock-cli"
READ_S = 60.0


async def require_topic(settings: CliSettings, name: str) -> str:
    """A topic's full name, once it is known that Kafka answers and has it.

    Raises:
        LogError: Kafka cannot be reached.
        CliError: The topic is not there.
    """
    full = settings.topic(name)
    async with KafkaAdmin(settings.kafka_bootstrap, CLIENT_ID) as admin:
        if full not in await admin.observe(settings.topic_prefix):
            raise CliError(f"topic {full} is not there; create it with: penstock topics apply")
    return full


@contextlib.asynccontextmanager
async def publisher(settings: CliSettings) -> AsyncIterator[KafkaPublisher]:
    """A publisher that is connected while the context lasts."""
    made = KafkaPublisher(settings.kafka_bootstrap, CLIENT_ID, linger_ms=2)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


@contextlib.asynccontextmanager
async def reading(
    settings: CliSettings,
    topic: str,
    start: Start,
    on_record: Callable[[Record], None],
    *,
    patience_s: float = READ_S,
) -> AsyncIterator[None]:
    """Reads a topic while the context lasts; entered when what was there has been read.

    What `on_record` raises ends the context, whatever is waited for inside.

    Raises:
        CliError: It took longer than `patience_s`.
        Exception: As `on_record` raised it.
    """
    reader = LogReader(settings.kafka_bootstrap, topic, start=start)
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(reader.run(on_record))
            try:
                async with asyncio.timeout(patience_s):
                    await reader.caught_up.wait()
            except TimeoutError:
                raise CliError(f"{topic} could not be read within {patience_s:g} s") from None
            yield
            task.cancel()
    except BaseExceptionGroup as failed:
        # The reader's comes first: the other one may be of its making.
        first = failed.exceptions[0]
        raise first from first.__cause__


@contextlib.asynccontextmanager
async def reading_each(
    settings: CliSettings, takers: Mapping[str, Callable[[Record], None]]
) -> AsyncIterator[None]:
    """Reads several topics from their beginnings, as `reading` does one.

    Args:
        settings: Where Kafka is.
        takers: What takes the records, by the topic's name without prefix.

    Raises:
        CliError: One took longer than a minute.
    """
    async with contextlib.AsyncExitStack() as readers:
        for name, take in takers.items():
            topic = settings.topic(name)
            await readers.enter_async_context(reading(settings, topic, Start.BEGINNING, take))
        yield


async def read_all(settings: CliSettings, topic: str) -> list[Record]:
    """Every committed record that is in a topic now.

    Raises:
        CliError: It took longer than a minute.
    """
    records: list[Record] = []
    async with reading(settings, topic, Start.BEGINNING, records.append):
        return records
