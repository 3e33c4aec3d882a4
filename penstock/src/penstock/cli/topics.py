"""`penstock topics`: the topics table against the cluster."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from penstock.cli import topics_reference
from penstock.cli.run import CliError, err, out, run
from penstock.cli.settings import CliSettings
from penstock.kafka.admin import KafkaAdmin, Sizes, plan
from penstock.topics import TOPICS, topic_of

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Create, adjust and describe penstock's topics.")


@app.command("list", epilog="Example:  penstock topics list")
def list_() -> None:
    """Show every declared topic and how the cluster has it."""

    async def body(settings: CliSettings) -> None:
        async with KafkaAdmin(settings.kafka_bootstrap) as admin:
            observed = await admin.observe(settings.topic_prefix)
        table = Table(Column("topic", no_wrap=True), "partitions", "retention", "cleanup", "key")
        for topic in TOPICS:
            seen = observed.get(topic.full_name(settings.topic_prefix))
            table.add_row(
                topic.full_name(settings.topic_prefix),
                str(seen.partitions) if seen else Text("not there", style="red"),
                topics_reference.retention(topic),
                "compact" if topic.compacted else "delete",
                topic.key,
            )
        out.print(table)

    run(body)


@app.command(epilog="Example:  penstock topics apply --work-partitions 8 --dry-run")
def apply(
    work_partitions: Annotated[
        int | None, typer.Option(min=1, help="Of requests, admitted, responses and their like.")
    ] = None,
    reply_partitions: Annotated[
        int | None, typer.Option(min=1, help="Of replies and tokens: one per ingest instance.")
    ] = None,
    replication_factor: Annotated[
        int | None, typer.Option(min=1, help="Copies of each partition of a new topic.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Show the changes and make none.")] = False,
) -> None:
    """Create what is missing and bring the rest to the declared settings.

    Applying twice changes nothing. Partitions are never taken away.
    """

    async def body(settings: CliSettings) -> None:
        sizes = Sizes(
            work=work_partitions or settings.work_partitions,
            reply=reply_partitions or settings.reply_partitions,
            replication=replication_factor or settings.replication_factor,
        )
        async with KafkaAdmin(settings.kafka_bootstrap) as admin:
            observed = await admin.observe(settings.topic_prefix)
            changes = plan(TOPICS, settings.topic_prefix, sizes, observed)
            if not dry_run:
                await admin.apply(changes, observed, sizes.replication)
        needed = [change for change in changes if change]
        for change in needed:
            out.print(f"{change.name}: {change}")
        if any(change.grows for change in changes):
            err.print("keys move with new partitions: order per key holds from here on only")
        verb = "would change" if dry_run else "changed"
        out.print(f"{len(needed)} of {len(changes)} topics {verb}")

    run(body)


@app.command(epilog="Example:  penstock topics describe responses")
def describe(name: Annotated[str, typer.Argument(help="A topic, without the prefix.")]) -> None:
    """Show one topic's declaration and its settings on the cluster."""

    async def body(settings: CliSettings) -> None:
        try:
            topic = topic_of(name.removeprefix(f"{settings.topic_prefix}."))
        except KeyError as error:
            raise CliError(str(error.args[0])) from error
        full = topic.full_name(settings.topic_prefix)
        async with KafkaAdmin(settings.kafka_bootstrap) as admin:
            seen = (await admin.observe(settings.topic_prefix)).get(full)
        table = Table(full, topic.meaning, show_header=True)
        table.add_row("record", topics_reference.record_name(topic))
        table.add_row("key", topic.key)
        table.add_row("written by", topic.writers)
        table.add_row("read by", topic.readers)
        if seen is None:
            table.add_row("on the cluster", "not there; create it with: penstock topics apply")
        else:
            table.add_row("partitions", f"{seen.partitions}, {seen.replication} of each")
            for key, value in sorted(topic.config().items()):
                drift = "" if seen.config.get(key) == value else f" (declared: {value})"
                table.add_row(key, f"{seen.config.get(key)}{drift}")
        out.print(table)

    run(body)


@app.command(epilog="Example:  penstock topics docs > docs/topics.md")
def docs() -> None:
    """Print the reference of all topics as Markdown."""
    typer.echo(topics_reference.markdown(), nl=False)


@app.command(epilog="Example:  penstock topics helm > k8s/penstock/files/topics.yaml")
def helm() -> None:
    """Print the topics as the Helm chart reads them."""
    typer.echo(topics_reference.helm_values(), nl=False)
