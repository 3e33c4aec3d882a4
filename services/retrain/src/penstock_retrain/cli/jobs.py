"""`penstock jobs`: what is being retrained, and what it waits for."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.cli import options
from penstock.cli.run import CliError, err, out, read_text, run
from penstock.cli.settings import CliSettings
from penstock.codec import to_json
from penstock.v1 import job_pb2, rollouts_service_pb2
from penstock_retrain.cli import views
from penstock_retrain.cli.calls import CALL_S, JobId, Model, Reason, operator, rollouts

__all__ = ["app"]

pb = rollouts_service_pb2
app = typer.Typer(no_args_is_help=True, help="See retraining jobs, start, approve and end them.")

_GOOD = (job_pb2.JOB_STATE_PROMOTED,)
MAX_PAGE = 200


@app.command("list", epilog="Example:  penstock jobs list --model triage --active")
def list_(
    model: Annotated[str | None, typer.Option(help="Only this one's.")] = None,
    active: Annotated[bool, typer.Option("--active", help="Only those that go on.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    as_lines: options.Json = False,
) -> None:
    """Show jobs, the newest first."""

    async def body(_: CliSettings) -> None:
        jobs: list[job_pb2.Job] = []
        token = ""
        async with rollouts() as stub:
            while len(jobs) < limit:
                page = await stub.ListJobs(
                    pb.ListJobsRequest(
                        model=model or "",
                        active=active,
                        page_size=min(MAX_PAGE, limit - len(jobs)),
                        page_token=token,
                    ),
                    timeout=CALL_S,
                )
                jobs.extend(page.jobs)
                token = page.next_page_token
                if not token:
                    break
        if as_lines:
            for job in jobs:
                typer.echo(to_json(job))
        elif jobs:
            out.print(views.job_table(jobs))
        else:
            err.print("no jobs; start one with: penstock jobs start MODEL")

    run(body)


@app.command(epilog="Example:  penstock jobs show job-3f9c0a1b2c3d")
def show(job: JobId, as_lines: options.Json = False) -> None:
    """Show a job: why it was started, what its stages found out, what happened to it."""

    async def body(_: CliSettings) -> None:
        async with rollouts() as stub:
            found = await stub.GetJob(pb.GetJobRequest(job_id=job), timeout=CALL_S)
            history = await stub.History(pb.HistoryRequest(job_id=job), timeout=CALL_S)
        if as_lines:
            typer.echo(to_json(found))
            return
        for line in views.job_lines(found, history.transitions):
            out.print(line)

    run(body)


@app.command(epilog="Example:  penstock jobs watch job-3f9c0a1b2c3d")
def watch(job: JobId, as_lines: options.Json = False) -> None:
    """Print what has happened to a job, then what happens, until it has ended.

    The exit code is 0 when it was promoted and 1 otherwise.
    """

    async def body(_: CliSettings) -> None:
        last = job_pb2.JOB_STATE_UNSPECIFIED
        async with rollouts() as stub:
            async for update in stub.WatchJob(pb.WatchJobRequest(job_id=job)):
                last = update.state
                if as_lines:
                    typer.echo(to_json(update))
                else:
                    out.print(views.update_line(update))
        if last not in _GOOD:
            raise CliError(f"{job} is {views.state_name(last)}; see: penstock jobs show {job}")

    run(body)


@app.command(epilog="Example:  penstock jobs start triage --reason 'new product line' --wait")
def start(
    model: Model,
    policy: Annotated[
        str | None, typer.Option(metavar="FILE", help="YAML instead of the service's; - is stdin.")
    ] = None,
    reason: Reason = "",
    key: Annotated[
        str | None,
        typer.Option("--idempotency-key", help="Two starts of a model with one key are one."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Watch it to its end.")] = False,
) -> None:
    """Start a retraining. A model has one active job at a time.

    Neither the policy's cool-down nor its budget keeps a person from it; its approvals do.
    """

    async def body(_: CliSettings) -> None:
        request = pb.StartJobRequest(
            model=model,
            policy=read_text(policy) if policy is not None else "",
            by=operator(),
            reason=reason,
            idempotency_key=key or "",
        )
        async with rollouts() as stub:
            made = await stub.StartJob(request, timeout=CALL_S)
            out.print(f"{made.job_id}: {views.state_name(made.state)}")
            if not wait:
                return
            async for update in stub.WatchJob(pb.WatchJobRequest(job_id=made.job_id)):
                out.print(views.update_line(update))

    run(body)


@app.command(epilog="Example:  penstock jobs approve job-3f9c0a1b2c3d --reason 'report read'")
def approve(job: JobId, reason: Reason = "") -> None:
    """Say yes to what a job waits for."""

    async def body(_: CliSettings) -> None:
        request = pb.ApproveRequest(job_id=job, by=operator(), reason=reason)
        async with rollouts() as stub:
            found = await stub.Approve(request, timeout=CALL_S)
        out.print(f"{job}: {views.state_name(found.state)}")

    run(body)


@app.command(epilog="Example:  penstock jobs abort job-3f9c0a1b2c3d --reason 'wrong data'")
def abort(job: JobId, reason: Reason = "") -> None:
    """End a job. Its candidate loses all traffic at once, and its files go."""

    async def body(_: CliSettings) -> None:
        request = pb.AbortRequest(job_id=job, by=operator(), reason=reason)
        async with rollouts() as stub:
            found = await stub.Abort(request, timeout=CALL_S)
        out.print(f"{job}: {views.state_name(found.state)}")

    run(body)
