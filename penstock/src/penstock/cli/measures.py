"""`penstock models scale|shed|restart|measures|end`: what is done for a while about a model."""

from __future__ import annotations

import datetime as dt
import getpass
import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from penstock.cli import options
from penstock.cli.alerts import parse_duration
from penstock.cli.log import publisher, read_all, reading, require_topic
from penstock.cli.routes_plan import newest
from penstock.cli.run import CliError, err, out, run
from penstock.cli.settings import CliSettings
from penstock.kafka.reader import Start
from penstock.measures import (
    MAX_S,
    Kind,
    Measure,
    Measures,
    end_record,
    in_words,
    measure_record,
    new_measure_id,
)
from penstock.records import Record
from penstock.v1 import route_pb2

__all__ = ["base_model", "end", "measures", "restart", "scale", "shed"]

BaseModel = Annotated[str, typer.Argument(help="The engines' model, as routes' base_model.")]
Reason = Annotated[str, typer.Option(help="Why, for whoever looks next.")]
SOURCE = "cli"


def scale(
    model: BaseModel,
    replicas: Annotated[int, typer.Option(min=1, help="At least so many engine replicas.")],
    for_: Annotated[str, typer.Option("--for", help="How long: 90s, 30m, 2h.")] = "30m",
    reason: Reason = "",
) -> None:
    """Keep at least so many engine replicas of a model for a while, within its maximum.

    More work than that still starts more. Afterwards replicas go as they would without it.
    """

    async def body(settings: CliSettings) -> None:
        await _ask(settings, Kind.SCALE, model, for_, reason, replicas=replicas)

    run(body)


def shed(
    model: Annotated[str, typer.Argument(help="The model that requests name.")],
    priority_above: Annotated[
        int | None,
        typer.Option(
            min=-100, max=99, help="Only requests with a priority value above it; 0 is normal."
        ),
    ] = None,
    share: Annotated[
        float | None, typer.Option(help="The share of them, above 0 and up to 1.")
    ] = None,
    for_: Annotated[str, typer.Option("--for", help="How long: 90s, 30m, 2h.")] = "10m",
    reason: Reason = "",
) -> None:
    """Refuse new requests for a model for a while: the less urgent ones, a share, or both.

    They get RESOURCE_EXHAUSTED or 429, and are told when to come back. What was admitted stays,
    and shadow variants get no copies meanwhile.
    """

    async def body(settings: CliSettings) -> None:
        if priority_above is None and share is None:
            raise CliError("give --priority-above, --share, or both; all requests: --share 1")
        if share is not None and not 0 < share <= 1:
            raise CliError(f"--share {share:g} is no share: give one above 0 and up to 1")
        await _ask(
            settings,
            Kind.SHED,
            model,
            for_,
            reason,
            priority_above=priority_above,
            share=1.0 if share is None else share,
        )

    run(body)


def restart(
    model: BaseModel,
    replica: Annotated[
        str, typer.Option(help="Which one, as inference's log names it; else the slowest.")
    ] = "",
    for_: Annotated[
        str, typer.Option("--for", help="How long it may wait for another replica to live.")
    ] = "10m",
    reason: Reason = "",
) -> None:
    """Start one engine replica of a model anew, where another one lives.

    It gets nothing more, ends what it has within the drain's bound, and goes; what is left is run
    again elsewhere and answered once. One of a model goes at a time.
    """

    async def body(settings: CliSettings) -> None:
        await _ask(settings, Kind.RESTART, model, for_, reason, replica=replica)

    run(body)


def measures(as_lines: options.Json = False) -> None:
    """Show what is in force: floors of replicas, requests refused, replicas to start anew."""

    async def body(settings: CliSettings) -> None:
        found = await _in_force(settings)
        if as_lines:
            for measure in found:
                typer.echo(json.dumps(_as_json(measure)))
        elif found:
            out.print(_table(found))
        else:
            err.print("no measure is in force")

    run(body)


