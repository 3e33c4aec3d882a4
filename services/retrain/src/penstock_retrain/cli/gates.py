"""`penstock gates`: judge a model by suites of examples, without a job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from penstock.cli.run import CliError, err, out, run
from penstock.cli.settings import CliSettings

if TYPE_CHECKING:
    from penstock_retrain.gates.report import GateReport

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="Judge a model by suites of examples, each rule by its bound."
)

_RUN = """Examples:

  penstock gates run --suite examples/triage/gates/golden.yaml --model examples/triage/model

  penstock gates run --suite golden.yaml --model base --adapter adapters/triage-v3

  penstock gates run --suite golden.yaml --model new --champion old --out report
"""


@app.command("run", epilog=_RUN)
def run_(
    suite: Annotated[list[str], typer.Option(help="A suite's YAML, or `default`. Repeatable.")],
    model: Annotated[Path, typer.Option(help="The candidate: a Hugging Face directory.")],
    adapter: Annotated[
        Path | None, typer.Option(help="A PEFT adapter of the model: the candidate is this one.")
    ] = None,
    champion: Annotated[
        Path | None,
        typer.Option(
            help="Whom it is compared with: a Hugging Face directory, or a PEFT adapter of the "
            "model. With --adapter, the model as it is when left out."
        ),
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="A dataset's directory, for suites that ask its rows.")
    ] = None,
    folder: Annotated[
        Path, typer.Option("--out", help="Where answers and report go; run again, it goes on.")
    ] = Path("gates-report"),
    alpha: Annotated[
        float, typer.Option(min=0.0001, max=0.5, help="Level of the errors that it may make.")
    ] = 0.05,
    threads: Annotated[int, typer.Option(min=0, help="Of torch; 0 leaves it to torch.")] = 0,
) -> None:
    """Ask a model, judge its answers, and write gates.json and gates.html.

    Exit code 0: every rule is passed; 1: one is failed, or the examples are not enough.
    """

    async def body(_: CliSettings) -> None:
        from penstock_retrain.gates.answering import ModelProcess
        from penstock_retrain.gates.contenders import ADAPTER_CONFIG, contender_of
        from penstock_retrain.gates.errors import GateError
        from penstock_retrain.gates.loading import load_suite
        from penstock_retrain.gates.running import PAGE, Contest, run_gates

        try:
            loaded = [load_suite(each, dataset) for each in suite]
            names = [each.suite.suite for each in loaded]
            if len(set(names)) < len(names):
                raise GateError("--suite: two have one name; rename one")
            rival = None
            if champion is not None and (champion / ADAPTER_CONFIG).is_file():
                rival = contender_of(str(champion), model, champion)
            elif champion is not None:
                rival = contender_of(str(champion), champion)
            elif adapter is not None:
                rival = contender_of(str(model), model)
            candidate = contender_of(str(adapter or model), model, adapter)
            contest = Contest(loaded, candidate, rival, alpha)
            made = await run_gates(contest, ModelProcess(threads), folder, _Progress())
        except (GateError, OSError) as error:
            raise CliError(str(error)) from error
        _print(made)
        out.print(f"\n{made.verdict}; {folder / PAGE}")
        if not made.passed:
            raise typer.Exit(1)

    run(body)


@app.command("list", epilog="Example:  penstock gates list --suites examples/triage/gates")
def list_(
    suites: Annotated[
        Path | None, typer.Option(help="A directory: its suites are checked and listed as well.")
    ] = None,
) -> None:
    """List the metrics that rules may name, and suites with what they ask for."""

    async def body(_: CliSettings) -> None:
        from penstock_retrain.gates.errors import SuiteError
        from penstock_retrain.gates.metrics.catalogue import CATALOGUE

        table = Table("metric", "scale", "meaning", box=None, pad_edge=False)
        for name, declared in CATALOGUE.items():
            scale = f"{declared.scale} ({declared.unit})" if declared.unit else declared.scale
            table.add_row(name, scale, declared.meaning)
        out.print(table)
        if suites is not None:
            try:
                out.print(_suites(suites))
            except (SuiteError, OSError) as error:
                raise CliError(str(error)) from error

    run(body)


def _suites(folder: Path) -> Table:
    from penstock_retrain.gates.loading import parse_suite

    paths = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    if not paths:
        raise CliError(f"{folder} has no suites: they are files named *.yaml")
    table = Table("file", "suite", "rules", "about", box=None, pad_edge=False)
    for path in paths:
        found = parse_suite(path.read_text(encoding="utf-8"), str(path))
        table.add_row(path.name, found.suite, str(len(found.rules)), found.about)
    return table


class _Progress:
    """Tells the tenths that are done, on standard error."""

    def __init__(self) -> None:
        self._told = -1

    def __call__(self, suite: str, done: int, of: int) -> None:
        tenth = 10 * done // max(of, 1)
        if tenth != self._told:
            self._told = tenth
            err.print(f"{suite}: {done} of {of} answers")


def _print(made: GateReport) -> None:
    table = Table(
        "suite",
        "slice",
        "rule",
        "n",
        "estimate",
        "low",
        "high",
        "verdict",
        box=None,
        pad_edge=False,
    )
    for row in made.rows:
        figures = [
            "-" if each is None else f"{each:.4f}" for each in (row.estimate, row.low, row.high)
        ]
        table.add_row(row.suite, row.slice, row.rule, str(row.n), *figures, str(row.verdict))
    out.print(table)
    for row in made.rows:
        if row.reason:
            out.print(f"{row.slice}, {row.rule}: {row.reason}")
        if row.verdict == "fail":
            out.print(f"{row.slice}, {row.rule}: not so, as in")
        for worst in row.worst if row.verdict == "fail" else ():
            out.print(f"  {worst.id}: {worst.answered[:120]!r}")
