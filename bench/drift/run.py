"""`make bench-drift`: every part of the comparison of detectors, or some of them.

Usage: python -m bench.drift.run [--parts refusals,table,...] [--fresh] [--only SCENARIOS]
[--seeds N] [--minutes M]

What was measured lies in bench/results/drift.json, written as soon as it is there; a part that was
broken off goes on where it was. `--fresh` measures the parts anew, `--minutes` breaks off after
so long, between two measurements. bench/DRIFT.md is written after each part.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import RESULTS, circumstances

from bench.drift import annotated, comparison, costs, fleet, levels, page, refusals, rivalry, worker
from bench.drift.claims import SEEDS
from bench.drift.comparison import ALL

PARTS = (
    "refusals", "levels", "throughput", "worker", "costs", "table", "season", "fleet", "annotated",
    "rivals",
)  # fmt: skip
PACKAGES = ("river", "numpy", "scipy")
PAGE = Path(__file__).parents[1] / "DRIFT.md"
PATH = RESULTS / "drift.json"
DRIFTING = 5

Say = Callable[[str], None]


class Out(Exception):
    """The time is up."""


class Run:
    """What was measured so far, and until when to go on.

    Args:
        deadline: By `time.monotonic`.
        only: Scenarios to measure; all if empty.
        seeds: Runs of many keys.
    """

    def __init__(self, deadline: float, only: list[str], seeds: int) -> None:
        self._deadline, self.only, self.seeds = deadline, only, seeds
        self.parts: dict[str, Any] = {}
        if PATH.exists():
            self.parts = json.loads(PATH.read_text(encoding="utf-8"))

    def open(self, part: str, *, fresh: bool) -> dict[str, Any]:
        """A part as far as it is measured, or as far as it stays."""
        if fresh:
            self._forget(part)
        found: dict[str, Any] = self.parts.setdefault(part, {})
        found.setdefault("circumstances", circumstances(PACKAGES))
        found.setdefault("figures", {})
        return found

    def _forget(self, part: str) -> None:
        """Of the table only what is asked for, if anything is, with the streams that were drawn."""
        if part != "table":
            self.parts.pop(part, None)
            return
        figures = self.parts.get(part, {}).get("figures", {})
        for name in self.only or ALL:
            figures.pop(name, None)
            comparison.forget(ALL[name])

    def save(self) -> None:
        """Writes the figures and the page.

        Raises:
            Out: The time is up.
        """
        partial = PATH.with_suffix(".part")
        partial.write_text(json.dumps(self.parts, indent=1) + "\n", encoding="utf-8")
        partial.rename(PATH)
        PAGE.write_text(page.page(self.parts), encoding="utf-8")
        if time.monotonic() > self._deadline:
            raise Out

    def measure(self, part: str, figures: dict[str, Any], say: Say) -> None:
        """Measures what is missing of a part."""
        if part == "table":
            self._table(figures, say)
        elif part == "fleet":
            self._fleet(figures, say)
        elif part == "rivals":
            for name, found in rivalry.compared(figures, self.only, say):
                figures[name] = found
                self.save()
        elif not figures:
            figures.update(SINGLE[part](say))

    def _table(self, figures: dict[str, Any], say: Say) -> None:
        chosen = [ALL[name] for name in self.only or ALL]
        # What is quick first, of all scenarios: what is slow takes longer than all the rest.
        for slow in (False, True):
            for scenario in chosen:
                rows = figures.setdefault(scenario.name, {})
                for name, found in comparison.compared(scenario, rows, say, slow=slow):
                    rows[name] = found
                    self.save()

    def _fleet(self, figures: dict[str, Any], say: Say) -> None:
        for seed in range(1, self.seeds + 1):
            if str(seed) not in figures:
                figures[str(seed)] = fleet.fleet(seed, drifting=DRIFTING)
                say(str(figures[str(seed)]))
                self.save()


SINGLE: dict[str, Callable[[Say], dict[str, Any]]] = {
    "refusals": refusals.refusals,
    "levels": levels.levels,
    "throughput": costs.throughput,
    "worker": worker.worker,
    "costs": costs.single,
    "season": comparison.defaults,
    "annotated": annotated.annotated,
}


def main() -> None:
    """Reads the command line and runs the parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="separated by commas")
    parser.add_argument("--only", default="", help="scenarios of the table, such as refusals,gauss")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs of many keys")
    parser.add_argument("--minutes", type=float, default=1e6, help="break off after so long")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    only = [name for name in options.only.split(",") if name]
    if unknown := set(only) - set(ALL):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    run = Run(time.monotonic() + 60 * options.minutes, only, options.seeds)
    started = time.monotonic()
    try:
        for part in parts:
            found = run.open(part, fresh=options.fresh)

            def say(line: str, part: str = part) -> None:
                print(f"[{part} {time.monotonic() - started:5.0f} s] {line}", flush=True)

            run.measure(part, found["figures"], say)
            run.save()
    except Out:
        print("The time is up; the same command goes on from here.")


if __name__ == "__main__":
    main()
