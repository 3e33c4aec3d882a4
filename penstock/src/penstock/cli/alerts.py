"""`penstock alerts`: what is open, who looks at it, and what nobody wants to hear of."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import getpass
import json as jsonlib
from collections.abc import AsyncIterator, Callable
from typing import Annotated

import typer

from penstock.cli import alerts_view, options
from penstock.cli.log import publisher, read_all, reading, require_topic
from penstock.cli.run import CliError, err, out, run
from penstock.cli.settings import CliSettings
from penstock.codec import decode, encode
from penstock.errors import InvalidRequest
from penstock.incidents import AlertBook, Incident
from penstock.kafka.reader import Start
from penstock.records import Outgoing, Record
from penstock.v1 import alert_pb2

__all__ = ["app", "one_incident", "parse_labels", "read_book"]

app = typer.Typer(no_args_is_help=True, help="See incidents, acknowledge them, silence them.")

IncidentId = Annotated[
    str, typer.Argument(metavar="INCIDENT", help="Its id, or how it begins, without the service.")
]
DURATIONS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MAX_SILENCE = dt.timedelta(days=30)


@app.command("list", epilog="Example:  penstock alerts list --all --service drift")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    service: Annotated[str | None, typer.Option(help="Only those that it noticed.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Only those with it; * at the end is anything."),
    ] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Show counts and the rate of false alarms instead.")
    ] = False,
    as_lines: options.Json = False,
) -> None:
    """Show incidents: the worst first, then the newest."""

    async def body(settings: CliSettings) -> None:
        wanted = parse_labels(label or [])
        book = await read_book(settings)
        now = dt.datetime.now(dt.UTC)
        if summary:
            lines = alerts_view.summary(book, service)
            if as_lines:
                typer.echo(jsonlib.dumps(lines))
            else:
                out.print(alerts_view.summary_table(lines))
            return
        found = [
            incident
            for incident in book.incidents(resolved=everything)
            if service in (None, incident.alert.service) and alerts_view.has(incident, wanted)
        ]
        if as_lines:
            for incident in found:
                typer.echo(jsonlib.dumps(alerts_view.as_json(incident, book, now)))
        elif found:
            out.print(alerts_view.table(found, book, now))
        else:
            err.print("no incident is open" if not everything else "no incident is known")

    run(body)


@app.command(epilog="Example:  penstock alerts show 3f9c")
def show(incident: IncidentId, as_lines: options.Json = False) -> None:
    """Show an incident with its evidence, its likely causes and what to run next."""

    async def body(settings: CliSettings) -> None:
        book = await read_book(settings)
        found = one_incident(book, incident)
        now = dt.datetime.now(dt.UTC)
        if as_lines:
            typer.echo(jsonlib.dumps(alerts_view.as_json(found, book, now)))
        else:
            out.print(alerts_view.page(found, book, now))

    run(body)


@app.command(epilog="Example:  penstock alerts ack 3f9c --false --comment 'a load test'")
def ack(
    incident: IncidentId,
    real: Annotated[
        bool | None,
        typer.Option("--real/--false", help="Whether there was something to be done."),
    ] = None,
    comment: Annotated[str, typer.Option(help="For the next one who looks.")] = "",
) -> None:
    """Say that somebody looks at an incident, and whether it was worth it.

    The verdicts are what the published rate of false alarms is made of. A later one replaces the
    earlier.
    """

    async def body(settings: CliSettings) -> None:
        found = one_incident(await read_book(settings), incident)
        words = alert_pb2.Acknowledgement(incident_id=found.id, comment=comment)
        if real is not None:
            words.real = real
        await _say(settings, alert_pb2.AlertAction(acknowledge=words), found.id)
        verdict = {None: "acknowledged", True: "acknowledged as real", False: "called false"}[real]
        out.print(f"{found.id}: {verdict}")

    run(body)


@app.command(
    epilog="Example:  penstock alerts silence --label model=triage --label kind=input --for 2h"
)
def silence(
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="All must match; * at the end is anything."),
    ] = None,
    for_: Annotated[str, typer.Option("--for", help="How long: 30m, 2h, 1d.")] = "1h",
    start: Annotated[
        dt.datetime | None, typer.Option("--from", formats=options.FORMATS, help="Not before; UTC.")
    ] = None,
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    expire: Annotated[str | None, typer.Option(metavar="ID", help="End that silence.")] = None,
    as_lines: options.Json = False,
) -> None:
    """Keep incidents with certain labels from reaching people for a while.

    Without --label and --expire it shows the silences there are. `penstock alerts show` lists the
    labels of an incident. Silenced incidents are still found, written and listed.
    """

    async def body(settings: CliSettings) -> None:
        now = dt.datetime.now(dt.UTC)
        if expire is not None:
            live = {s.silence_id for s in (await read_book(settings)).silences(now)}
            if expire not in live:
                raise CliError(f"no silence {expire!r}; see: penstock alerts silence")
            await _say(settings, alert_pb2.AlertAction(expire_silence=expire), expire)
            out.print(f"{expire}: ended")
            return
        if not label:
            _show_silences((await read_book(settings)).silences(now), as_lines)
            return
        made = alerts_view.silence_of(
            parse_labels(label), options.utc(start) or now, parse_duration(for_), comment
        )
        await _say(settings, alert_pb2.AlertAction(silence=made), made.silence_id)
        until = made.until.ToDatetime(dt.UTC)
        out.print(f"{made.silence_id}: until {until.isoformat(timespec='seconds')}")

    run(body)


@app.command(epilog="Example:  penstock alerts watch --json")
def watch(
    once: Annotated[bool, typer.Option("--once", help="End after those that are open.")] = False,
    as_lines: options.Json = False,
) -> None:
    """Print the open incidents, then every change as it comes."""

    def show_one(incident: Incident, book: AlertBook) -> None:
        now = dt.datetime.now(dt.UTC)
        if as_lines:
            typer.echo(jsonlib.dumps(alerts_view.as_json(incident, book, now)))
        else:
            out.print(alerts_view.line(incident, book, now))

    async def body(settings: CliSettings) -> None:
        book = AlertBook()
        started = asyncio.Event()

        def changed(incident: Incident) -> None:
            if started.is_set():
                show_one(incident, book)

        async with _following(settings, book, changed):
            for incident in book.incidents():
                show_one(incident, book)
            started.set()
            if not once:
                await asyncio.Event().wait()

    run(body)


async def read_book(settings: CliSettings) -> AlertBook:
    """Everything on both logs.

    Raises:
        CliError: A topic is not there, or takes longer than a minute.
    """
    book = AlertBook()
    alerts = await require_topic(settings, "alerts")
    for record in await read_all(settings, alerts):
        _take(record, book)
    for record in await read_all(settings, settings.topic("alert_actions")):
        _take(record, book, actions=True)
    return book


def one_incident(book: AlertBook, beginning: str) -> Incident:
    """The one incident that is meant.

    Raises:
        CliError: There is none, or several; says which.
    """
    found = book.find(beginning)
    if not found:
        raise CliError(f"no incident {beginning!r}; see: penstock alerts list --all")
    if len(found) > 1:
        names = ", ".join(incident.id for incident in found[:10])
        raise CliError(f"{len(found)} incidents begin so; name one: {names}")
    return found[0]


def parse_labels(pairs: list[str]) -> dict[str, str]:
    """NAME=VALUE pairs.

    Raises:
        CliError: One is none.
    """
    labels = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not (name and sign and value):
            raise CliError(f"{pair!r} is no label; write NAME=VALUE")
        labels[name] = value
    return labels


def parse_duration(text: str) -> dt.timedelta:
    """A duration as people write it: 90s, 30m, 2h, 1d.

    Raises:
        CliError: It is none, or longer than a silence may be.
    """
    number, unit = text[:-1], text[-1:]
    if unit not in DURATIONS or not (number.isascii() and number.isdecimal() and int(number)):
        raise CliError(f"{text!r} is no duration; write 90s, 30m, 2h or 1d")
    seconds = int(number) * DURATIONS[unit]
    if seconds > MAX_SILENCE.total_seconds():
        raise CliError(f"{text} is too long: at most {MAX_SILENCE.days} days")
    return dt.timedelta(seconds=seconds)


def action_record(
    action: alert_pb2.AlertAction, topic: str, key: str, now: dt.datetime
) -> Outgoing:
    """An action as the record of `alert_actions`, signed and dated."""
    signed = alert_pb2.AlertAction()
    signed.CopyFrom(action)
    signed.at.FromDatetime(now)
    signed.by = _operator()
    return encode(signed, topic=topic, key=key, source="cli")


async def _say(settings: CliSettings, action: alert_pb2.AlertAction, key: str) -> None:
    topic = await require_topic(settings, "alert_actions")
    async with publisher(settings) as to:
        await to.publish([action_record(action, topic, key, dt.datetime.now(dt.UTC))])


@contextlib.asynccontextmanager
async def _following(
    settings: CliSettings, book: AlertBook, changed: Callable[[Incident], None]
) -> AsyncIterator[None]:
    def on_alert(record: Record) -> None:
        incident = _take(record, book)
        if incident is not None:
            changed(incident)

    def on_action(record: Record) -> None:
        _take(record, book, actions=True)

    actions = await require_topic(settings, "alert_actions")
    async with (
        reading(settings, actions, Start.BEGINNING, on_action),
        reading(settings, settings.topic("alerts"), Start.BEGINNING, on_alert),
    ):
        yield


def _take(record: Record, book: AlertBook, *, actions: bool = False) -> Incident | None:
    # Somebody else's record on the topic must not keep people from seeing the others.
    with contextlib.suppress(InvalidRequest):
        if actions:
            book.take_action(decode(record, alert_pb2.AlertAction))
        else:
            return book.take_alert(decode(record, alert_pb2.Alert))
    return None


def _show_silences(silences: list[alert_pb2.Silence], as_lines: bool) -> None:
    if as_lines:
        for each in silences:
            typer.echo(jsonlib.dumps(alerts_view.silence_json(each)))
    elif silences:
        out.print(alerts_view.silence_table(silences))
    else:
        err.print("nothing is silenced; silence with: penstock alerts silence --label NAME=VALUE")


def _operator() -> str:
    # A container may have no name for its user.
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
