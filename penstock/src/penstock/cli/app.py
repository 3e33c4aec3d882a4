"""The `penstock` command: its groups and its entry point."""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from typing import Annotated

import structlog
import typer

from penstock.cli import (
    alerts,
    cancel,
    consumers,
    demo,
    dlq,
    feedback,
    generate,
    models,
    publish,
    replay,
    routes,
    spend,
    tail,
    topics,
)

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Settings come from PENSTOCK_* variables, as `make up` and compose/.env set them.",
)
app.add_typer(topics.app, name="topics")
app.add_typer(routes.app, name="routes")
app.add_typer(dlq.app, name="dlq")
app.add_typer(consumers.app, name="consumers")
app.add_typer(alerts.app, name="alerts")
app.add_typer(models.app, name="models")
app.command(epilog="Example:  penstock publish -m 'My invoice is wrong' --tenant support --wait")(
    publish.publish
)
app.command(epilog="Example:  penstock tail responses --from-beginning --count 3 --json")(tail.tail)
app.command(epilog="Example:  penstock generate 'My invoice is wrong' --stream")(generate.generate)
app.command(epilog="Example:  penstock cancel req-0f3c... --tenant support")(cancel.cancel)
app.command(epilog="Example:  penstock feedback 0f3c... --label billing --tenant support")(
    feedback.feedback
)
app.command(
    epilog="Example:  penstock replay --from 2026-05-01T10:00:00 --to 2026-05-01T10:20:00 "
    "--model triage --variant triage-lora-7"
)(replay.replay)
app.command(epilog="Example:  penstock spend --tenant support --since 2026-01-01")(spend.spend)
app.command(epilog="Example:  penstock demo --limit 200 --rate 50 --json-out demo.json")(demo.demo)
# What a service adds where it is installed: the kit knows no service by name.
for found in sorted(entry_points(group="penstock.commands"), key=lambda each: each.name):
    group = found.load()
    if [command.callback.__name__ for command in group.registered_commands] == [found.name]:
        # A command of its own group's name is meant as a command: `penstock lineage`.
        app.registered_commands.extend(group.registered_commands)
    else:
        app.add_typer(group, name=found.name)


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
