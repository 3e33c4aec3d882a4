"""`penstock dataset`: files of fine-tuning examples in and out, and what a dataset is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Coroutine
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.run import CliError, out, run
from penstock.cli.settings import CliSettings

if TYPE_CHECKING:
    from penstock_retrain.dataset.writing import Dataset

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="Bring fine-tuning examples in and out, and look at datasets."
)

# pyarrow and what stands on it take a while to load: only the commands that need them do.


class FormName(StrEnum):
    """OpenAI's forms of a line."""

    SFT = "sft"
    PREFERENCE = "preference"


class SplitName(StrEnum):
    """Which rows; `all` is every split."""

    TRAIN = "train"
    VALIDATION = "validation"
    GOLDEN = "golden"
    ALL = "all"


Directory = Annotated[Path, typer.Argument(help="The dataset's directory.")]


@app.command("import", epilog="Example:  penstock dataset import examples.jsonl --out my-dataset")
def import_(
    file: Annotated[str, typer.Argument(help="JSON lines in OpenAI's form; - is standard input.")],
    directory: Annotated[Path, typer.Option("--out", help="The dataset's directory, a new one.")],
    form: Annotated[
        FormName | None, typer.Option(help="What lines are; as the first one when left out.")
    ] = None,
    validation: Annotated[float, typer.Option(min=0, max=0.5, help="Share of questions.")] = 0.1,
    golden: Annotated[float, typer.Option(min=0, max=0.4, help="Share of questions.")] = 0.1,
) -> None:
    """Make a dataset of a file of examples; every fault is named with its line and field."""

    def body() -> None:
        from penstock_retrain.dataset.importing import import_lines
        from penstock_retrain.dataset.policy import SplitShares

        shares = SplitShares(validation=validation, golden=golden)
        dataset = import_lines(_bytes(file), directory, form and form.value, shares)
        splits = ", ".join(f"{split} {count}" for split, count in dataset.splits.items())
        out.print(f"{dataset.rows} rows ({splits})\n{dataset.digest}")

    _run(body)


@app.command(epilog="Example:  penstock dataset export my-dataset --split train --out train.jsonl")
def export(
    directory: Directory,
    form: Annotated[FormName, typer.Option(help="What lines are to be.")] = FormName.SFT,
    split: Annotated[SplitName, typer.Option(help="Which rows.")] = SplitName.TRAIN,
    file: Annotated[str, typer.Option("--out", help="Where to; - is standard output.")] = "-",
) -> None:
    """Write a dataset's rows as OpenAI fine-tuning JSON lines."""

    def body() -> None:
        from penstock_retrain.dataset.importing import export_lines

        lines, passed_over = export_lines(directory, form.value, split.value)
        text = "".join(f"{line}\n" for line in lines)
        if file == "-":
            sys.stdout.write(text)
        else:
            Path(file).write_text(text, encoding="utf-8")
        if passed_over:
            typer.echo(f"{passed_over} rows have no rejected answer and are left out", err=True)

    _run(body)


@app.command(epilog="Example:  penstock dataset show my-dataset --verify")
def show(
    directory: Directory,
    verify: Annotated[bool, typer.Option(help="Compare all rows with the digest.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a dataset holds, where it comes from, and what was left out."""

    def body() -> None:
        from penstock_retrain.dataset.writing import open_dataset, verify_dataset

        dataset = verify_dataset(directory) if verify else open_dataset(directory)
        if as_json:
            sys.stdout.write(json.dumps(dataset.facts(), sort_keys=True) + "\n")
        else:
            _print(dataset)

    _run(body)


@app.command(
    epilog="Example:  penstock dataset select triage --from .penstock/collected --out dataset-1"
)
def select(
    model: Annotated[str, typer.Argument(help="The route whose answers are learnt from.")],
    url: Annotated[str, typer.Option("--from", help="Where the collector's files are.")],
    directory: Annotated[Path, typer.Option("--out", help="The dataset's directory.")],
    policy: Annotated[
        Path | None, typer.Option(help="YAML with a part `dataset`; defaults when left out.")
    ] = None,
    until_ms: Annotated[
        int | None, typer.Option(help="Nothing from here on, ms since 1970; now when left out.")
    ] = None,
    drifted: Annotated[
        list[str] | None, typer.Option(help="A segment that drifted: task=refund. Repeatable.")
    ] = None,
    again: Annotated[
        Path | None, typer.Option(help="An earlier dataset, whose selection is made again.")
    ] = None,
) -> None:
    """Make a dataset of what was collected, as a job does."""

    async def body(_: CliSettings) -> None:
        from penstock_retrain.dataset.building import select_dataset
        from penstock_retrain.dataset.importing import selection_again, selection_of
        from penstock_retrain.dataset.store import FileStore

        if again is not None:
            selection = selection_again(again)
        else:
            text = "" if policy is None else policy.read_text(encoding="utf-8")
            selection = selection_of(model, text, until_ms, drifted or ())
        dataset = await select_dataset(
            FileStore(url),
            selection,
            directory,
            report=lambda message: typer.echo(message, err=True),
        )
        _print(dataset)

    run(_told(body))


def _bytes(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise CliError(f"{file} cannot be read: {error}") from error


def _run(body: Callable[[], None]) -> None:
    async def inside(_: CliSettings) -> None:
        body()

    run(_told(inside))


def _told(
    body: Callable[[CliSettings], Coroutine[Any, Any, None]],
) -> Callable[[CliSettings], Coroutine[Any, Any, None]]:
    """The same, with what may go wrong with datasets as one line for people."""

    async def told(settings: CliSettings) -> None:
        from penstock_retrain.dataset.errors import DatasetError

        try:
            await body(settings)
        except (DatasetError, OSError, ValueError, ImportError) as error:
            raise CliError(str(error)) from error

    return told


def _print(dataset: Dataset) -> None:
    facts = [
        ("digest", dataset.digest),
        *((split.value, count) for split, count in dataset.splits.items()),
        *sorted(dataset.counts.items()),
        *((f"left out: {reason}", count) for reason, count in dataset.left_out.items()),
        *((str(s), f"{first} to {last}") for s, (first, last) in sorted(dataset.sources.items())),
        *dataset.code.items(),
    ]
    width = max(len(name) for name, _ in facts)
    # Lines, since a table would cut a digest short where nothing is as wide as that.
    for name, fact in facts:
        out.print(f"{name:<{width}}  {fact}")
