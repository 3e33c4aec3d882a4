"""`penstock tail`: what is written to a topic, decoded."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from typing import Annotated, Any

import typer
from rich.text import Text

from penstock.cli import options
from penstock.cli.log import reading, require_topic
from penstock.cli.run import CliError, out, run
from penstock.cli.settings import CliSettings
from penstock.codec import decode, to_json
from penstock.errors import InvalidRequest
from penstock.kafka.reader import Start
from penstock.records import Record
from penstock.topics import Topic, topic_of

__all__ = ["as_json", "as_text", "tail"]


def tail(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A topic, without the prefix.")],
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Begin with the oldest record.")
    ] = False,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="End after so many.")
    ] = (None),
    until_end: Annotated[
        bool, typer.Option("--until-end", help="End with what is there now.")
    ] = False,
    as_lines: options.Json = False,
) -> None:
    """Print a topic's committed records as they come, decoded by the topics table."""

    async def body(settings: CliSettings) -> None:
        try:
            declared = topic_of(topic.removeprefix(f"{settings.topic_prefix}."))
        except KeyError as error:
            raise CliError(str(error.args[0])) from error
        seen, enough = 0, asyncio.Event()

        def on_record(record: Record) -> None:
            nonlocal seen
            if enough.is_set():
                return
            if as_lines:
                typer.echo(json.dumps(as_json(record, declared), ensure_ascii=False))
            else:
                out.print(as_text(record, declared))
            seen += 1
            if seen == count:
                enough.set()

        full = await require_topic(settings, declared.name)
        start = Start.BEGINNING if from_beginning else Start.END
        async with reading(settings, full, start, on_record):
            if not until_end:
                await enough.wait()

    run(body)


def as_json(record: Record, topic: Topic) -> dict[str, Any]:
    """A record as JSON-able data; a value that is not the topic's record is given as text."""
    return {
        "topic": record.partition.topic,
        "partition": record.partition.number,
        "offset": record.offset,
        "time": _time(record).isoformat(),
        "key": None if record.key is None else record.key.decode("utf-8", "replace"),
        "headers": dict(record.carrier()),
        "value": _value(record, topic),
    }


def as_text(record: Record, topic: Topic) -> Text:
    """A record for a person: where and when, headers, value."""
    value = _value(record, topic)
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    key = "no key" if record.key is None else record.key.decode("utf-8", "replace")
    text = Text()
    text.append(f"{record.partition.number}/{record.offset}", style="bold cyan")
    text.append(f"  {_time(record).isoformat(timespec='milliseconds')}  {key}\n")
    for name, header in record.carrier().items():
        text.append(f"  {name}: {header}\n", style="dim")
    text.append(shown if value is not None else "(tombstone)")
    return text


def _time(record: Record) -> dt.datetime:
    return dt.datetime.fromtimestamp(record.timestamp_ms / 1000, dt.UTC)


def _value(record: Record, topic: Topic) -> Any:
    if record.value is None:
        return None
    if topic.record is not None:
        try:
            return json.loads(to_json(decode(record, topic.record)))
        except InvalidRequest:
            pass
    return record.value.decode("utf-8", "replace")
