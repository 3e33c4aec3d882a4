"""`penstock rollout`: what takes the traffic, and who says so."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import typer

from penstock.cli import options
from penstock.cli.run import err, out, run
from penstock.cli.settings import CliSettings
from penstock.codec import to_json
from penstock.v1 import rollouts_service_pb2
from penstock_retrain.cli import views
from penstock_retrain.cli.calls import CALL_S, JobId, Model, Reason, operator, rollouts

__all__ = ["app"]

pb = rollouts_service_pb2
app = typer.Typer(
    no_args_is_help=True, help="Promote a job's candidate or roll it back; see who was champion."
)


@app.command(epilog="Example:  penstock rollout promote job-3f9c0a1b2c3d --reason 'looked at it'")
def promote(job: JobId, reason: Reason = "") -> None:
    """Make a job's candidate the champion without waiting for the canary's verdict."""

    async def body(_: CliSettings) -> None:
        request = pb.PromoteRequest(job_id=job, by=operator(), reason=reason)
        async with rollouts() as stub:
            found = await stub.Promote(request, timeout=CALL_S)
        out.print(f"{found.model}@{found.model_version}: {views.state_name(found.state)}")

    run(body)


@app.command(epilog="Example:  penstock rollout rollback triage --reason 'complaints'")
def rollback(model: Model, reason: Reason = "") -> None:
    """Take the candidate's traffic away; after a promotion, bring the champion before back.

    One record of `routes`. The job that put the version there ends as rolled back, and the version
    is retired.
    """

    async def body(_: CliSettings) -> None:
        request = pb.RollbackRequest(model=model, by=operator(), reason=reason)
        async with rollouts() as stub:
            found = await stub.Rollback(request, timeout=CALL_S)
        out.print(f"{found.job_id}: {views.state_name(found.state)}")

    run(body)


@app.command("continue", epilog="Example:  penstock rollout continue job-3f9c0a1b2c3d")
def continue_(job: JobId, reason: Reason = "") -> None:
    """Let the canary of an inconclusive job go on."""

    async def body(_: CliSettings) -> None:
        request = pb.ContinueRequest(job_id=job, by=operator(), reason=reason)
        async with rollouts() as stub:
            found = await stub.Continue(request, timeout=CALL_S)
        out.print(f"{job}: {views.state_name(found.state)}")

    run(body)


@app.command(epilog="Example:  penstock rollout history triage --as-of 2026-05-01T12:00:00")
def history(
    model: Model,
    as_of: Annotated[
        dt.datetime | None,
        typer.Option("--as-of", formats=options.FORMATS, help="Aliases as they were then; UTC."),
    ] = None,
    as_lines: options.Json = False,
) -> None:
    """Show a model's versions, and every change of its aliases."""

    async def body(_: CliSettings) -> None:
        request = pb.HistoryRequest(model=model)
        moment = options.utc(as_of)
        if moment is not None:
            request.as_of.FromDatetime(moment)
        async with rollouts() as stub:
            found = await stub.History(request, timeout=CALL_S)
        if as_lines:
            typer.echo(to_json(found))
            return
        if moment is not None:
            then = ", ".join(f"{a} {model}@{v}" for a, v in sorted(found.aliases.items()))
            out.print(f"at {moment.isoformat()}: {then or 'no alias named a version'}")
        if not found.versions:
            err.print(f"no job has made a version of {model}")
            return
        out.print(views.versions_table(found.versions))
        out.print(views.history_table(found.alias_changes))

    run(body)
