"""bench/CANARY.md from results/canary.json."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["page"]

Results = dict[str, dict[str, Any]]

HEAD = """# Canary: error rates and power

Written by `make bench-canary`; figures: `results/canary.json`. 10,000 runs a cell, seeds from the
cells' names; the standard error of a share is at most 0.5 points, 0.2 at 5 %. Every test is looked
at after every value; nothing is corrected for that, because nothing needs to be. What is simulated
is a copy of `penstock_retrain.canary` in arrays (`canary_runs.py`); a unit test holds them equal,
and others check the tests' promises on every outcome there is of a few values
(`tests/unit/retrain/canary/test_exactness.py`).

One configuration throughout: differences of 2 points are looked for (`effect`), 2 points worse is
the margin, harm is anything below equality, and nothing is known of the champion (`expected` is
left out). Values are answers that are right or wrong unless said otherwise.
"""


def page(results: Results) -> str:
    """The page; parts without results are left out."""
    parts = (_table, _equal_error, _verdicts, _steps, _stars, _pairs, _guardrails, _shares)
    found = [HEAD, *(part(results) for part in (*parts, _prospects))]
    return "\n".join(each for each in found if each)


def _of(results: Results, part: str) -> dict[str, dict[str, Any]]:
    return {
        name.removeprefix(part + " "): figures
        for name, figures in results.items()
        if name.startswith(part + " ")
    }


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if share < 0.0995 else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _section(title: str, text: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"## {title}", "", text.strip(), ""]
    lines += ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _table(results: Results) -> str:
    cells = _of(results, "table")
    if not cells:
        return ""
    rows = []
    for name, each in cells.items():
        canary, rule, z = each["canary"], each["rule"], each["z"]
        rows.append(
            [
                name,
                _percent(canary["candidate"]),
                _percent(canary["champion"]),
                _number(canary["median"]),
                _percent(rule["candidate"]),
                _percent(rule["champion"]),
                _number(rule["median"]),
                _percent(z["candidate"]),
                _percent(z["champion"]),
                _percent(z["peeking"]),
            ]
        )
    text = """
Two arms, one value each at a time, up to 3,000 an arm. Canary: harm and gain test at 2.5 % each, so
5 % together. Rule: TensorZero's stopping rule (`track_and_stop/check_stopping.rs`, re-implemented:
variance floor 1e-12, at least 10 an arm) at delta = 5 %, looked at after every pair, arms sampled
equally; its own sampling is adaptive and it looks every five minutes, so this stands for it, it is
not it. z-test: two-sided at 5 %, looked at once, at 3,000 an arm; `peeking`: the same looked at
after every pair, what one must not do. `+`: the candidate is declared better, `-`: worse; `n`:
median values an arm at which it is declared better. A canary has two arms, so the cell of five is
left out.
"""
    head = ["candidate vs champion", "canary +", "canary -", "n"]
    head += ["rule +", "rule -", "n", "z +", "z -", "z peeking, either"]
    return _section("Beside a stopping rule and a z-test", text, head, rows)


def _equal_error(results: Results) -> str:
    rows = []
    for name, each in _of(results, "equal error").items():
        for index, error in enumerate(each["errors"]):
            own = " (the rule's own at 5 %)" if index == len(each["errors"]) - 1 else ""
            rows.append(
                [name, _percent(error) + own]
                + [_percent(each[rule][index]) for rule in ("canary", "rule", "z")]
            )
    if not rows:
        return ""
    text = """
The same runs, but each threshold is set so that of 10,000 runs of equal arms at the champion's rate
the given share wrongly declares the candidate better within 3,000 an arm. So what is compared is
how well evidence is ordered, not how cautious a threshold is. The z-test looks once. Shares near
99.5 % have a standard error of 0.07 points: there canary and rule are as good as level.
"""
    head = ["candidate vs champion", "error", "canary", "rule", "z-test"]
    return _section("Power at equal error", text, head, rows)


def _ends(name: Sequence[str], each: dict[str, Any]) -> list[str]:
    return [
        *name,
        _percent(each["promote"]),
        _number(each["promote_at"]),
        _percent(each["roll_back"]),
        _number(each["roll_back_at"]),
        _percent(each["inconclusive"]),
    ]


ENDS = ["promoted", "after", "rolled back", "after", "inconclusive"]


def _verdicts(results: Results) -> str:
    cells = _of(results, "verdict")
    if not cells:
        return ""
    text = """
