"""What is sent in a case, and what counts as a mistake of drift's."""

from __future__ import annotations

import dataclasses

import pytest

from bench.drift.knobs_cases import (
    CASES,
    DESKS,
    Case,
    Finding,
    Schedule,
    Stretch,
    finding,
    mistakes,
    questions,
)
from bench.drift.knobs_page import page
from bench.drift.knobs_traffic import POLICY
from penstock_drift.policy.document import parse_policy
from penstock_drift.signals.catalogue import CATALOGUE

BY_NAME = {case.name: case for case in CASES}
SHORT = Schedule(rate=10, quiet_s=10, changed_s=20)
# A response every 10 ms; the knob is turned at the hundredth.
STRETCH = Stretch([1000 + 10 * number for number in range(500)], 2000)


def found(kind: str, **more: object) -> Finding:
    made = Finding(
        incident="drift-1",
        kind=kind,
        severity="page",
        resolved=False,
        title=f"something of {kind}",
        signals=("prompt_words",),
        lead_segment="",
        segments=("desk=south", "desk=west"),
        causes=("unknown",),
        onset_ms=2050,
        opened_ms=3000,
    )
    return dataclasses.replace(made, **more)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_case_differs_from_the_control_by_its_knob_alone(name: str) -> None:
    case = BY_NAME[name]
    control = list(questions(BY_NAME["control"], SHORT))
    sent = list(questions(case, SHORT))
    assert [each.labels for each in sent] == [each.labels for each in control]
    assert [each.judged for each in sent] == [each.judged for each in control]
    changed = [each for each in sent if each.changed]
    for one, other in zip(sent, control, strict=True):
        assert one.changed or one.ticket == other.ticket
    assert all(each.number >= SHORT.quiet for each in changed)
    assert {each.labels["desk"] for each in changed} == (
        set() if not case.knob else {case.desk} if case.desk else set(DESKS)
    )
    if name == "rule":
        texts = {each.number: each.ticket["text"] for each in control}
        assert all(each.ticket["text"] == texts[each.number] for each in changed)
    if name == "vocabulary":
        expected = {each.number: each.ticket["expected"] for each in control}
        assert all(each.ticket["expected"] == expected[each.number] for each in changed)


@pytest.mark.parametrize(
    ("name", "findings", "wrong"),
    [
        ("control", [], []),
        ("control", [found("input")], ["an incident of kind input was opened"]),
        ("vocabulary", [], ["no input incident was opened"]),
        ("vocabulary", [found("input"), found("quality"), found("output")], []),
        ("vocabulary", [found("quality")], ["no input incident was opened"]),
        ("vocabulary", [found("input", opened_ms=1990)], ["before the knob was turned"]),
        ("vocabulary", [found("input", segments=())], ["no segment is first"]),
        ("vocabulary", [found("input"), found("operational")], ["of kind operational"]),
        # Whatever comes with it may name another segment first: it is not what is looked for.
        ("vocabulary", [found("input"), found("output", segments=("desk=west",))], []),
        ("rule", [found("quality", segments=("desk=north",))], []),
        ("rule", [found("quality")], ["desk=south is first in the quality incident"]),
        (
            "rule",
            [found("quality", segments=("desk=north",)), found("input")],
            ["an incident of kind input was opened"],
        ),
        ("mix", [found("input")], []),
        ("mix", [found("input", lead_segment="desk=west")], ["desk=west leads"]),
        ("mix", [found("input"), found("quality")], ["an incident of kind quality was opened"]),
    ],
)
def test_mistakes(name: str, findings: list[Finding], wrong: list[str]) -> None:
    told = mistakes(BY_NAME[name], findings, STRETCH)
    assert len(told) == len(wrong)
    assert all(part in line for part, line in zip(wrong, told, strict=True))


def test_an_incident_of_the_control_is_a_mistake_though_no_knob_was_turned() -> None:
    control: Case = BY_NAME["control"]
    assert mistakes(control, [found("output")], Stretch([1000, 1010], None))


@pytest.mark.parametrize(("instant_ms", "since"), [(2000, 0), (2050, 5), (1900, -10), (3001, 101)])
def test_delays_count_responses(instant_ms: int, since: int) -> None:
    assert STRETCH.since_turned(instant_ms) == since


def test_an_incident_is_read_from_what_the_command_writes() -> None:
    line = {
        "incident": "drift-1",
        "severity": "page",
        "resolved": False,
        "alert": {
            "title": "label_error rose",
            "service": "drift",
            "opened_at": "40",
            "drift": {
                "kind": "DRIFT_KIND_QUALITY",
                "onset": "35",
                "evidence": [
                    {"signal": "label_error"},
                    {"signal": "label_error", "segment": "desk=north"},
                    {"signal": "label_loss", "segment": "desk=north"},
                ],
                "segments": [{"name": "desk=north"}, {"name": "all other traffic"}],
                "causes": [{"name": "unknown"}],
            },
        },
    }
    read = finding(line, int)
    assert (read.kind, read.onset_ms, read.opened_ms) == ("quality", 35, 40)
    assert read.signals == ("label_error", "label_loss")
    assert (read.lead_segment, read.segments) == ("", ("desk=north",))
    halted = line | {"alert": {"service": "ingest", "opened_at": "40"}}
    assert finding(halted, int).kind == "ingest"


def test_the_policy_watches_what_the_cases_look_for() -> None:
    policy = parse_policy(POLICY.read_text(encoding="utf-8"))
    watched = {name for name in CATALOGUE if policy.for_signal(name).enabled}
    assert {CATALOGUE[name].kind.value for name in watched} == {
        "input", "output", "quality", "operational",
    }  # fmt: skip
    assert policy.segments.keys() == {"desk", "channel"}
    # As long again as the baseline takes, in the smallest segment.
    schedule = Schedule()
    for name in watched:
        share = schedule.feedback if CATALOGUE[name].kind.value == "quality" else 1.0
        values = schedule.quiet / len(DESKS) * share
        assert values >= 2 * policy.for_signal(name).baseline_observations


def test_the_page_says_what_is_wrong() -> None:
    case = {
        "wrong": ["no input incident was opened"],
        "answered": 10,
        "feedback": 5,
        "wrong_answers_before": 0.03,
        "wrong_answers_after": 0.4,
        "latency_p50_s": 0.1,
        "incidents": [
            dataclasses.asdict(found("quality")) | {"onset_error": 5, "delay": 100, "delay_s": 1.0}
        ],
    }
    machine = {"cpu": "one", "cores": 2, "memory_gib": 4, "python": "3.11"}
    figures = {
        "schedule": dataclasses.asdict(SHORT),
        "cases": {"vocabulary": case},
        "circumstances": {"at": "now", "machine": machine, "versions": {}, "commit": "abc"},
    }
    text = page(figures)
    assert "| `--vocabulary new` | desk=south | input | quality (100 responses) | no |" in text
    assert "**Wrong:** no input incident was opened" in text
    assert "| quality | page | `prompt_words` | desk=south, desk=west | +5 | 100 (1 s) |" in text
