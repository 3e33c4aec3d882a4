"""The `penstock` command: its groups and its entry point."""

from __future__ import annotations

import logging
from typing import Annotated

import structlog
import typer

from penstock.cli import routes, topics

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Operate penstock: topics, routes, requests, spend and the demonstration.",
    epilog="Settings come from PENSTOCK_* variables, as `make up` and compose/.env set them.",
)
app.add_typer(topics.app, name="topics")
app.add_typer(routes.app, name="routes")


@app.callback()
def configure(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what the libraries log.")
    ] = False,
) -> None:
    """Operate penstock: topics, routes, requests, spend and the demonstration."""
    # Errors reach people as one line of ours; a library's own account of them only doubles it.
    level = logging.INFO if verbose else logging.CRITICAL
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        processors=[structlog.stdlib.render_to_log_kwargs],
    )


def main() -> None:
    """Runs the command."""
    app()