Both tests at 5 %, 1 : 1, up to 5,000 values an arm. Stated: a candidate worse by the margin
(`non_inferiority` -0.02) or no better (`gain` 0 and below) is promoted with probability at most
5 %; an equal one (0) is rolled back with probability at most 5 %. `after`: median values an arm.
"""
    rows = [_ends(name.split(), each) for name, each in cells.items()]
    return _section("Verdicts", text, ["goal", "champion", "difference", *ENDS], rows)


def _steps(results: Results) -> str:
    cells = _of(results, "steps")
    if not cells:
        return ""
    text = """
150 values of the candidate at 5 % of the traffic, 350 at 25 %, 2,500 at 50 %; the evidence is
carried from step to step. `after`: median values of the candidate.
"""
    rows = [_ends(name.split(), each) for name, each in cells.items()]
    return _section("Traffic steps", text, ["goal", "champion", "difference", *ENDS], rows)


def _stars(results: Results) -> str:
    cells = _of(results, "stars")
    if not cells:
        return ""
    text = """
Ratings of one to five stars as scores 0 to 1 (mean 0.79), up to 3,000 an arm; the difference comes
from five stars that become one.
"""
    rows = [_ends(name.split(), each) for name, each in cells.items()]
    return _section("Ratings", text, ["goal", "difference", *ENDS], rows)


def _pairs(results: Results) -> str:
    cells = _of(results, "pairs")
    if not cells:
        return ""
    text = """
Both models answer the same prompts (shadow copies), up to 3,000 prompts; `+` and `-`: share of the
prompts that only the candidate, or only the champion, answers right. `after`: median prompts. With
traffic that is split, a gain of 2 points takes what `gain 0.9 +0.02` above says.
"""
    rows = [_ends(name.split(), each) for name, each in cells.items()]
    return _section("Pairs on identical prompts", text, ["goal", "+", "-", *ENDS], rows)


def _guardrails(results: Results) -> str:
    cells = _of(results, "guardrails")
    if not cells:
        return ""
    names = list(next(iter(cells.values()))["each"])
    rows = [
        [
            name,
            _percent(each["any"]),
            _number(each["median"]),
            _percent(each["false_share"]),
            *(_percent(each["each"][guardrail]) for guardrail in names),
        ]
        for name, each in cells.items()
    ]
    text = """
Four guardrails of one source, events in 1 %, 5 %, 10 % and 15 % of the answers, half of them
coinciding; e-BH at 5 %; 3,000 values an arm. Stated: with none harmed, any rollback in at most 5 %
of the runs; else the mean share of false ones among those found at most 5 %. By name: how often it
was among those found first.
"""
    head = ["harmed by", "any", "after", "false share", *names]
    return _section("Guardrails", text, head, rows)


def _shares(results: Results) -> str:
    cells = _of(results, "shares")
    if not cells:
        return ""
    text = """
The candidate's share as declared and as it is; level 0.1 %; looked at after each of 20,000
requests.
"""
    rows = [
        [*name.split(" is "), _percent(each["mismatched"]), _number(each["median"])]
        for name, each in cells.items()
    ]
    head = ["declared", "is", "called mismatched", "after requests"]
    return _section("Sample ratio", text, head, rows)


def _prospects(results: Results) -> str:
    cells = _of(results, "prospect")
    if not cells:
        return ""
    text = """
What is shown before a canary starts: the smallest effect found with probability 80 %, at 5 %, and
the share of runs that found an effect of that size. The formula errs on the side of caution.
"""
    rows = []
    for name, each in cells.items():
        effect = each["effect"]
        rows.append(
            [
                *name.split(),
                "none" if effect is None else f"{100 * effect:.2f} points",
                "" if effect is None else _percent(each["power"]),
            ]
        )
    head = ["test", "champion", "values an arm", "smallest effect", "found"]
    return _section("Smallest effects", text, head, rows)
