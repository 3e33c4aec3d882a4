"""What people wrote is shown as they wrote it: it is neither markup nor a code for an emoji."""

from __future__ import annotations

import datetime as dt
import io

import pytest
import typer
from rich.table import Table

from penstock.cli import measures, routes
from penstock.cli.consumers import standings_table
from penstock.cli.demo_tally import Claim
from penstock.cli.demo_view import claims_table
from penstock.cli.dlq import letters_table
from penstock.cli.letters import Shelf
from penstock.cli.replay import report_table
from penstock.cli.run import CliError, err, make_console, out, run
from penstock.cli.settings import CliSettings
from penstock.cli.spend import spend_table
from penstock.kafka.dlq import Letter
from penstock.kafka.groups import Standing
from penstock.kafka.progress import Progress
from penstock.measures import Kind, Measure
from penstock.records import Partition, Record
from penstock.v1 import cost_service_pb2, route_pb2

WRITTEN = r"[/ops] [inc-1] :ok: C:\[/x]"
NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
PARTITION = Partition(WRITTEN, 0)
ROUTE = route_pb2.Route(model=WRITTEN, variants=[route_pb2.Variant(name=WRITTEN)])
SPEND = cost_service_pb2.GetSpendResponse(
    groups=[
        cost_service_pb2.SpendGroup(tenant=WRITTEN, kinds=[cost_service_pb2.KindSpend(lines=1)])
    ]
)
LETTER = Letter(
    record=Record(PARTITION, 0, b"k", b"{}", (), 0),
    origin=PARTITION,
    origin_offset=0,
    origin_timestamp_ms=0,
    group=WRITTEN,
    service=WRITTEN,
    reason=WRITTEN,
    message=WRITTEN,
    error=WRITTEN,
    attempts=1,
    request_id=WRITTEN,
    tenant=WRITTEN,
)


@pytest.mark.parametrize("console", [out, err], ids=["out", "err"])
@pytest.mark.parametrize(
    "table",
    [
        measures._table([Measure("m", Kind.SCALE, "triage", NOW, NOW, "me", WRITTEN, replicas=2)]),
        routes._table([ROUTE]),
        spend_table(SPEND),
        letters_table([LETTER], Shelf(lambda _: True, with_values=False)),
        standings_table([Standing(WRITTEN, "Stable", 1, PARTITION, 0, 0, Progress())]),
        claims_table([Claim("it holds", True, WRITTEN)]),
        report_table(
            {
                "run_id": WRITTEN,
                "requests": 1,
                "sent": 1,
                "outcomes": {},
                "prompt_tokens": 1,
                "completion_tokens": 1,
                "cost_usd": "1",
                "cost_note": WRITTEN,
                "answers": {},
            }
        ),
    ],
    ids=["measures", "routes", "spend", "letters", "consumers", "claims", "replay"],
)
def test_a_table_shows_what_is_written(console, table, capsys, monkeypatch):
    # COLUMNS may have been read when it was made.
    monkeypatch.setattr(console, "_width", 300)
    console.print(table)
    said = capsys.readouterr()
    assert WRITTEN in said.out + said.err


@pytest.mark.parametrize("message", [WRITTEN, "a reason, ended by \\"])
def test_an_error_shows_what_is_written(message, capsys):
    async def body(_: CliSettings) -> None:
        raise CliError(message)

    with pytest.raises(typer.Exit):
        run(body)
    assert capsys.readouterr().err == f"error: {message}\n"


def test_only_a_terminal_cuts_what_a_table_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = "ab7443d0fbd05ec6" * 10
    table = Table("digest", "file")
    table.add_row(digest, digest)
    monkeypatch.delenv("COLUMNS", raising=False)
    for columns, whole in ((None, True), ("80", False)):
        if columns:
            monkeypatch.setenv("COLUMNS", columns)
        console = make_console(io.StringIO())
        with console.capture() as captured:
            console.print(table)
        assert (digest in captured.get()) is whole
