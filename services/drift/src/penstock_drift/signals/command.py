"""`penstock drift signals`: what is watched, and where it stands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from penstock.cli import options
from penstock.cli.run import err, out, run
from penstock.cli.settings import CliSettings
from penstock.codec import to_json
from penstock.rpc.channel import open_channel
from penstock.v1 import drift_pb2, drift_service_pb2
from penstock.v1.drift_service_pb2_grpc import DriftStub
from penstock_drift.signals.declared import Declaration

__all__ = ["catalogue_table", "signals", "status_table"]

CALL_S = 20.0


def signals(
    model: Annotated[str, typer.Option(help="Only this one's.")] = "",
    variant: Annotated[str, typer.Option(help="Only this one's.")] = "",
    segment: Annotated[str, typer.Option(help="Only this one's, as LABEL=VALUE.")] = "",
    signal: Annotated[str, typer.Option(help="Only this one.")] = "",
    catalogue: Annotated[
        bool, typer.Option("--catalogue", help="What can be watched instead; needs no stack.")
    ] = False,
    as_lines: options.Json = False,
) -> None:
    """Show where each signal of each model, variant and segment stands, as last saved."""

    async def body(settings: CliSettings) -> None:
        if catalogue:
            _show_catalogue(as_lines)
            return
        request = drift_service_pb2.GetSignalsRequest(
            model=model, variant=variant, segment=segment, signal=signal
        )
        async with open_channel(settings.drift_address) as channel:
            found = await DriftStub(channel).GetSignals(request, timeout=CALL_S)
        if as_lines:
            for status in found.signals:
                typer.echo(json.dumps(json.loads(to_json(status))))
        elif found.signals:
            out.print(status_table(found.signals))
        else:
            err.print("nothing of this is watched yet: is there traffic?")

    run(body)


def status_table(statuses: Iterable[drift_service_pb2.SignalStatus]) -> Table:
    """One row for each signal of each key."""
    shown = Table(
        *("model", "variant", "segment", "signal"),
        Column("state", no_wrap=True),
        *(
            Column(name, justify="right", no_wrap=True)
            for name in ("baseline", "mean", "recent", "values", "evidence")
        ),
    )
    for each in statuses:
        state = drift_pb2.DriftState.Name(each.state).removeprefix("DRIFT_STATE_").lower()
        have = f"{each.baseline_observations}/{each.baseline_needed}"
        shown.add_row(
            *(Text(name) for name in (each.model, each.variant, each.segment or "all")),
            Text(each.signal),
            state,
            have if state == "warming" else str(each.baseline_observations),
            f"{each.baseline_mean:.4g}",
            f"{each.recent_mean:.4g}",
            str(each.observations),
            f"e^{each.log_evidence:.1f}",
        )
    return shown


def catalogue_table(catalogue: Mapping[str, Declaration]) -> Table:
    """One row for each signal that there is."""
    shown = Table(
        Column("signal", no_wrap=True), "type", "kind", "from", "unit", "worse when", "meaning"
    )
    for each in catalogue.values():
        worse = {None: "-", True: "higher", False: "lower"}[each.higher_is_worse]
        names = (each.name, each.type.value, each.kind.value, each.origin.value)
        shown.add_row(*names, each.unit or "-", worse, Text(each.meaning))
    return shown


def _show_catalogue(as_lines: bool) -> None:
    from penstock_drift.signals.catalogue import CATALOGUE  # not at the start of every command

    if not as_lines:
        out.print(catalogue_table(CATALOGUE))
        return
    for each in CATALOGUE.values():
        line = {
            "name": each.name,
            "type": each.type.value,
            "kind": each.kind.value,
            "origin": each.origin.value,
            "unit": each.unit,
            "higher_is_worse": each.higher_is_worse,
            "meaning": each.meaning,
        }
        typer.echo(json.dumps(line))
