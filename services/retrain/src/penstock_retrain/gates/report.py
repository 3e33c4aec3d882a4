"""A report of gates: what was asked of a candidate and what its answers showed. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.personal_data import redact
from penstock_retrain.gates.examples import Contender
from penstock_retrain.gates.judging import Row, Verdict, Worst

__all__ = ["GateReport", "SuiteRun"]

FORMAT = 1
MAX_TEXT = 2000


@dataclasses.dataclass(frozen=True)
class SuiteRun:
    """A suite that was run.

    Attributes:
        name: Its name.
        about: What it is for.
        digest: SHA-256 of rules and examples.
        examples: How many, variants included.
    """

    name: str
    about: str
    digest: str
    examples: int


@dataclasses.dataclass(frozen=True)
class GateReport:
    """What gates found; texts in it have no personal data that has a form.

    Attributes:
        candidate: Who was judged.
        champion: Whom it was compared with; None for nobody.
        alpha: Level of the errors that `penstock_retrain.gates.judging` states.
        suites: What was run.
        rows: A verdict for each rule.
        made_at: When, ISO 8601, UTC.
        seconds: How long it took, answers of earlier runs not counted.
    """

    candidate: Contender
    champion: Contender | None
    alpha: float
    suites: Sequence[SuiteRun]
    rows: Sequence[Row]
    made_at: str
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """The worst of the rows'; without any rule there is not enough."""
        verdicts = {row.verdict for row in self.rows}
        if Verdict.FAIL in verdicts:
            return Verdict.FAIL
        return Verdict.PASS if verdicts == {Verdict.PASS} else Verdict.NOT_ENOUGH

    @property
    def passed(self) -> bool:
        """Whether every rule is passed."""
        return self.verdict is Verdict.PASS

    @property
    def reason(self) -> str:
        """The rules that are not passed, in a line; empty where all are."""
        told = [
            f"{row.suite}, {row.slice}: {row.rule} ({row.verdict}: {_figures(row)})"
            for row in sorted(self.rows, key=lambda each: each.verdict is not Verdict.FAIL)
            if row.verdict is not Verdict.PASS
        ]
        return "; ".join(told)

    def facts(self) -> dict[str, Any]:
        """What a job keeps, as JSON: no text of questions or answers."""
        return {
            "passed": self.passed,
            "verdict": str(self.verdict),
            "alpha": self.alpha,
            "candidate": _described(self.candidate),
            "champion": None if self.champion is None else _described(self.champion),
            "suites": [dataclasses.asdict(each) for each in self.suites],
            "rows": [_facts(row) for row in self.rows],
            "seconds": round(self.seconds, 1),
        }

    def to_json(self) -> str:
        """All of it, the worst examples included."""
        rows = [{**_facts(row), "worst": [_told(each) for each in row.worst]} for row in self.rows]
        whole = {"format": FORMAT, "made_at": self.made_at, **self.facts(), "rows": rows}
        return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"

    def redacted(self) -> GateReport:
        """The same without personal data in its texts, and with long ones cut."""
        rows = [
            dataclasses.replace(row, worst=tuple(map(_without_personal_data, row.worst)))
            for row in self.rows
        ]
        return dataclasses.replace(self, rows=rows)


def _facts(row: Row) -> dict[str, Any]:
    made = {
        field.name: getattr(row, field.name)
        for field in dataclasses.fields(row)
        if field.name != "worst"
    }
    return {**made, "verdict": str(row.verdict)}


def _told(worst: Worst) -> Mapping[str, Any]:
    return dataclasses.asdict(worst)


def _described(contender: Contender) -> dict[str, str]:
    return {"name": contender.name, "digest": contender.digest}


def _figures(row: Row) -> str:
    if row.estimate is None:
        return row.reason
    return f"{row.estimate:.4g}, {row.low:.4g} to {row.high:.4g}, {row.n} examples"


def _without_personal_data(worst: Worst) -> Worst:
    expected = worst.expected
    return dataclasses.replace(
        worst,
        asked=_safe(worst.asked),
        answered=_safe(worst.answered),
        other=None if worst.other is None else _safe(worst.other),
        expected=_safe(expected) if isinstance(expected, str) else expected,
    )


def _safe(text: str) -> str:
    # Cut after it was redacted: half a number would not be found.
    whole = redact(text)
    return whole if len(whole) <= MAX_TEXT else f"{whole[:MAX_TEXT]}… ({len(whole)} characters)"
