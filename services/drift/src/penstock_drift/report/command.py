"""`penstock drift report`: an incident as a page that can be sent to somebody."""

from __future__ import annotations

import contextlib
import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.alerts import one_incident, read_book
from penstock.cli.log import read_all, require_topic
from penstock.cli.run import CliError, out, run
from penstock.cli.settings import CliSettings
from penstock.codec import decode
from penstock.errors import InvalidRequest
from penstock.v1 import alert_pb2
from penstock_drift.report.page import exemplars, report_page

__all__ = ["report"]


def report(
    incident: Annotated[str, typer.Argument(metavar="INCIDENT", help="Its id, or how it begins.")],
    file: Annotated[
        Path | None, typer.Option("--out", help="Where to write it; standard output otherwise.")
    ] = None,
    with_text: Annotated[
        bool, typer.Option("--with-text", help="Fetch prompts and answers of the samples too.")
    ] = False,
) -> None:
    """Write an incident's evidence as one page of HTML, with plots, that needs no network.

    It holds no prompt and no answer unless --with-text asks for those of its samples.
    """

    async def body(settings: CliSettings) -> None:
        book = await read_book(settings)
        found = one_incident(book, incident)
        if not found.alert.HasField("drift"):
            raise CliError(
                f"{found.id} is no incident of drift; see it with: penstock alerts show {found.id}"
            )
        topic = await require_topic(settings, "alerts")
        history = []
        for record in await read_all(settings, topic):
            with contextlib.suppress(InvalidRequest):
                alert = decode(record, alert_pb2.Alert)
                if alert.incident_id == found.id:
                    history.append(alert)
        from penstock_drift.signals.catalogue import CATALOGUE  # not at every command's start

        samples = None
        if with_text:
            from penstock_drift.report.texts import fetch_samples

            samples = await fetch_samples(
                settings.kafka_bootstrap, settings.topic_prefix, exemplars(history[-1])
            )
        page = report_page(
            history,
            made_at=dt.datetime.now(dt.UTC),
            units={name: declared.unit for name, declared in CATALOGUE.items()},
            samples=samples,
            words=found.acknowledgement,
        )
        if file is None:
            typer.echo(page, nl=False)
            return
        try:
            file.write_text(page, encoding="utf-8")
        except OSError as error:
            raise CliError(f"{file} cannot be written: {error}") from error
        out.print(f"{file}: {len(page) // 1024 + 1} KiB")

    run(body)
