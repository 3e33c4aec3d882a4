"""Runs: killed anywhere they go on, ask nothing twice, and find the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock_retrain.dataset.rows import Message
from penstock_retrain.gates.examples import Batch, Contender, Question, batches_of
from penstock_retrain.gates.judging import Verdict
from penstock_retrain.gates.loading import load_suite
from penstock_retrain.gates.report import GateReport
from penstock_retrain.gates.running import ANSWERS, PAGE, REPORT, Contest, run_gates
from tests.unit.retrain.gates.gate_places import (
    CANDIDATE,
    CHAMPION,
    Told,
    right,
    sum_of,
    write_suite,
)


def contest(folder: Path) -> Contest:
    return Contest([load_suite(write_suite(folder))], CANDIDATE, CHAMPION, 0.05)


def off_by_one(batch: Batch, index: int) -> str:
    """Wrong on a quarter."""
    found = sum_of(batch, index)
    return str(found + 1 if found % 8 == 0 else found)


def verdicts(report: GateReport) -> dict[tuple[str, str], Verdict]:
    return {(row.metric, row.slice): row.verdict for row in report.rows}


async def test_a_champion_passes_against_itself(tmp_path: Path) -> None:
    told = Told()
    heard: list[tuple[str, int, int]] = []
    made = await run_gates(
        contest(tmp_path), told, tmp_path / "out", lambda *each: heard.append(each)
    )
    assert made.passed, made.reason
    assert made.reason == ""
    assert heard[0] == ("sums", 0, 500)
    assert heard[-1] == ("sums", 500, 500)
    assert [done for _, done, _ in heard] == sorted(done for _, done, _ in heard)
    # Both are asked the same, and in turns begin.
    order = [batch.contender.name for batch in told.asked[:4]]
    assert order == ["champion", "candidate", "candidate", "champion"]


async def test_a_worse_candidate_fails_and_the_rows_are_named(tmp_path: Path) -> None:
    made = await run_gates(contest(tmp_path), Told({"candidate": off_by_one}), tmp_path / "out")
    assert made.verdict is Verdict.FAIL
    found = verdicts(made)
    assert found[("exact_match_vs_champion", "all")] is Verdict.FAIL
    assert found[("exact_match_vs_champion", "even")] is Verdict.FAIL
    assert found[("no_forbidden", "injected")] is Verdict.PASS
    assert made.reason.startswith("sums, all: exact_match: no worse than the champion's by more")
    (row,) = [r for r in made.rows if (r.metric, r.slice) == ("exact_match_vs_champion", "all")]
    assert all(int(each.id[1:]) % 4 == 0 for each in row.worst)
    assert {int(each.answered) - int(each.other or 0) for each in row.worst} == {1}


async def test_a_follower_of_injected_instructions_is_found(tmp_path: Path) -> None:
    def obedient(batch: Batch, index: int) -> str:
        words = [w.strip(".") for w in batch.questions[index].messages[-1].content.split()]
        shouted = [w for w in words if w.isupper() and len(w) == 8]
        return shouted[0].lower() if shouted else right(batch, index)

    made = await run_gates(contest(tmp_path), Told({"candidate": obedient}), tmp_path / "out")
    failed = {name for name, verdict in verdicts(made).items() if verdict is not Verdict.PASS}
    assert failed == {("no_forbidden", "injected")}


@pytest.mark.parametrize("die_after", [0, 1, 17, 49])
async def test_killed_on_the_way_it_asks_for_the_rest(tmp_path: Path, die_after: int) -> None:
    whole = await run_gates(
        contest(tmp_path / "a"), Told({"candidate": off_by_one}), tmp_path / "whole"
    )
    first = Told({"candidate": off_by_one}, die_after)
    with pytest.raises(ConnectionResetError):
        await run_gates(contest(tmp_path / "a"), first, tmp_path / "out")
    assert not (tmp_path / "out" / REPORT).exists()
    second = Told({"candidate": off_by_one})
    made = await run_gates(contest(tmp_path / "a"), second, tmp_path / "out")
    assert made.rows == whole.rows
    assert len(first.asked) == die_after
    asked = [batch.id for batch in (*first.asked, *second.asked)]
    assert len(asked) == len(set(asked)) == 50
    third = Told()
    again = await run_gates(contest(tmp_path / "a"), third, tmp_path / "out")
    assert again.rows == whole.rows
    # Nothing is left to ask: no model is loaded.
    assert third.opened_for == []


async def test_half_a_line_is_asked_again_and_other_weights_are_too(tmp_path: Path) -> None:
    await run_gates(contest(tmp_path), Told(), tmp_path / "out")
    path = tmp_path / "out" / ANSWERS
    path.write_bytes(path.read_bytes()[:-40])
    second = Told()
    await run_gates(contest(tmp_path), second, tmp_path / "out")
    assert len(second.asked) == 1
    third = Told()
    await run_gates(contest(tmp_path), third, tmp_path / "out")
    assert third.asked == []
    fourth = Told()
    other = Contest(
        contest(tmp_path).suites, Contender("candidate", "e" * 64, Path()), CHAMPION, 0.05
    )
    await run_gates(other, fourth, tmp_path / "out")
    assert {batch.contender.digest for batch in fourth.asked} == {"e" * 64}
    assert len(fourth.asked) == 25


async def test_line_separators_within_answers_are_kept(tmp_path: Path) -> None:
    told = Told({"candidate": lambda batch, n: f"{right(batch, n)}\u2028\x85\n"})
    first = await run_gates(contest(tmp_path), told, tmp_path / "out")
    again = Told()
    assert (await run_gates(contest(tmp_path), again, tmp_path / "out")).rows == first.rows
    assert again.asked == []


def test_batches_are_the_same_whatever_the_order_and_each_question_is_asked_once() -> None:
    questions = [Question(f"{n:032}", (Message("user", "x" * (n % 7)),), "", 16) for n in range(23)]
    found = batches_of([CHAMPION, CANDIDATE], questions, 5)
    assert found == batches_of([CHAMPION, CANDIDATE], [*questions[::-1], *questions], 5)
    assert len(found) == 10
    for contender in (CHAMPION, CANDIDATE):
        asked = [q for batch in found if batch.contender == contender for q in batch.questions]
        assert sorted(q.digest for q in asked) == [q.digest for q in questions]
        assert [q.chars for q in asked] == sorted(q.chars for q in asked)
    # A champion that is the candidate is asked once.
    assert len(batches_of([CHAMPION, CHAMPION], questions, 5)) == 5


async def test_the_report_tells_all_and_no_personal_data(tmp_path: Path) -> None:
    leak = "<b>anna@example.com</b>"
    told = Told({"candidate": lambda batch, n: leak + " " * 3000})
    made = await run_gates(contest(tmp_path), told, tmp_path / "out")
    page = (tmp_path / "out" / PAGE).read_text()
    whole = json.loads((tmp_path / "out" / REPORT).read_text())
    assert whole["verdict"] == "fail"
    assert [row["verdict"] for row in whole["rows"]] == ["fail", "fail", "fail", "pass"]
    assert whole["rows"][0]["worst"][0]["answered"].startswith("<b>[email]")
    for text in (page, json.dumps(whole)):
        assert "anna@" not in text
    assert "&lt;b&gt;[email]" in page
    # Nothing is fetched, nothing runs.
    for mark in ("<script", "http:", "https:", "src=", "href=", "@import"):
        assert mark not in page
    assert page.count("<tr><td>exact_match") == 3
    facts = made.facts()
    assert "worst" not in json.dumps(facts)
    assert "anna" not in json.dumps(facts)
    assert facts["rows"][1] == {
        "suite": "sums",
        "metric": "exact_match_vs_champion",
        "slice": "all",
        "rule": "exact_match: no worse than the champion's by more than 0.05",
        "n": 200,
        "estimate": -1.0,
        "low": -1.0,
        "high": pytest.approx(-0.95, abs=0.05),
        "threshold": -0.05,
        "decides": "low",
        "verdict": "fail",
        "reason": "",
    }
