"""`penstock routes`: the desired state of serving."""

from __future__ import annotations

import datetime as dt
import json as jsonlib
from collections.abc import Callable
from typing import Annotated

import typer
from rich.table import Table

from penstock.cli import routes_plan
from penstock.cli.log import publisher, read_all, require_topic
from penstock.cli.run import CliError, err, out, read_text, run
from penstock.cli.settings import CliSettings
from penstock.codec import encode, to_json
from penstock.records import Outgoing, Record
from penstock.v1 import route_pb2

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Say which variants answer for a model.")

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The name that requests use.")]


@app.command(epilog="Example:  penstock routes apply compose/routes.json")
def apply(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="JSON: a list of penstock.v1.Route; - is stdin.")
    ],
    keep_newer: Annotated[
        bool, typer.Option("--keep-newer", help="Pass over a model whose newer version is there.")
    ] = False,
) -> None:
    """Write routes to the log. What is there already is left alone.

    A version lower than the one there (unless --keep-newer), or the same version with other
    content, is refused and then nothing is written.
    """

    async def body(settings: CliSettings) -> None:
        wanted = routes_plan.parse(read_text(file))
        topic = await require_topic(settings, "routes")
        present = routes_plan.newest(await read_all(settings, topic))
        changed = routes_plan.changes(wanted, present, keep_newer=keep_newer)
        async with publisher(settings) as to:
            await to.publish([_record(route, topic) for route in changed])
        for route in wanted:
            state = "written" if route in changed else "was there"
            standing = route if route in changed else present[route.model]
            out.print(f"{route.model}: version {standing.version} {state}")

    run(body)


@app.command("set", epilog="Example:  penstock routes set triage --weight base=90 --weight new=10")
def set_(
    model: Model,
    weight: Annotated[
        list[str],
        typer.Option(
            metavar="VARIANT=WEIGHT",
            help="A share relative to the other variants'; of a shadow the percentage of requests "
            "that it gets copies of; 0 takes a variant out. Repeat it for several variants.",
        ),
    ],
) -> None:
    """Move traffic between the variants that a model has: one record, the next version."""

    async def body(settings: CliSettings) -> None:
        weights = routes_plan.parse_weights(weight)
        await _change(settings, model, lambda route, _: routes_plan.reweighted(route, weights))

    run(body)


@app.command(epilog="Example:  penstock routes rollback triage --to 3")
def rollback(
    model: Model,
    to: Annotated[
        int | None,
        typer.Option(metavar="VERSION", min=1, help="Bring that version's content back instead."),
    ] = None,
) -> None:
    """Give the champion all of a model's traffic and withdraw its candidates: one record.

    What a candidate was given and has not begun to answer is chosen again. A version never comes
    back: also with --to, the old content gets the next version.
    """

    def change(route: route_pb2.Route, records: list[Record]) -> route_pb2.Route:
        if to is None:
            return routes_plan.rolled_back(route)
        return routes_plan.restored(route, routes_plan.history(records, model), to)

    async def body(settings: CliSettings) -> None:
        await _change(settings, model, change)

    run(body)


@app.command("list", epilog="Example:  penstock routes list --json")
def list_(
    json: Annotated[bool, typer.Option("--json", help="One route a line, as JSON.")] = False,
) -> None:
    """Show the newest route of each model."""

    async def body(settings: CliSettings) -> None:
        topic = await require_topic(settings, "routes")
        routes = routes_plan.newest(await read_all(settings, topic))
        if json:
            for route in routes.values():
                typer.echo(to_json(route))
            return
        if not routes:
            err.print("no routes; write some with: penstock routes apply FILE")
            return
        out.print(_table(list(routes.values())))

    run(body)


@app.command(epilog="Example:  penstock routes history triage")
def history(
    model: Model,
    json: Annotated[bool, typer.Option("--json", help="One version a line, as JSON.")] = False,
) -> None:
    """Show the versions of a model's route that are still on the log, the oldest first.

    The topic is compacted: the newest version stays for good, older ones until Kafka cleans up.
    Responses name the version that they were admitted under.
    """

    async def body(settings: CliSettings) -> None:
        topic = await require_topic(settings, "routes")
        versions = routes_plan.history(await read_all(settings, topic), model)
        if not versions:
            raise _unrouted(model)
        if not json:
            out.print(_history_table(versions))
            return
        for entry in versions:
            line = {
                "written_at": _instant(entry.written_ms),
                "writer": entry.writer,
                "route": jsonlib.loads(to_json(entry.route)),
            }
            typer.echo(jsonlib.dumps(line, ensure_ascii=False))

    run(body)


async def _change(
    settings: CliSettings,
    model: str,
    change: Callable[[route_pb2.Route, list[Record]], route_pb2.Route],
) -> None:
    topic = await require_topic(settings, "routes")
    records = await read_all(settings, topic)
    standing = routes_plan.newest(records).get(model)
    if standing is None:
        raise _unrouted(model)
    route = change(standing, records)
    if route is standing:
        out.print(f"{model}: version {standing.version} says so already; nothing is written")
        return
    async with publisher(settings) as to:
        await to.publish([_record(route, topic)])
    routes_plan.check_alone(route, await read_all(settings, topic))
    shares = ", ".join(f"{v.name} {routes_plan.share(route, v)}" for v in route.variants)
    out.print(f"{model}: version {route.version} written: {shares}")


def _record(route: route_pb2.Route, topic: str) -> Outgoing:
    return encode(
        route,
        topic=topic,
        key=route.model,
        source="cli",
        event_id=f"route:{route.model}:{route.version}",
    )


def _unrouted(model: str) -> CliError:
    return CliError(f"{model} has no route; see: penstock routes list")


def _table(routes: list[route_pb2.Route]) -> Table:
    table = Table(
        "model", "version", "variant", "base model", "adapter", "stage", "weight", "traffic"
    )
    for route in routes:
        for variant in route.variants:
            table.add_row(
                route.model,
                str(route.version),
                variant.name,
                variant.base_model,
                variant.adapter or "-",
                _stage(variant),
                str(variant.weight),
                routes_plan.share(route, variant),
            )
    return table


def _history_table(versions: list[routes_plan.Version]) -> Table:
    table = Table("version", "written", "by", "variants")
    for entry in versions:
        variants = ", ".join(
            f"{v.name} ({_stage(v)}) {routes_plan.share(entry.route, v)}"
            for v in entry.route.variants
        )
        written = _instant(entry.written_ms)
        table.add_row(str(entry.route.version), written, entry.writer or "-", variants)
    return table


def _stage(variant: route_pb2.Variant) -> str:
    return route_pb2.Stage.Name(variant.stage).removeprefix("STAGE_").lower()


def _instant(milliseconds: int) -> str:
    return dt.datetime.fromtimestamp(milliseconds // 1000, dt.UTC).isoformat()
