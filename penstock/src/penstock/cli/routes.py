"""`penstock routes`: the desired state of serving."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from penstock.cli import routes_plan
from penstock.cli.log import publisher, read_all, require_topic
from penstock.cli.run import err, out, read_text, run
from penstock.cli.settings import CliSettings
from penstock.codec import encode, to_json
from penstock.v1 import route_pb2

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Say which variants answer for a model.")


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
            await to.publish(
                [
                    encode(
                        route,
                        topic=topic,
                        key=route.model,
                        source="cli",
                        event_id=f"route:{route.model}:{route.version}",
                    )
                    for route in changed
                ]
            )
        for route in wanted:
            state = "written" if route in changed else "was there"
            standing = route if route in changed else present[route.model]
            out.print(f"{route.model}: version {standing.version} {state}")

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


def _table(routes: list[route_pb2.Route]) -> Table:
    table = Table("model", "version", "variant", "base model", "adapter", "stage", "weight")
    for route in routes:
        for variant in route.variants:
            stage = route_pb2.Stage.Name(variant.stage).removeprefix("STAGE_").lower()
            table.add_row(
                route.model,
                str(route.version),
                variant.name,
                variant.base_model,
                variant.adapter or "-",
                stage,
                str(variant.weight),
            )
    return table
