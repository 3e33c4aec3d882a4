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
from penstock.v1 import cost_service_pb2, usage_pb2
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
    """Show what was spent, exactly, by tenant, model, variant and kind of work."""

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
    """A row per group and kind; the last one is what is billed."""
    table = Table(show_footer=True)
    for name in ("tenant", "model", "variant", "kind", "prices"):
        table.add_column(name, footer="billed" if name == "tenant" else "", overflow="fold")
    # Few ledgers know of cache hits; the others keep the width.
    avoided = [("avoided USD", response.avoided_usd)] if _something(response.avoided_usd) else []
    # An amount that is cut short is a wrong amount: numbers keep their width.
    for name, footer in (
        ("lines", str(response.lines)),
        ("prompt", ""),
        ("completion", ""),
        ("USD", response.total_usd or "0"),
        *avoided,
    ):
        table.add_column(name, footer=footer, justify="right", no_wrap=True)
    for group in response.groups:
        for spent in group.kinds:
            table.add_row(
                group.tenant,
                group.model,
                group.variant,
                _kind(spent),
                ", ".join(group.price_versions),
                str(spent.lines),
                str(spent.prompt_tokens),
                str(spent.completion_tokens),
                spent.amount_usd,
                *([spent.avoided_usd if _something(spent.avoided_usd) else ""] if avoided else []),
            )
    if _something(response.unbilled_usd):
        table.caption = f"Not billed: {response.unbilled_usd} USD for shadow copies and probes."
    return table


def _something(amount_usd: str) -> bool:
    return amount_usd not in {"", "0"}


def _kind(spent: cost_service_pb2.KindSpend) -> str:
    known = usage_pb2.UsageKind.DESCRIPTOR.values_by_number.get(spent.kind)
    name = known.name if known is not None else f"kind {spent.kind}"
    text = name.removeprefix("USAGE_KIND_").lower().replace("_", " ")
    return text if spent.billed else f"{text} (not billed)"
