"""`penstock replay`: what was admitted in a window of time, run again."""

from __future__ import annotations

import asyncio
import datetime as dt
import json as jsonlib
import secrets
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from penstock.cli import options, routes_plan
from penstock.cli.log import CLIENT_ID, read_all, reading, require_topic
from penstock.cli.replay_plan import Asked, Found, Original, Tally, Window, pin, repeat, replay_id
from penstock.cli.replay_spend import Cost, spend_of
from penstock.cli.run import CliError, err, out, run
from penstock.cli.settings import CliSettings
from penstock.kafka.reader import Start
from penstock.kafka.transactions import TransactionalPublisher

__all__ = ["replay", "report", "report_table"]

READ_S = 600.0
CHUNK = 100
SHOW_EVERY_S = 2.0
# A response is written a little after the deadline that ended its request.
GRACE_S = 30.0

From = Annotated[dt.datetime, typer.Option("--from", formats=options.FORMATS, help="In UTC.")]
To = Annotated[dt.datetime, typer.Option("--to", formats=options.FORMATS, help="In UTC.")]


def replay(
    start: From,
    end: To,
    model: Annotated[str | None, typer.Option(help="Only requests for this model.")] = None,
    variant: Annotated[
        str | None, typer.Option(help="Who answers; who answered before when left out.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this one's requests.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The first so many.")] = 10_000,
    rate: Annotated[float, typer.Option(min=0.1, help="Requests per second.")] = 50.0,
    timeout_s: Annotated[
        float | None, typer.Option(min=1, max=86_400, help="How long each may take.")
    ] = None,
    charge_to: Annotated[
        str | None, typer.Option(help="Who pays; whose request it was when left out.")
    ] = None,
    run_id: Annotated[
        str | None, typer.Option(help="Names the run: a second time only what is missing is sent.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the answers.")] = True,
    dry_run: Annotated[bool, typer.Option(help="Show what would be sent.")] = False,
    as_json: options.Json = False,
) -> None:
    """Run past requests again, as they were or by another variant, and compare the answers.

    Responses go to `replays` and never to a caller. Each replay is charged, as a replay. Ends with
    exit code 1 when one has no response by its deadline.
    """

    async def body(settings: CliSettings) -> None:
        window = _window(start, end, model, tenant, limit)
        name = run_id or f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
        asked = Asked(name, variant, charge_to, timeout_s)
        running = _Run(settings, window, asked)
        await running.go(rate=rate, wait=wait, dry_run=dry_run, as_json=as_json)

    run(body)


