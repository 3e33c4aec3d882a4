"""`penstock dlq`: look at dead letters and put them back."""

from __future__ import annotations

import datetime as dt
import json as jsonlib
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Column, Table

from penstock.cli import options
from penstock.cli.letters import Replay, Shelf, Wanted, as_json, plan
from penstock.cli.log import CLIENT_ID, reading, require_topic
from penstock.cli.run import CliError, err, out, run
from penstock.cli.settings import CliSettings
from penstock.failures import Reason
from penstock.kafka.dlq import Letter, original_headers
from penstock.kafka.reader import Start
from penstock.kafka.transactions import TransactionalPublisher

__all__ = ["app", "letters_table"]

# In one transaction; small, since letters may hold megabytes each.
CHUNK = 50

app = typer.Typer(no_args_is_help=True, help="Look at dead letters and replay them.")

LetterId = Annotated[
    str, typer.Argument(metavar="ID", help="A letter: its partition and offset, such as 0-17.")
]
Service = Annotated[str | None, typer.Option(help="Only what this one gave up.")]
Code = Annotated[
    Reason | None, typer.Option("--reason", help="Only what was given up for this reason.")
]
OfTenant = Annotated[str | None, typer.Option(help="Only this one's requests.")]


@app.command("list", epilog="Example:  penstock dlq list --service inference --reason poison")
def list_(
    service: Service = None,
    reason: Code = None,
    tenant: OfTenant = None,
    since: options.Instant = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    as_lines: options.Json = False,
) -> None:
    """Show dead letters, newest last. Never their values, which may hold prompts."""

    async def body(settings: CliSettings) -> None:
        wanted = Wanted(service, reason, tenant, options.utc(since))
        shelf = await _read(settings, Shelf(wanted, with_values=False), options.utc(since))
        letters = list(shelf.letters.values())[-limit:]
        if as_lines:
            for letter in letters:
                typer.echo(jsonlib.dumps(as_json(letter, shelf.replays)))
            return
        if letters:
            out.print(letters_table(letters, shelf))
        hidden = len(shelf.letters) - len(letters)
        more = f", {hidden} older not shown (--limit)" if hidden else ""
        found = len(shelf.letters)
        err.print(f"{found} letter{'s' * (found != 1)}{more}")

    run(body)


@app.command(epilog="Example:  penstock dlq show 0-17 --value > original.bin")
def show(
    letter_id: LetterId,
    value: Annotated[
        bool, typer.Option("--value", help="Print the original value, which may hold a prompt.")
    ] = False,
) -> None:
    """Show one dead letter: where it stood, why it was given up, and the original's headers.

    With --value the original's bytes go to standard output and the rest to standard error.
    """

    async def body(settings: CliSettings) -> None:
        shelf = await _read(settings, Shelf(_Named(letter_id), with_values=value))
        letter = _one(shelf, letter_id)
        described = as_json(letter, shelf.replays)
        described["key"] = _text(letter.record.key)
        described["headers"] = {n: _text(v) for n, v in original_headers(letter.record.headers)}
        console = err if value else out
        console.print(jsonlib.dumps(described, indent=2, ensure_ascii=False))
        if value:
            sys.stdout.buffer.write(letter.record.value or b"")
            sys.stdout.buffer.flush()

    run(body)


