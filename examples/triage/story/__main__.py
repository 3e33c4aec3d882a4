"""`make demo` and `make demo-bad`: the whole loop on a stack of its own, from drift to a new model.

Tickets come at a steady rate. After a minute the help desk changes its rule for priorities, and
what was right is wrong. Drift finds out from people's opinions, retrain makes a dataset of them,
trains an adapter, measures it, lets it answer beside the champion and then for some of the
clients, and promotes it, or rolls it back. Exit code 1 where something of that does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from examples.triage.story.plot import RAY, STAGES, Plot
from examples.triage.story.surroundings import surroundings
from examples.triage.story.telling import Told, tell
from examples.triage.story.view import phases_table, times_table
from penstock.cli.demo_view import claims_table
from penstock_native.stack import Stack

SERVICES = ("kafka", "ingest", "inference", "cost", "drift", "retrain")


def main() -> None:
    """Reads the command line, tells the stories, and says what they have come to."""
    asked = _asked()
    stories = _tell(asked, _plots(asked))
    console = Console()
    for told in stories:
        account = told.account
        if len(stories) > 1:
            console.rule(told.plot.model)
        for table in (phases_table(account), times_table(account), claims_table(told.claims)):
            console.print(table)
    if asked.json_out:
        figures = [_figures(told) for told in stories]
        asked.json_out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if not all(claim.holds for told in stories for claim in told.claims):
        sys.exit(1)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.triage.story",
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""examples:
  a better model comes:
    %(prog)s
  a bad candidate comes, and goes:
    %(prog)s --bad
  answers are played back, and an adapter is there already:
    %(prog)s --adapter adapters/triage-new-rule-1 --rate 100 --quiet-s 20
  three of those at once, each of a model and a seed of its own:
    %(prog)s --adapter adapters/triage-new-rule-1 --rate 30 --quiet-s 40 --at-once 3
  the service dies while it trains:
    %(prog)s --kill training
  nothing changes, and nothing may happen:
    %(prog)s --no-change --limit-s 240 --json-out control.json
""",
    )
    add = parser.add_argument
    add("--bad", action="store_true", help="a candidate that does harm")
    add("--no-change", action="store_true", help="the rule stays as it is")
    add("--seed", type=int, default=Plot.seed, help="of the tickets (default: %(default)s)")
    add("--at-once", type=int, default=1, help="stories, of this seed and the next ones (1)")
    add("--rate", type=float, default=Plot.rate, help="tickets a second (default: %(default)s)")
    add("--quiet-s", type=float, default=Plot.quiet_s, help="before the change (%(default)s)")
    add("--limit-s", type=float, default=Plot.limit_s, help="break it off then (%(default)s)")
    add("--kill", default="", choices=(*STAGES, RAY), help="kill retrain in a stage, or Ray's head")
    add("--adapter", type=Path, help="play answers back, and take this adapter for a training's")
    add("--json-out", type=Path, help="where the figures go, as JSON")
    add("--keep-logs", type=Path, help="a directory for the services' logs")
    asked = parser.parse_args()
    if asked.at_once < 1:
        parser.error("--at-once: one story at least")
    if asked.kill == RAY and asked.adapter is not None:
        parser.error("--kill ray: with --adapter nothing is trained, and there is no Ray")
    if asked.at_once > 1 and (asked.adapter is None or asked.kill):
        parser.error("--at-once: stories share a stack with --adapter and without --kill only")
    return asked


def _plots(asked: argparse.Namespace) -> list[Plot]:
    """A story for each seed; several have a model each."""
    return [
        Plot(
            bad=asked.bad,
            changes=not asked.no_change,
            seed=asked.seed + number,
            rate=asked.rate,
            quiet_s=asked.quiet_s,
            limit_s=asked.limit_s,
            kill=asked.kill,
            adapter=asked.adapter,
            model=Plot.model if asked.at_once == 1 else f"{Plot.model}-{asked.seed + number}",
        )
        for number in range(asked.at_once)
    ]


def _tell(asked: argparse.Namespace, plots: Sequence[Plot]) -> list[Told]:
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="penstock-story-") as home:
        engine = "the scripted engine" if asked.adapter else "vLLM"
        console.print(f"starting a stack of its own: Kafka, {engine} and five services")
        with Stack.ephemeral(SERVICES, surroundings(plots, Path(home))) as stack:
            try:
                return asyncio.run(tell(plots, stack, console))
            finally:
                if asked.keep_logs:
                    _keep(stack, asked.keep_logs)


def _figures(told: Told) -> dict[str, Any]:
    return {
        "seed": told.plot.seed,
        "account": told.account.to_json(),
        "claims": [vars(claim) for claim in told.claims],
    }


def _keep(stack: Stack, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for service in stack.services:
        (folder / f"{service}.log").write_text(stack.log(service), encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
