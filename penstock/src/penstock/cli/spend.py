"""`penstock spend`: what the ledger says."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import typer
from rich.table import Table

from penstock.cli import options
from penstock.cli.run import out, run
from penstock.cli.settings import CliSettings
from penstock.codec import to_json
from penstock.rpc.channel import open_channel
from penstock.v1 import cost_service_pb2
from penstock.v1.cost_service_pb2_grpc import CostStub

__all__ = ["spend", "spend_table", "window"]

CALL_S = 20.0

Instant = Annotated[
    dt.datetime | None,
    typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="In UTC."),
]


def spend(
    tenant: Annotated[str | None, typer.Option(help="Only this one's.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this one's.")] = None,
    since: Instant = None,
    until: Instant = None,
    as_json: options.Json = False,
) -> None:
    """Show what was spent, exactly, by tenant, model and variant."""

    async def body(settings: CliSettings) -> None:
        request = window(tenant, model, since, until)
        async with open_channel(settings.cost_address) as channel:
            response = await CostStub(channel).GetSpend(request, timeout=CALL_S)
        if as_json:
            typer.echo(to_json(response))
        else:
            out.print(spend_table(response))

    run(body)


def window(
    tenant: str | None,
    model: str | None,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
) -> cost_service_pb2.GetSpendRequest:
    """What to add up; instants without a zone are UTC."""
    request = cost_service_pb2.GetSpendRequest(tenant=tenant or "", model=model or "")
    if since is not None:
        getattr(request, "from").FromDatetime(since)
    if until is not None:
        request.until.FromDatetime(until)
    return request


def spend_table(response: cost_service_pb2.GetSpendResponse) -> Table:
    """The groups with the total as the last row."""
    table = Table(show_footer=True)
    for name in ("tenant", "model", "variant", "prices"):
        table.add_column(name, footer="total" if name == "tenant" else "", overflow="fold")
    # An amount that is cut short is a wrong amount: numbers keep their width.
    for name, footer in (
        ("lines", str(response.lines)),
        ("prompt", ""),
        ("completion", ""),
        ("USD", response.total_usd or "0"),
    ):
        table.add_column(name, footer=footer, justify="right", no_wrap=True)
    for group in response.groups:
        table.add_row(
            group.tenant,
            group.model,
            group.variant,
            ", ".join(group.price_versions),
            str(group.lines),
            str(group.prompt_tokens),
            str(group.completion_tokens),
            group.amount_usd,
        )
    return table