class _Run:
    """One run: find, check, send, wait, tell."""

    def __init__(self, settings: CliSettings, window: Window, asked: Asked) -> None:
        self._settings = settings
        self._window = window
        self._asked = asked
        self._sent = 0

    async def go(self, *, rate: float, wait: bool, dry_run: bool, as_json: bool) -> None:
        settings, asked = self._settings, self._asked
        admitted = await require_topic(settings, "admitted")
        # Whoever runs under the same name ends the other, and then reads all that it wrote.
        to = TransactionalPublisher(
            settings.kafka_bootstrap, CLIENT_ID, f"{settings.topic_prefix}-replay-{asked.run_id}"
        )
        if not dry_run:
            await to.start()
        try:
            chosen, missing = await self._find(admitted)
            versions = await self._pinned(chosen)
            if dry_run or not chosen:
                self._tell_plan(chosen, missing)
                return
            tally = Tally(asked.run_id, (o.admitted.request_id for o in chosen))
            replays = await require_topic(settings, "replays")
            async with reading(
                settings,
                replays,
                Start.at(self._window.end),
                tally.take_replay,
                patience_s=READ_S,
            ):
                await self._send(to, admitted, missing, versions, rate, tally)
                if wait:
                    await self._await(tally, self._last_deadline(chosen))
        except (asyncio.CancelledError, KeyboardInterrupt):
            self._tell_interrupted()
            raise
        finally:
            await to.stop()
        if wait:
            await self._conclude(tally, as_json)
        else:
            err.print(
                f"{self._sent} sent as run {asked.run_id}; the same command with "
                f"--run-id {asked.run_id} waits for the answers"
            )

    async def _find(self, topic: str) -> tuple[list[Original], list[Original]]:
        found = Found(self._window, self._asked.run_id)
        start = Start.at(self._window.start)
        async with reading(self._settings, topic, start, found.take, patience_s=READ_S):
            pass
        chosen = found.chosen()
        if found.matching > len(chosen):
            err.print(
                f"{found.matching} requests are in the window; the first {len(chosen)} are "
                "taken (--limit)"
            )
        missing = [
            o
            for o in chosen
            if replay_id(o.admitted.request_id, self._asked.run_id) not in found.written
        ]
        if len(missing) < len(chosen):
            err.print(f"{len(chosen) - len(missing)} were sent before under this run id")
        return chosen, missing

    async def _pinned(self, chosen: Sequence[Original]) -> dict[str, int]:
        topic = await require_topic(self._settings, "routes")
        routes = routes_plan.newest(await read_all(self._settings, topic))
        return pin(chosen, routes, self._asked.variant)

    async def _send(
        self,
        to: TransactionalPublisher,
        topic: str,
        missing: Sequence[Original],
        versions: dict[str, int],
        rate: float,
        tally: Tally,
    ) -> None:
        size = max(1, min(CHUNK, int(rate)))
        begun_s = time.monotonic()
        for first in range(0, len(missing), size):
            await asyncio.sleep(max(0.0, begun_s + first / rate - time.monotonic()))
            chunk = missing[first : first + size]
            now = dt.datetime.now(dt.UTC)
            await to.publish(
                [
                    repeat(
                        original,
                        self._asked,
                        topic=topic,
                        route_version=versions[original.admitted.request.model],
                        now=now,
                    )
                    for original in chunk
                ]
            )
            self._sent += len(chunk)
            self._show(tally, len(missing))

    async def _await(self, tally: Tally, deadline: dt.datetime) -> None:
        next_show_s = time.monotonic()
        while tally.ended < tally.expected and dt.datetime.now(dt.UTC) < deadline:
            if time.monotonic() >= next_show_s:
                self._show(tally, self._sent)
                next_show_s += SHOW_EVERY_S
            await asyncio.sleep(0.1)

    def _last_deadline(self, chosen: Sequence[Original]) -> dt.datetime:
        spans = (self._asked.span_s(original) for original in chosen)
        return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=max(spans) + GRACE_S)

    async def _conclude(self, tally: Tally, as_json: bool) -> None:
        settings = self._settings
        responses = await require_topic(settings, "responses")
        start = Start.at(self._window.start)
        async with reading(settings, responses, start, tally.take_original, patience_s=READ_S):
            pass
        cost = await spend_of(settings, tally)
        found = report(self._asked.run_id, tally, self._sent, cost)
        if as_json:
            typer.echo(jsonlib.dumps(found))
        else:
            out.print(report_table(found))
        if tally.ended < tally.expected:
            raise CliError(
                f"{tally.expected - tally.ended} of {tally.expected} have no response yet; the "
                f"same command with --run-id {self._asked.run_id} looks again and sends nothing "
                "twice"
            )

    def _show(self, tally: Tally, total: int) -> None:
        err.print(
            f"run {self._asked.run_id}: {self._sent} of {total} sent, "
            f"{tally.ended} of {tally.expected} ended"
        )

    def _tell_plan(self, chosen: Sequence[Original], missing: Sequence[Original]) -> None:
        models = sorted(
            {
                f"{o.admitted.request.model}/{self._asked.variant or o.admitted.variant}"
                for o in chosen
            }
        )
        err.print(
            f"{len(missing)} of {len(chosen)} requests would be sent to {', '.join(models)}"
            if chosen
            else "no request of the window is meant; nothing was sent"
        )

    def _tell_interrupted(self) -> None:
        err.print(
            f"interrupted: {self._sent} were sent as run {self._asked.run_id} and will be answered "
            f"on `replays`; the same command with --run-id {self._asked.run_id} goes on"
        )


def report(run_id: str, tally: Tally, sent: int, cost: Cost) -> dict[str, Any]:
    """What came of a run, as JSON-able data.

    Args:
        run_id: The run.
        tally: What came back.
        sent: Requests that this call sent.
        cost: What the ledger says, or why it does not.
    """
    prompt_tokens, completion_tokens = tally.tokens()
    return {
        "run_id": run_id,
        "requests": tally.expected,
        "sent": sent,
        "ended": tally.ended,
        "outcomes": dict(sorted(tally.outcomes().items())),
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "cost_usd": cost.usd,
        "cost_note": cost.note,
        "answers": dict(sorted(tally.comparison().items())),
    }


def report_table(found: dict[str, Any]) -> Table:
    """The same for people."""
    table = Table(f"run {found['run_id']}", "")
    table.add_row("requests", f"{found['requests']}, {found['sent']} of them sent now")
    for outcome, count in found["outcomes"].items():
        table.add_row(outcome, str(count))
    table.add_row(
        "tokens", f"{found['prompt_tokens']} of prompts, {found['completion_tokens']} generated"
    )
    table.add_row("USD", f"{found['cost_usd'] or '-'} ({found['cost_note']})")
    for verdict, count in found["answers"].items():
        table.add_row(f"answers: {verdict}", str(count))
    return table


def _window(
    start: dt.datetime, end: dt.datetime, model: str | None, tenant: str | None, limit: int
) -> Window:
    first, last = start.replace(tzinfo=dt.UTC), end.replace(tzinfo=dt.UTC)
    # What is sent stands after the window, where a second run looks for it.
    last = min(last, dt.datetime.now(dt.UTC))
    if first >= last:
        raise CliError("--from must be before --to, and before now")
    return Window(first, last, model, tenant, limit)
