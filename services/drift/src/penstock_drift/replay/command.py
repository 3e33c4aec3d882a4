"""`penstock drift replay`: what was found in a window, found again."""

from __future__ import annotations

import datetime as dt
import json
from typing import Annotated

import typer
from rich.table import Table

from penstock.cli.log import read_all, reading, require_topic
from penstock.cli.options import FORMATS, Json, utc
from penstock.cli.run import CliError, err, out, run
from penstock.cli.settings import CliSettings
from penstock.codec import decode, to_json
from penstock.errors import InvalidRequest
from penstock.kafka.ends import LogEnds
from penstock.kafka.reader import Start
from penstock.records import Record
from penstock.v1 import drift_pb2
from penstock_drift.channels.bank import CatalogueBank
from penstock_drift.findings.wire import event_to_wire
from penstock_drift.records.signal_wire import from_record
from penstock_drift.replay.replaying import Difference, Replay, differences
from penstock_drift.signals.catalogue import CATALOGUE

__all__ = ["replay"]

PATIENCE_S = 3600.0

# Event time, as events carry it.
_Begin = Annotated[
    dt.datetime, typer.Option("--from", formats=FORMATS, help="Of the window; in UTC.")
]
_End = Annotated[
    dt.datetime | None,
    typer.Option("--to", formats=FORMATS, help="Of the window; now when left out."),
]


def replay(
    begin: _Begin,
    end: _End = None,
    topic_prefix: Annotated[
        str | None, typer.Option(help="Another deployment's; PENSTOCK_TOPIC_PREFIX if left out.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Fail unless `drift` holds the same, one by one.")
    ] = False,
    as_lines: Json = False,
) -> None:
    """Fold all of `signals` again and print the drift events of a window of event time."""

    async def body(settings: CliSettings) -> None:
        if topic_prefix is not None:
            settings = settings.model_copy(update={"topic_prefix": topic_prefix})
        window = utc(begin), utc(end) or dt.datetime.now(dt.UTC)
        events = [event for event in await _replayed(settings) if _within(event, window)]
        _show(events, as_lines)
        if compare:
            written = [
                event
                for record in await read_all(settings, await require_topic(settings, "drift"))
                if _within(event := decode(record, drift_pb2.DriftEvent), window)
            ]
            _compare(differences(events, written), len(written))

    run(body)


async def _replayed(settings: CliSettings) -> list[drift_pb2.DriftEvent]:
    topic = await require_topic(settings, "signals")
    ends = LogEnds(settings.kafka_bootstrap, topic)
    try:
        partitions = len(await ends.read())
    finally:
        await ends.stop()
    found = Replay(partitions, CatalogueBank(CATALOGUE), CATALOGUE)
    cut: set[int] = set()
    seen: set[int] = set()

    def on_record(record: Record) -> None:
        number = record.partition.number
        if number not in seen and record.offset > 0:
            cut.add(number)
        seen.add(number)
        try:
            item = from_record(record)
        except InvalidRequest:
            return  # the fold has put it on the dlq
        if item is not None:
            found.take(number, record.offset, item)

    async with reading(settings, topic, Start.BEGINNING, on_record, patience_s=PATIENCE_S):
        pass
    if cut:
        err.print(
            f"the beginning of {len(cut)} partitions is no longer kept: baselines are measured "
            "from what is left, and events may differ from those of the time",
            style="yellow",
        )
    err.print(f"folded {found.observations} observations of {partitions} partitions")
    return [event_to_wire(event) for event in found.events]


def _within(event: drift_pb2.DriftEvent, window: tuple[dt.datetime | None, dt.datetime]) -> bool:
    begin, end = window
    detected = event.detected_at.ToDatetime(dt.UTC)
    return (begin is None or begin <= detected) and detected < end


def _show(events: list[drift_pb2.DriftEvent], as_lines: bool) -> None:
    if as_lines:
        for event in events:
            typer.echo(json.dumps(json.loads(to_json(event)), ensure_ascii=False))
        return
    table = Table("detected", "model/variant", "segment", "signal", "state", "before", "after")
    for event in events:
        table.add_row(
            event.detected_at.ToDatetime().isoformat(timespec="seconds"),
            f"{event.model}/{event.variant}",
            event.segment,
            event.signal,
            drift_pb2.DriftState.Name(event.state).removeprefix("DRIFT_STATE_").lower(),
            f"{event.mean_before:.4g}",
            f"{event.mean_after:.4g}",
        )
    out.print(table)


def _compare(found: list[Difference], written: int) -> None:
    if not found:
        err.print(f"the {written} events on `drift` are the same, one by one")
        return
    for each in found[:10]:
        one = each.replayed or each.written
        assert one is not None
        what = (
            "differs"
            if each.replayed and each.written
            else "only replayed"
            if each.replayed
            else "only on `drift`"
        )
        err.print(f"{what}: {one.event_id} {one.signal} of {one.model}/{one.variant}")
    raise CliError(f"{len(found)} events differ between the replay and `drift`")
