"""Verdicts: by bounds, in pairs, and never a pass for want of examples."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from penstock_retrain.dataset.rows import Message
from penstock_retrain.gates.errors import GateError
from penstock_retrain.gates.examples import Answer, Contender, Example
from penstock_retrain.gates.judging import Answered, Row, Verdict, judge
from penstock_retrain.gates.loaded import LoadedSuite
from penstock_retrain.gates.loading import parse_suite
from tests.unit.retrain.gates.gate_places import CANDIDATE, CHAMPION

PASS, FAIL, WANTING = Verdict.PASS, Verdict.FAIL, Verdict.NOT_ENOUGH
Said = Mapping[str, list[str]]


def judged(
    rules: str, said: Said, champion: Contender | None = CHAMPION, alpha: float = 0.05
) -> list[Row]:
    """Verdicts on examples whose right answer is `yes`, in a suite of these rules."""
    suite = parse_suite(
        f"suite: s\nexamples: {{file: e}}\nanswers: {{batch: 1}}\nrules:\n{rules}", "s"
    )
    count = len(said["candidate"])
    examples = [
        Example(f"e{n}", (Message("user", f"q{n}"),), expected="yes", forbidden=("no",))
        for n in range(count)
    ]
    answers = {
        (contender.digest, example.digest): Answer(text, 10, 10, _seconds(text), 1)
        for contender in (CANDIDATE, CHAMPION)
        for example, text in zip(examples, said.get(contender.name, []), strict=False)
    }
    return judge(
        [Answered(LoadedSuite(suite, tuple(examples), ""), answers)], CANDIDATE, champion, alpha
    )


def _seconds(text: str) -> float:
    return float(text) if text.replace(".", "").isdigit() else 1.0


def mixed(right: int, wrong: int) -> list[str]:
    return ["yes"] * right + ["no"] * wrong


@pytest.mark.parametrize(
    ("right", "wrong", "verdict"),
    [
        (59, 0, PASS),  # shows 0.95 at 0.05, as the textbook has it
        (58, 0, WANTING),
        (91, 1, WANTING),
        (92, 1, PASS),
        (91, 9, WANTING),  # it could be 0.95 still
        (80, 20, FAIL),
    ],
)
def test_at_least(right: int, wrong: int, verdict: Verdict) -> None:
    (row,) = judged("- {metric: exact_match, at_least: 0.95}", {"candidate": mixed(right, wrong)})
    assert row.verdict is verdict
    assert row.n == right + wrong
    assert row.estimate == pytest.approx(right / (right + wrong))
    assert len(row.worst) == min(wrong, 5)


def test_what_is_wanting_is_said() -> None:
    (row,) = judged("- {metric: exact_match, at_least: 0.9}", {"candidate": mixed(48, 2)})
    assert row.verdict is WANTING
    assert "about 91 examples like these would show it" in row.reason
    (row,) = judged("- {metric: exact_match, at_least: 0.97}", {"candidate": mixed(48, 2)})
    assert "more examples alone would not pass it" in row.reason


def test_pairs_are_used() -> None:
    # Both are right on nine tenths; on the same ones, or each on its own.
    rule = "- {metric: exact_match, no_worse_by: 0.03}"
    champion = mixed(360, 40)
    (same,) = judged(rule, {"candidate": champion, "champion": champion})
    assert (same.verdict, same.estimate) == (PASS, 0.0)
    assert same.metric == "exact_match_vs_champion"
    (apart,) = judged(rule, {"candidate": champion[::-1], "champion": champion})
    assert (apart.verdict, apart.estimate) == (WANTING, 0.0)
    (worse,) = judged(rule, {"candidate": mixed(300, 100), "champion": champion})
    assert worse.verdict is FAIL
    assert worse.estimate == pytest.approx(-0.15)
    assert [each.score for each in worse.worst] == [-1.0] * 5
    assert worse.worst[0].other == "yes"


def test_a_gain_may_be_asked_for() -> None:
    rule = "- {metric: exact_match, no_worse_by: -0.05}"
    (row,) = judged(rule, {"candidate": mixed(380, 20), "champion": mixed(320, 80)})
    assert row.verdict is PASS
    assert row.threshold == 0.05
    (row,) = judged(rule, {"candidate": mixed(320, 80), "champion": mixed(320, 80)})
    assert row.verdict is FAIL


def test_amounts() -> None:
    rules = """
