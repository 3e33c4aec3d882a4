"""`penstock cache`: pairs to label, and the semantic cache's threshold from labelled ones.

The kit finds this group by its entry point, so that the command knows it wherever inference is
installed and the kit needs to know no service.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.table import Table

from penstock.cli.run import CliError, err, out, read_text, run
from penstock.cli.settings import CliSettings
from penstock.jsonlines import split_lines

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Calibrate the semantic cache.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(epilog="Example:  penstock cache pairs texts.jsonl > pairs.jsonl")
def pairs(
    texts: Annotated[str, typer.Argument(help="JSON lines with `text`, in order; - for stdin.")],
    answer_field: Annotated[
        str, typer.Option(help="The texts' field with the right answer: its equality is the label.")
    ] = "answer",
) -> None:
    """Print for each text the earlier one that the cache would offer, to be labelled.

    Where both have their right answer, the label is there already; else add `"same": true` or
    `false` to each line: whether the answer to the one is the answer to the other.
    """

    async def body(_: CliSettings) -> None:
        for line in _offers(_objects(read_text(texts)), answer_field):
            typer.echo(json.dumps(line, ensure_ascii=False))

    run(body)


@app.command(
    epilog="Example:  penstock cache calibrate --pairs pairs.jsonl --max-false-hit-rate 0.01"
)
def calibrate(
    pairs: Annotated[str, typer.Option(help="JSON lines with a, b and same; - for stdin.")],
    max_false_hit_rate: Annotated[
        float, typer.Option(min=0.0001, max=0.5, help="Share of hits that may be wrong.")
    ] = 0.01,
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.9999, help="That the share is not exceeded.")
    ] = 0.95,
    as_json: Json = False,
) -> None:
    """Find the least threshold whose hits are right often enough; 1 where there is none."""

    async def body(_: CliSettings) -> None:
        import numpy as np  # not at the start of every command

        from penstock_inference.caching import calibration
        from penstock_inference.caching.embedding import HashedNgrams

        embedder = HashedNgrams()
        labelled, equal = _labelled(_objects(read_text(pairs)))
        if equal:
            err.print(f"left out: {equal} pairs of equal texts, which the exact cache answers")
        cosines = calibration.similarities(embedder, [(a, b) for a, b, _ in labelled])
        same = np.array([same for *_, same in labelled], dtype=np.bool_)
        found = calibration.calibrate(cosines, same, max_false_hit_rate, confidence)
        if as_json:
            typer.echo(json.dumps({"embedder": embedder.name} | dataclasses.asdict(found)))
        else:
            out.print(_table(found.trials, confidence))
        if found.threshold is None:
            raise CliError(_refusal(found, len(labelled), max_false_hit_rate, confidence))
        if not as_json:
            out.print(
                f"PENSTOCK_INFERENCE_SEMANTIC_CACHE_THRESHOLD={found.threshold:.4f}  "
                f"(embedder {embedder.name}, {found.pairs} pairs)"
            )

    run(body)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise CliError(f"line {number} is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise CliError(f"line {number} is not an object")
        yield value


def _offers(lines: Iterator[dict[str, Any]], answer_field: str) -> Iterator[dict[str, Any]]:
    from penstock_inference.caching.calibration import nearest
    from penstock_inference.caching.embedding import HashedNgrams

    read = list(lines)
    if not all(isinstance(line.get("text"), str) for line in read):
        raise CliError("every line needs a `text`")
    texts = [line["text"] for line in read]
    for offer in nearest(HashedNgrams().embed(texts)):
        a, b = read[offer.text], read[offer.earlier]
        pair: dict[str, Any] = {"a": a["text"], "b": b["text"]}
        pair["similarity"] = round(offer.similarity, 4)
        if answer_field in a and answer_field in b:
            pair["same"] = a[answer_field] == b[answer_field]
        yield pair


def _labelled(lines: Iterator[dict[str, Any]]) -> tuple[list[tuple[str, str, bool]], int]:
    """The pairs, and how many were left out because the exact cache answers them."""
    kept: list[tuple[str, str, bool]] = []
    equal = 0
    for number, line in enumerate(lines, start=1):
        a, b, same = line.get("a"), line.get("b"), line.get("same")
        if not (isinstance(a, str) and isinstance(b, str) and isinstance(same, bool)):
            raise CliError(f"pair {number} needs texts a and b, and same: true or false")
        if a == b:
            equal += 1
        else:
            kept.append((a, b, same))
    if not kept:
        raise CliError("there are no pairs")
    return kept, equal


def _table(trials: Any, confidence: float) -> Table:
    table = Table()
    columns = (
        "threshold",
        "hits",
        "false",
        "rate",
        f"at most ({confidence:.0%})",
        "found",
        "holds",
    )
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for trial in trials:
        table.add_row(
            f"{trial.threshold:.4f}",
            str(trial.hits),
            str(trial.false_hits),
            f"{trial.false_hits / trial.hits:.2%}",
            f"{trial.upper_bound:.2%}",
            f"{trial.found:.1%}",
            "yes" if trial.holds else "no",
        )
    return table


def _refusal(found: Any, pairs: int, rate: float, confidence: float) -> str:
    if pairs < found.needed:
        return (
            f"{pairs} pairs cannot show a rate of {rate:.2%} with {confidence:.0%} confidence: "
            f"it takes {found.needed} hits without a false one; label more pairs"
        )
    return (
        f"no threshold keeps false hits within {rate:.2%}: this embedder cannot tell these texts "
        "apart; leave the semantic cache off, or allow more"
    )
