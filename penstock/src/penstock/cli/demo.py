"""`penstock demo`: a stream of support tickets through a running stack, and what holds of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.cli.demo_run import Demonstration
from penstock.cli.demo_tally import claims, load_tickets
from penstock.cli.demo_view import Progress, claims_table, figures_table, report
from penstock.cli.prices import load_price
from penstock.cli.run import CliError, err, out, read_text, run
from penstock.cli.settings import CliSettings

__all__ = ["demo"]

TICKETS = Path("examples/triage/tickets.jsonl")


def demo(
    tickets: Annotated[Path, typer.Option(help="JSON lines: ticket_id, text, expected.")] = TICKETS,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Tickets a second; unset: as fast as it goes.")
    ] = None,
    timeout_s: Annotated[float, typer.Option(min=1, help="How long to wait for answers.")] = 300.0,
    min_accuracy: Annotated[
        float, typer.Option(min=0, max=1, help="The least share sorted rightly.")
    ] = 0.9,
    json_out: Annotated[Path | None, typer.Option(help="Where the results go, as JSON.")] = None,
) -> None:
    """Send support tickets through the running stack and check what penstock promises.

    Every ticket goes to Kafka as JSON and has to come back exactly once; the answers are compared
    with the labels, and the ledger with the responses to the last digit. The exit code is 1 when
    any of it does not hold.
    """

    async def body(settings: CliSettings) -> None:
        batch = load_tickets(read_text(str(tickets)), limit)
        price = load_price(settings.prices)
        async with Demonstration(settings, batch) as demonstration:
            err.print("waiting for the answer to a first request")
            await demonstration.await_first_answer(timeout_s)
            with Progress(err, len(batch)) as progress:
                await demonstration.send_and_await(rate, timeout_s, progress.show)
            spend = await demonstration.settled_spend()
            # Last of all, so that what came twice or late is seen.
            found = claims(await demonstration.recount(), spend, price, min_accuracy)
            numbers = demonstration.numbers()
        usd = spend.total_usd if spend is not None else None
        out.print(figures_table(numbers, len(batch), usd))
        out.print(claims_table(found))
        if json_out is not None:
            _write(
                json_out, report(demonstration.run_id, demonstration.tenant, numbers, found, usd)
            )
        failed = sum(not claim.holds for claim in found)
        if failed:
            raise CliError(f"{failed} of {len(found)} claims do not hold")

    run(body)


def _write(path: Path, result: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error.strerror}") from error