@app.command(
    epilog="Example:  penstock dlq replay 0-17   or:  penstock dlq replay --all "
    "--reason retries-exhausted --since 2026-05-01 --dry-run"
)
def replay(
    letter_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A letter, such as 0-17; or --all.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every letter that the options below leave.")
    ] = False,
    service: Service = None,
    reason: Code = None,
    tenant: OfTenant = None,
    since: options.Instant = None,
    again: Annotated[bool, typer.Option("--again", help="Also what was replayed before.")] = False,
    timeout_s: Annotated[
        float | None, typer.Option(min=1, max=86_400, help="How long an admitted one may take.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Show what would be written.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Put dead letters back onto the topics that they came from, each once.

    A record of `requests` goes back as it was; an admitted request gets a new id and deadline,
    since its own id has a response already.
    """

    async def body(settings: CliSettings) -> None:
        if (letter_id is None) == (not every):
            raise CliError("give either ID or --all")
        wanted = Wanted(service, reason, tenant, options.utc(since))
        shelf = Shelf(wanted if every else _Named(letter_id or ""), with_values=True)
        if dry_run:
            await _read(settings, shelf)
            _describe(_plans(settings, shelf, letter_id, again, timeout_s), "would replay")
            return
        await require_topic(settings, "dlq")
        # One replay at a time: whoever starts later ends this one, and reads all that it wrote.
        to = TransactionalPublisher(
            settings.kafka_bootstrap, CLIENT_ID, f"{settings.topic_prefix}-dlq-replay"
        )
        await to.start()
        try:
            await _read(settings, shelf)
            replays = _plans(settings, shelf, letter_id, again, timeout_s)
            if len(replays) > 1 and not yes:
                _ask(len(replays))
            for first in range(0, len(replays), CHUNK):
                chunk = replays[first : first + CHUNK]
                await to.publish([record for each in chunk for record in each.records])
                _describe(chunk, "replayed")
        finally:
            await to.stop()

    run(body)


def letters_table(letters: Sequence[Letter], shelf: Shelf) -> Table:
    """One row for each letter."""
    table = Table(
        Column("id", no_wrap=True),
        Column("when", no_wrap=True),
        "service",
        Column("origin", overflow="fold"),
        "reason",
        Column("attempts", justify="right"),
        Column("request", overflow="fold"),
        "replayed",
    )
    for letter in letters:
        when = dt.datetime.fromtimestamp(letter.record.timestamp_ms / 1000, dt.UTC)
        replays = shelf.replays.get(letter.letter_id, [])
        table.add_row(
            letter.letter_id,
            when.strftime("%Y-%m-%d %H:%M:%S"),
            letter.service or "-",
            f"{letter.origin.topic}/{letter.origin.number}-{letter.origin_offset}",
            letter.reason or letter.error or "-",
            str(letter.attempts),
            letter.request_id or "-",
            (replays[-1] or "yes") if replays else "-",
        )
    return table


async def _read(settings: CliSettings, shelf: Shelf, since: dt.datetime | None = None) -> Shelf:
    topic = await require_topic(settings, "dlq")
    start = Start.BEGINNING if since is None else Start.at(since)
    async with reading(settings, topic, start, shelf.take):
        return shelf


def _plans(
    settings: CliSettings,
    shelf: Shelf,
    letter_id: str | None,
    again: bool,
    timeout_s: float | None,
) -> list[Replay]:
    if letter_id is not None:
        letter = _one(shelf, letter_id)
        if shelf.replays.get(letter_id) and not again:
            raise CliError(f"{letter_id} was replayed before; --again replays it once more")
        return [_plan(settings, shelf, letter, timeout_s)]
    replays, refused, before = [], 0, 0
    for each in shelf.letters.values():
        if shelf.replays.get(each.letter_id) and not again:
            before += 1
            continue
        try:
            replays.append(_plan(settings, shelf, each, timeout_s))
        except CliError as error:
            refused += 1
            err.print(f"passed over: {error}")
    if before:
        err.print(f"{before} were replayed before (--again replays them once more)")
    if not replays:
        err.print("nothing to replay")
    return replays


def _plan(settings: CliSettings, shelf: Shelf, letter: Letter, timeout_s: float | None) -> Replay:
    taken = [request_id for ids in shelf.replays.values() for request_id in ids]
    planned = plan(
        letter,
        prefix=settings.topic_prefix,
        taken=taken,
        now=dt.datetime.now(dt.UTC),
        timeout_s=timeout_s,
    )
    # Two letters of one request get two ids.
    shelf.replays[letter.letter_id].append(planned.request_id)
    return planned


def _describe(replays: Sequence[Replay], verb: str) -> None:
    for each in replays:
        as_id = f" as {each.request_id}" if each.request_id else ""
        out.print(f"{each.letter.letter_id} {verb} onto {each.letter.origin.topic}{as_id}")


class _Named:
    def __init__(self, letter_id: str) -> None:
        self._id = letter_id

    def __call__(self, letter: Letter) -> bool:
        return letter.letter_id == self._id


def _one(shelf: Shelf, letter_id: str) -> Letter:
    try:
        return shelf.letters[letter_id]
    except KeyError:
        raise CliError(
            f"no dead letter {letter_id}; see `penstock dlq list` (30 days are kept)"
        ) from None


def _ask(count: int) -> None:
    if not sys.stdin.isatty():
        raise CliError(f"{count} letters would be replayed; say --yes")
    if not typer.confirm(f"Replay {count} letters?", err=True):
        raise CliError("nothing was replayed")


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")
