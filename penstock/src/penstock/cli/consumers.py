"""`penstock consumers`: where consumer groups stand, and the command that lets one go on."""

from __future__ import annotations

import datetime as dt
import getpass
import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from penstock.cli import options
from penstock.cli.log import CLIENT_ID, publisher, require_topic
from penstock.cli.run import CliError, err, out, run
from penstock.cli.settings import CliSettings
from penstock.codec import encode
from penstock.kafka.groups import KafkaGroups, Standing
from penstock.v1 import control_pb2

__all__ = ["app", "as_json", "resume_record", "standings_table"]

app = typer.Typer(no_args_is_help=True, help="See where consumers stand, and resume halted ones.")


@app.command("list", epilog="Example:  penstock consumers list --group penstock-inference")
def list_(
    group: Annotated[str | None, typer.Option(help="Only this one's partitions.")] = None,
    as_lines: options.Json = False,
) -> None:
    """Show each group's position, lag and halts in penstock's topics."""

    async def body(settings: CliSettings) -> None:
        found = [s for s in await _standings(settings) if group in (None, s.group)]
        _show(found, as_lines, "no group has read a topic of this prefix yet")

    run(body)


@app.command(epilog="Example:  penstock consumers halted --json")
def halted(as_lines: options.Json = False) -> None:
    """Show the partitions that stand at their limit on dead letters.

    Those of consumers that keep it beside their position. cost and drift's folds keep a halt to
    themselves: see their alerts.
    """

    async def body(settings: CliSettings) -> None:
        found = [s for s in await _standings(settings) if s.progress.halted_at_ms]
        _show(found, as_lines, "no partition is halted")

    run(body)


@app.command(
    epilog="Example:  penstock consumers resume penstock-inference --topic admitted --partition 2"
)
def resume(
    group: Annotated[str, typer.Argument(help="The consumer group, as the alert names it.")],
    topic: Annotated[str, typer.Option(help="The topic it reads, with or without the prefix.")],
    partition: Annotated[
        int | None, typer.Option(min=0, help="Only this one; all of them when left out.")
    ] = None,
) -> None:
    """Let halted partitions go on. Mend the cause first: they halt again otherwise.

    The command counts for halts before it only. A service that reads nothing at the moment obeys
    once it is up, within a day.
    """

    async def body(settings: CliSettings) -> None:
        name = topic.removeprefix(f"{settings.topic_prefix}.")
        full = await require_topic(settings, name)
        control = await require_topic(settings, "control")
        standings = await _standings(settings)
        of_group = [s for s in standings if s.group == group and s.partition.topic == full]
        if not of_group:
            groups = sorted({s.group for s in standings if s.partition.topic == full})
            known = f"; those that read {full}: {', '.join(groups)}" if groups else ""
            raise CliError(f"no group {group!r} has read {full}{known}")
        asked = [s for s in of_group if partition in (None, s.partition.number)]
        if not asked:
            raise CliError(f"{group} has read nothing of {full}, partition {partition}")
        command = resume_record(control, group, full, partition, asked, dt.datetime.now(dt.UTC))
        async with publisher(settings) as to:
            await to.publish([command])
        stopped = [str(s.partition.number) for s in asked if s.progress.halted_at_ms]
        if stopped:
            out.print(f"{group} was told to go on with {full}, partitions {', '.join(stopped)}")
        else:
            err.print(
                "no halt of it is known here (cost and drift keep theirs to themselves); "
                "the command was written all the same"
            )

    run(body)


def resume_record(
    control: str,
    group: str,
    topic: str,
    partition: int | None,
    standings: Sequence[Standing],
    now: dt.datetime,
) -> Any:
    """The command as a record of `control`.

    Args:
        control: The full name of `control`.
        group: The consumer group.
        topic: The input topic's full name.
        partition: Only this one, or all.
        standings: Where the group stands in them.
        now: The present, UTC.
    """
    # The consumer's clock may be ahead of ours, and only a later command counts.
    halted_at_ms = max((s.progress.halted_at_ms for s in standings), default=0)
    command = control_pb2.Resume(
        group=group, topic=topic, partition=partition, requested_by=_operator()
    )
    command.requested_at.FromMilliseconds(
        max(round(now.timestamp() * 1000), halted_at_ms + 1 if halted_at_ms else 0)
    )
    return encode(
        control_pb2.Control(resume=command), topic=control, key=f"{group}/{topic}", source="cli"
    )


def standings_table(standings: Sequence[Standing]) -> Table:
    """One row for each partition of each group."""
    table = Table(
        Column("group", overflow="fold"),
        Column("topic", overflow="fold"),
        *(Column(name, justify="right") for name in ("partition", "position", "lag")),
        Column("members", justify="right"),
        Column("halted", no_wrap=True),
    )
    for standing in standings:
        table.add_row(
            standing.group,
            standing.partition.topic,
            str(standing.partition.number),
            str(standing.position),
            str(standing.lag),
            str(standing.members),
            _since(standing) or "-",
        )
    return table


def as_json(standing: Standing) -> dict[str, Any]:
    """A row as JSON-able data."""
    return {
        "group": standing.group,
        "state": standing.state,
        "members": standing.members,
        "topic": standing.partition.topic,
        "partition": standing.partition.number,
        "position": standing.position,
        "end": standing.end,
        "lag": standing.lag,
        "halted_at": _since(standing) or None,
    }


async def _standings(settings: CliSettings) -> list[Standing]:
    async with KafkaGroups(settings.kafka_bootstrap, CLIENT_ID) as groups:
        return await groups.standings(settings.topic_prefix)


def _show(standings: Sequence[Standing], as_lines: bool, none: str) -> None:
    if as_lines:
        for standing in standings:
            typer.echo(json.dumps(as_json(standing)))
    elif standings:
        out.print(standings_table(standings))
    else:
        err.print(none)


def _since(standing: Standing) -> str:
    if not standing.progress.halted_at_ms:
        return ""
    stamp = dt.datetime.fromtimestamp(standing.progress.halted_at_ms / 1000, dt.UTC)
    return stamp.isoformat(timespec="milliseconds")


def _operator() -> str:
    # A container may have no name for its user.
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
