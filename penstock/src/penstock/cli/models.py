"""`penstock models`: what requests may name, and what is done about a model in trouble."""

from __future__ import annotations

import typer
from rich.table import Table

from penstock.cli import measures, options
from penstock.cli.run import err, out, run
from penstock.cli.settings import CliSettings
from penstock.codec import to_json
from penstock.rpc.channel import open_channel
from penstock.v1 import inference_service_pb2
from penstock.v1.inference_service_pb2_grpc import InferenceStub

__all__ = ["app"]

CALL_S = 20.0

app = typer.Typer(epilog="Example:  penstock models")
app.command(
    epilog="Example:  penstock models scale triage --replicas 3 --for 2h --reason 'a launch'"
)(measures.scale)
app.command(epilog="Example:  penstock models shed triage --priority-above 0 --for 10m")(
    measures.shed
)
app.command(epilog="Example:  penstock models restart triage")(measures.restart)
app.command(epilog="Example:  penstock models measures --json")(measures.measures)
app.command(epilog="Example:  penstock models end m-1f0c39a2b7d4")(measures.end)


@app.callback(invoke_without_command=True)
def models(context: typer.Context, as_json: options.Json = False) -> None:
    """List the models that the door routes; scale, shed and restart them for a while."""
    if context.invoked_subcommand is not None:
        return

    async def body(settings: CliSettings) -> None:
        async with open_channel(settings.ingest_address) as channel:
            listed = await InferenceStub(channel).ListModels(
                inference_service_pb2.ListModelsRequest(), timeout=CALL_S
            )
        if as_json:
            for model in listed.models:
                typer.echo(to_json(model))
            return
        if not listed.models:
            err.print("no models; route one with: penstock routes apply FILE")
            return
        table = Table("model", "route version", "variants")
        for model in listed.models:
            table.add_row(model.name, str(model.route_version), ", ".join(model.variants))
        out.print(table)

    run(body)