- {metric: latency_s, within: 1.5, at_least: 0.9}
- {metric: latency_s, within_times: 2, at_least: 0.9}
- {metric: latency_s, cap: 10, at_most: 3}
- {metric: latency_s, cap: 10, no_worse_by: 0.5}
"""
    quick = {"candidate": ["1.2"] * 200, "champion": ["1"] * 200}
    assert [row.verdict for row in judged(rules, quick)] == [PASS, PASS, PASS, PASS]
    slow = {"candidate": ["4"] * 200, "champion": ["1"] * 200}
    assert [row.verdict for row in judged(rules, slow)] == [FAIL, FAIL, FAIL, FAIL]
    some = {"candidate": ["4"] * 30 + ["1"] * 170, "champion": ["1"] * 200}
    rows = judged(rules, some)
    assert [row.verdict for row in rows] == [WANTING, WANTING, PASS, WANTING]
    assert rows[2].decides == "high"
    assert rows[2].worst[0].score == 4.0


def test_without_examples_or_champion_nothing_passes() -> None:
    rules = "- {metric: json_valid, at_least: 0.01}\n- {metric: exact_match, no_worse_by: 0.99}"
    rows = judged(rules, {"candidate": mixed(500, 0)}, champion=None)
    assert [row.verdict for row in rows] == [WANTING, WANTING]
    assert rows[0].reason == "no example of the slice all has what json_valid needs"
    assert rows[1].reason == "there is no champion to compare with"
    assert rows[0].estimate is None


def test_an_answer_that_is_missing_is_no_pass() -> None:
    with pytest.raises(GateError, match="champion gave no answer to e"):
        judged("- {metric: exact_match, no_worse_by: 0.1}", {"candidate": mixed(5, 0)})


def test_an_original_is_compared_with_its_variant(tmp_path: Path) -> None:
    rule = "{metric: exact_match, slice: v, no_worse_by: 0.1, than: original}"
    suite = parse_suite(
        f"suite: s\nexamples: {{file: e}}\nvariants: [{{name: v, kind: typos}}]\nrules: [{rule}]",
        "s",
    )
    originals = [Example(f"e{n}", prompt=f"q{n}", expected="yes") for n in range(200)]
    variants = [
        Example(f"e{n}/v", prompt=f"p{n}", expected="yes", variant="v", origin=f"e{n}")
        for n in range(200)
    ]
    loaded = LoadedSuite(suite, (*originals, *variants), "")

    def verdict(robust: bool) -> Row:
        answers = {
            (CANDIDATE.digest, e.digest): Answer(
                "no" if e.variant and not robust else "yes", 1, 1, 1, 8
            )
            for e in loaded.examples
        }
        (row,) = judge([Answered(loaded, answers)], CANDIDATE, None, 0.05)
        return row

    assert verdict(True).verdict is PASS
    assert verdict(False).verdict is FAIL
    assert verdict(False).metric == "exact_match_vs_original"


RULES = """
- {metric: exact_match, at_least: 0.9}
- {metric: exact_match, no_worse_by: 0.05}
- {metric: no_forbidden, at_least: 0.9}
"""


@pytest.mark.parametrize(
    ("accuracy", "least", "most"),
    [
        # Just below what is asked for: passes at 0.05 of runs at most, as promised.
        (0.899, {"pass": 0, "fail": 0}, {"pass": 21, "fail": 21}),
        # Just at it: failed at 0.05 of runs at most.
        (0.9, {"pass": 0, "fail": 0}, {"pass": 21, "fail": 21}),
        # Well above and well below: mostly told.
        (0.97, {"pass": 220, "fail": 0}, {"pass": 250, "fail": 0}),
        (0.8, {"pass": 0, "fail": 235}, {"pass": 0, "fail": 250}),
    ],
)
def test_a_suites_errors_are_as_rare_as_stated(
    accuracy: float, least: dict[str, int], most: dict[str, int]
) -> None:
    # 250 runs: 12.5 expected at 0.05 at most, and 22 lies 2.8 deviations above.
    rng, counts = random.Random(23), {"pass": 0, "fail": 0}
    for _ in range(250):
        champion = ["yes" if rng.random() < accuracy else "no" for _ in range(200)]
        # They differ on a fiftieth, either way.
        candidate = [
            ("no" if t == "yes" else "yes") if rng.random() < 0.004 else t for t in champion
        ]
        verdicts = {
            row.verdict for row in judged(RULES, {"candidate": candidate, "champion": champion})
        }
        counts["pass"] += verdicts == {PASS}
        counts["fail"] += FAIL in verdicts
    for name, count in counts.items():
        assert least[name] <= count <= most[name], counts
