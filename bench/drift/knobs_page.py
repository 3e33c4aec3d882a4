"""DRIFT-KNOBS.md from the figures: what each knob had to lead to, and what it led to. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.drift.knobs_cases import CASES, Case
from bench.report import table

__all__ = ["page"]

Figures = Mapping[str, Any]

HEADER = (
    "incident", "severity", "signals", "segments, ranked", "onset off by", "delay", "likely cause",
)  # fmt: skip


def page(figures: Figures) -> str:
    """The whole page, of the cases that there are."""
    measured = [case for case in CASES if case.name in figures["cases"]]
    parts = [_head(figures), _overview(figures, measured)]
    parts += [_section(case, figures["cases"][case.name]) for case in measured]
    return "\n".join([*parts, _foot(figures)])


def _head(figures: Figures) -> str:
    plan = figures["schedule"]
    return f"""# Drift on the running stack: one knob at a time

Written by `make bench-drift-knobs`; figures and events: `results/drift-knobs.json`.

Kafka, ingest, vLLM with the triage model and drift, started anew for each case. Tickets of
`examples/triage/generate.py` come through the public topic at {plan["rate"]:g} a second, labelled
with one of three desks and one of two channels; for {plan["feedback"]:.0%} of the answers the right
one is sent as feedback. All is quiet for {plan["quiet_s"]:g} s, which is baselines and as long
again, then the knob is turned for {plan["changed_s"]:g} s. The policy is
[drift/knobs_policy.yaml](drift/knobs_policy.yaml). Apart from the knob all cases send the same
tickets (seed {plan["seed"]}). Incidents are those of `penstock alerts list --all --json`.

Onset and delay count responses of all traffic, from the first one that the knob was turned for: to
where the incident says that it began, and to the tick that opened it. A tick is 5 s, and evidence
has to be there for two.
"""


def _overview(figures: Figures, measured: list[Case]) -> str:
    rows = []
    for case in measured:
        found = figures["cases"][case.name]
        kinds = [f"{each['kind']} ({each['delay']} responses)" for each in found["incidents"]]
        where = "-" if not case.knob else f"desk={case.desk}" if case.desk else "everywhere"
        rows.append(
            [
                f"`{case.knob}`" if case.knob else "none (control)",
                where,
                ", ".join(sorted(case.kinds)) or "nothing",
                ", ".join(kinds) or "nothing",
                "no" if found["wrong"] else "yes",
            ]
        )
    header = ["knob", "turned for", "has to open", "opened, after", "as it has to be"]
    return table(header, rows) + "\n"


def _section(case: Case, found: Figures) -> str:
    lines = [f"## {case.name.capitalize()}\n", f"{case.why}\n", *_answers(found)]
    if found["incidents"]:
        rows = [_row(each) for each in found["incidents"]]
        lines.append(table(HEADER, rows) + "\n")
        lines += [f"- {each['title']}" for each in found["incidents"]]
    else:
        lines.append("Nothing was opened.")
    lines += [f"- **Wrong:** {each}" for each in found["wrong"]]
    return "\n".join(lines) + "\n"


def _answers(found: Figures) -> Iterator[str]:
    after = found["wrong_answers_after"]
    changed = "" if after is None else f", {after:.1%} of those that the knob was turned for"
    yield (
        f"{found['answered']:,} answers, {found['feedback']:,} with feedback: "
        f"{found['wrong_answers_before']:.1%} were wrong{changed}. Median latency "
        f"{1000 * found['latency_p50_s']:.0f} ms.\n"
    )


def _row(incident: Figures) -> list[str]:
    off, delay = incident["onset_error"], incident["delay"]
    return [
        incident["kind"],
        incident["severity"],
        ", ".join(f"`{signal}`" for signal in incident["signals"]),
        ", ".join(incident["segments"]) or "-",
        "-" if off is None else f"{off:+d}",
        "-" if delay is None else f"{delay} ({incident['delay_s']:.0f} s)",
        ", ".join(incident["causes"]),
    ]


def _foot(figures: Figures) -> str:
    about = figures["circumstances"]
    packages = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    hardware = about["machine"]
    return (
        f"\n{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB; "
        f"{about['at']}, commit {about['commit']}; Python {hardware['python']}, {packages}.\n"
    )
