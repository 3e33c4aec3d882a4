"""`penstock lineage`: from a version back to its data."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.cli import options
from penstock.cli.run import CliError, out, run
from penstock.cli.settings import CliSettings
from penstock.codec import to_json
from penstock.v1 import rollouts_service_pb2
from penstock_retrain.cli import views
from penstock_retrain.cli.calls import CALL_S, rollouts

__all__ = ["app", "request_of"]

pb = rollouts_service_pb2
# One command of the group's own name: the kit takes it as a command.
app = typer.Typer()


@app.command(epilog="Example:  penstock lineage triage@3    penstock lineage triage@champion")
def lineage(
    version: Annotated[
        str,
        typer.Argument(
            metavar="MODEL@VERSION",
            help="A number, an alias (champion, challenger), or the id of the job that made it.",
        ),
    ],
    card: Annotated[bool, typer.Option("--card", help="Print the model card instead.")] = False,
    as_lines: options.Json = False,
) -> None:
    """Show where a version came from, down to the offsets of its data, and what became of it.

    It answers for every version: promoted, rolled back, or rejected at a gate.
    """

    async def body(_: CliSettings) -> None:
        request = request_of(version)
        async with rollouts() as stub:
            found = await stub.Lineage(request, timeout=CALL_S)
        if card:
            if not found.model_card:
                raise CliError(f"{version} has no card: it was not registered")
            typer.echo(found.model_card)
        elif as_lines:
            typer.echo(to_json(found))
        else:
            for line in views.lineage_lines(found):
                out.print(line)

    run(body)


def request_of(text: str) -> pb.LineageRequest:
    """What MODEL@VERSION asks for.

    Raises:
        CliError: It is no such text.
    """
    model, at, which = text.rpartition("@")
    if not (model and at and which):
        raise CliError(f"{text!r} names no version; write MODEL@VERSION, as in triage@3")
    if which.isascii() and which.isdigit():
        return pb.LineageRequest(model=model, version=int(which))
    if which.startswith("job-"):
        return pb.LineageRequest(model=model, job_id=which)
    return pb.LineageRequest(model=model, alias=which)
