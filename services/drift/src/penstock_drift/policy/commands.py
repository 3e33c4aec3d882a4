"""`penstock drift policy`: what is looked for and what is done about it."""

from __future__ import annotations

import datetime as dt
import getpass
import json
from typing import Annotated

import typer

from penstock.cli import options
from penstock.cli.log import publisher, read_all, require_topic
from penstock.cli.run import CliError, err, out, read_text, run
from penstock.cli.settings import CliSettings
from penstock_drift.policy import versions
from penstock_drift.policy.document import PolicyError, default_document, parse_policy

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="See and set the policy; workers take it over live.")

File = Annotated[str, typer.Argument(metavar="FILE", help="The policy, YAML; - is stdin.")]


@app.command(epilog="Example:  penstock drift policy show > policy.yaml")
def show(
    default: Annotated[bool, typer.Option("--default", help="The one that ships.")] = False,
    as_json: options.Json = False,
) -> None:
    """Print the policy in force, as it was written."""

    async def body(settings: CliSettings) -> None:
        if default:
            standing = versions.Standing(0, default_document())
        else:
            topic = await require_topic(settings, "policies")
            standing = versions.in_force(await read_all(settings, topic))
        if as_json:
            set_at = standing.set_at.isoformat() if standing.set_at else None
            parsed = parse_policy(standing.document).model_dump(mode="json")
            shown = {"version": standing.version, "set_by": standing.set_by, "set_at": set_at}
            typer.echo(json.dumps(shown | {"policy": parsed}))
            return
        typer.echo(standing.document.rstrip("\n"))
        told = f"version {standing.version}" if standing.version else "the default; nobody set one"
        err.print(f"{told}{f', set by {standing.set_by}' if standing.set_by else ''}")

    run(body)


@app.command(epilog="Example:  penstock drift policy check policy.yaml")
def check(file: File) -> None:
    """Say what is wrong with a policy; needs no stack."""

    async def body(_: CliSettings) -> None:
        _checked(read_text(file), file)
        out.print(f"{file}: is a policy")

    run(body)


@app.command("set", epilog="Example:  penstock drift policy set policy.yaml")
def set_(
    file: File,
    version: Annotated[
        int | None, typer.Option(min=1, help="Its version; the next one when left out.")
    ] = None,
) -> None:
    """Put a policy in force. What is in force already is left alone.

    Workers take it over at one place of the log of `signals`, so that a replay does too.
    """

    async def body(settings: CliSettings) -> None:
        document = read_text(file)
        _checked(document, file)
        topic = await require_topic(settings, "policies")
        standing = versions.in_force(await read_all(settings, topic))
        now = dt.datetime.now(dt.UTC)
        try:
            made = versions.next_version(
                document, standing, version=version, by=_operator(), now=now
            )
            if made is None:
                out.print(f"version {standing.version} says so already; nothing is written")
                return
            async with publisher(settings) as to:
                await to.publish([versions.policy_record(made, topic)])
            versions.check_alone(made, await read_all(settings, topic))
        except versions.Refused as error:
            raise CliError(str(error)) from error
        out.print(f"version {made.version} is in force")

    run(body)


def _checked(document: str, file: str) -> None:
    try:
        parse_policy(document)
    except PolicyError as error:
        lines = "\n".join(f"{file}: {line}" for line in str(error).splitlines())
        raise CliError(lines) from error


def _operator() -> str:
    # A container may have no name for its user.
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