def end(
    measure_id: Annotated[str, typer.Argument(help="The measure, as `measures` lists it.")],
) -> None:
    """End a measure before its time.

    A replica that has gone to start anew is not held back any more.
    """

    async def body(settings: CliSettings) -> None:
        found = [each for each in await _in_force(settings) if each.measure_id == measure_id]
        if not found:
            raise CliError(f"no measure {measure_id!r} is in force; see: penstock models measures")
        now = dt.datetime.now(dt.UTC)
        async with publisher(settings) as to:
            await to.publish(
                [end_record(found[0], now, _operator(), settings.topic("control"), SOURCE)]
            )
        out.print(f"ended {measure_id}: {in_words(found[0])}")

    run(body)


def base_model(routes: Iterable[route_pb2.Route], name: str) -> str:
    """A base model by its name.

    Raises:
        CliError: No variant of any route runs on it.
    """
    routes = list(routes)
    known = {variant.base_model for route in routes for variant in route.variants}
    if name in known:
        return name
    behind = sorted(
        {variant.base_model for r in routes if r.model == name for variant in r.variants}
    )
    if behind:
        raise CliError(f"{name} is a route; its engines' models are: {', '.join(behind)}")
    raise CliError(f"no route has a variant on {name!r}; there are: {', '.join(sorted(known))}")


def _routed(routes: Iterable[route_pb2.Route], name: str) -> str:
    known = sorted(route.model for route in routes)
    if name not in known:
        raise CliError(f"no model {name!r} is routed; there are: {', '.join(known)}")
    return name


async def _ask(
    settings: CliSettings, kind: Kind, model: str, for_: str, reason: str, **more: Any
) -> None:
    length = parse_duration(for_)
    if length.total_seconds() > MAX_S:
        raise CliError(f"{for_} is too long: a measure lasts up to {MAX_S / 3600:g}h")
    control = await require_topic(settings, "control")
    routes = newest(await read_all(settings, await require_topic(settings, "routes"))).values()
    check = _routed if kind is Kind.SHED else base_model
    now = dt.datetime.now(dt.UTC)
    measure = Measure(
        measure_id=new_measure_id(),
        kind=kind,
        model=check(routes, model),
        requested_at=now,
        until=now + length,
        requested_by=_operator(),
        reason=reason,
        **more,
    )
    async with publisher(settings) as to:
        await to.publish([measure_record(measure, control, SOURCE)])
    out.print(f"{measure.measure_id}: {in_words(measure)}, until {_clock(measure.until)}")
    err.print(f"end it with: penstock models end {measure.measure_id}")


async def _in_force(settings: CliSettings) -> list[Measure]:
    known = Measures()
    now = dt.datetime.now(dt.UTC)
    control = await require_topic(settings, "control")
    start = Start.at(now - dt.timedelta(seconds=MAX_S))

    def take(record: Record) -> None:
        known.take(record)

    async with reading(settings, control, start, take):
        return known.in_force(dt.datetime.now(dt.UTC))


def _table(found: Sequence[Measure]) -> Table:
    table = Table(
        "measure", Column("what", overflow="fold"), Column("until", no_wrap=True), "by", "why"
    )
    for each in found:
        table.add_row(
            each.measure_id, in_words(each), _clock(each.until), each.requested_by, each.reason
        )
    return table


def _as_json(measure: Measure) -> dict[str, Any]:
    found: dict[str, Any] = {
        "measure_id": measure.measure_id,
        "kind": str(measure.kind),
        "model": measure.model,
        "requested_at": measure.requested_at.isoformat(),
        "until": measure.until.isoformat(),
        "requested_by": measure.requested_by,
        "reason": measure.reason,
    }
    match measure.kind:
        case Kind.SCALE:
            found["replicas"] = measure.replicas
        case Kind.SHED:
            found |= {"priority_above": measure.priority_above, "share": measure.share}
        case Kind.RESTART:
            found["replica"] = measure.replica or None
    return found


def _clock(instant: dt.datetime) -> str:
    return instant.replace(microsecond=0).isoformat().replace("+00:00", "Z")


def _operator() -> str:
    # A container may have no name for its user.
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
