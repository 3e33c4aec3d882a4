"""Runs a command's coroutine and turns what went wrong into one line and an exit code."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TextIO

import grpc
import typer
from rich.console import Console
from rich.text import Text

from penstock.cli.settings import CliSettings
from penstock.errors import PenstockError
from penstock.kafka.ports import LogError
from penstock.rpc.errors import error_of
from penstock.settings import SettingsError

__all__ = ["FAILED", "UNREACHABLE", "CliError", "err", "make_console", "out", "read_text", "run"]

FAILED = 1  # the command did its work and the answer is no
UNREACHABLE = 3  # a part of the stack did not answer

WIDE = 10_000  # columns: more than any table has


def make_console(stream: TextIO, *, stderr: bool = False) -> Console:
    """What people wrote stays as it is, `[/ops]` and `:ok:` too: style comes by Text.

    Only a terminal's width cuts a table's cells; what is piped or kept has them whole.
    """
    cut = stream.isatty() or "COLUMNS" in os.environ
    return Console(
        stderr=stderr,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=True,
        width=None if cut else WIDE,
    )


# Results go to standard output and everything else to standard error, so that pipes stay clean.
out = make_console(sys.stdout)
err = make_console(sys.stderr, stderr=True)


class CliError(Exception):
    """A command cannot go on; the message is for people and names the remedy."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run(body: Callable[[CliSettings], Coroutine[Any, Any, None]]) -> None:
    """Runs a command with the environment's settings.

    Raises:
        typer.Exit: It failed; the reason is on standard error.
    """
    try:
        asyncio.run(body(CliSettings.load()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(130) from None
    except BrokenPipeError:
        raise typer.Exit(FAILED) from None
    except Exception as error:
        failure = _described(error)
        if failure is None:
            raise
        message, code = failure
        err.print(Text("error:", style="bold red"), message)
        raise typer.Exit(code) from None


def read_text(file: str) -> str:
    """The text of a file, or of standard input for `-`. Blocks.

    Raises:
        CliError: It cannot be read as UTF-8.
    """
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{file} cannot be read: {error}") from error


def _described(error: Exception) -> tuple[str, int] | None:
    match error:
        case CliError():
            return str(error), error.exit_code
        case LogError():
            unreachable = "cannot be reached" in str(error)
            remedy = "; start the stack with `make up`, or set PENSTOCK_KAFKA_BOOTSTRAP"
            return f"{error}{remedy * unreachable}", UNREACHABLE if unreachable else FAILED
        case grpc.aio.AioRpcError():
            return _rpc(error)
        case PenstockError():
            return (f"{error.field}: " if error.field else "") + error.message, FAILED
        case SettingsError():
            return str(error), FAILED
    return None


def _rpc(error: grpc.aio.AioRpcError) -> tuple[str, int]:
    if error.code() == grpc.StatusCode.UNAVAILABLE:
        return (
            f"no answer over gRPC: {error.details()}; start the stack with `make up`",
            UNREACHABLE,
        )
    found = error_of(error)
    field = f"{found.field}: " if found.field else ""
    return f"{error.code().name}: {field}{found.message}", FAILED
