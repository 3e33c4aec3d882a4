"""`python -m penstock_native`: bring the stack up, look at it, take it down."""

import logging
import os
import signal
import subprocess
import sys
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from penstock_native.errors import NativeError
from penstock_native.settings import ROOT, port_variables
from penstock_native.stack import Stack

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The penstock stack as plain processes on this machine, Kafka included.",
)
_console = Console(stderr=True)


@app.command()
def up() -> None:
    """Start everything, wait until it takes requests, and leave it running."""
    stack = Stack()
    with _console.status("starting"):
        started = stack.up()
    if not started:
        _console.print(f"already up ({stack.state_dir}); `down` stops it")
        return
    _console.print(f"up. Logs: {stack.state_dir / 'log'}")
    _print_states(stack)


@app.command()
def down() -> None:
    """Stop everything; the data stay in the state directory."""
    with _console.status("stopping"):
        stopped = Stack().down()
    _console.print("down" if stopped else "nothing was running")


@app.command()
def status() -> None:
    """Show every service: state, process, uptime, ports. Exit code 3 when the stack is down."""
    stack = Stack()
    if not stack.is_up():
        _console.print("down; `make up` starts it")
        raise typer.Exit(3)
    _print_states(stack)


@app.command()
def logs(
    service: Annotated[
        str | None, typer.Argument(help="One service; all of them if left out.")
    ] = None,
) -> None:
    """Follow the logs until Ctrl-C."""
    stack = Stack()
    if service is not None and service not in stack.services:
        raise NativeError(f"no such service: {service}; there are {', '.join(stack.services)}")
    paths = [stack.log_path(name) for name in ([service] if service else stack.services)]
    found = [str(path) for path in paths if path.exists()]
    if not found:
        raise NativeError(f"no log yet in {paths[0].parent}")
    os.execvp("tail", ["tail", "-n", "50", "-F", *found])  # noqa: S606, S607 - becoming tail


@app.command()
def restart(
    service: Annotated[str, typer.Argument(help="Its name, as `status` shows it.")],
) -> None:
    """Stop one service in order and start it again."""
    stack = Stack()
    if not stack.is_up():
        raise NativeError("the stack is down: start it with `up`")
    stack.stop(service)
    stack.start(service)
    _console.print(f"{service} restarted")


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(help="After `--`: what to run.")],
    only: Annotated[
        str | None, typer.Option(help="Services to start, separated by commas; all if left out.")
    ] = None,
) -> None:
    """Run a command against a stack of its own: free ports, fresh data, nothing left behind.

    Exits with the command's code.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    with _console.status("starting a stack for this command"):
        ephemeral = Stack.ephemeral(services=only.split(",") if only else None)
        stack = ephemeral.__enter__()
    try:
        code = subprocess.call(command, env=stack.env, cwd=ROOT)  # noqa: S603 - the caller's
    except FileNotFoundError as error:
        raise NativeError(f"{command[0]}: no such command") from error
    finally:
        with _console.status("stopping"):
            ephemeral.__exit__(None, None, None)
    raise typer.Exit(code if code >= 0 else 128 - code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _print_states(stack: Stack) -> None:
    table = Table("service", "state", "pid", "up", "ports")
    for state in stack.states():
        seconds = state.now_s - state.started_at_s if state.pid else 0
        table.add_row(
            state.name,
            state.state.lower(),
            str(state.pid or "-"),
            f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}" if state.pid else "-",
            _ports(stack, state.name),
        )
    Console().print(table)


def _ports(stack: Stack, service: str) -> str:
    if service in stack.kafka_ports:
        return str(stack.kafka_ports[service])
    prefix = f"PENSTOCK_{service.upper()}_"
    return " ".join(
        f"{name.removeprefix(prefix).removesuffix('_PORT').lower()}:{stack.env[name]}"
        for name in port_variables()
        if name.startswith(prefix)
    )


def main() -> None:
    """Run the command line; an error of ours is one message and exit code 1."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=_console, show_path=False, show_level=False)],
    )
    try:
        app(prog_name="python -m penstock_native")
    except NativeError as error:
        _console.print("[bold red]error:[/]", escape(str(error)), highlight=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
