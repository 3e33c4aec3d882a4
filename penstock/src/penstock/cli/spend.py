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

__all__ = ["spend", "window"]

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
            out.print(_table(response))

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


def _table(response: cost_service_pb2.GetSpendResponse) -> Table:
    table = Table(show_footer=True)
    total = f"{response.total_usd or '0'} USD"
    for name, footer in (
        ("tenant", "total"),
        ("model", ""),
        ("variant", ""),
        ("lines", str(response.lines)),
        ("prompt", ""),
        ("completion", ""),
        ("prices", ""),
        ("amount", total),
    ):
        justify = "right" if name in ("lines", "prompt", "completion", "amount") else "left"
        table.add_column(name, footer=footer, justify=justify)  # type: ignore[arg-type]
    for group in response.groups:
        table.add_row(
            group.tenant,
            group.model,
            group.variant,
            str(group.lines),
            str(group.prompt_tokens),
            str(group.completion_tokens),
            ", ".join(group.price_versions),
            f"{group.amount_usd} USD",
        )
    return table
