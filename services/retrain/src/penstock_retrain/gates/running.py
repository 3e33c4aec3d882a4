"""Runs suites on contenders: asks, judges, writes the report. For jobs and for people."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from penstock_retrain.gates.answer_log import AnswerLog
from penstock_retrain.gates.answering import Answers, answer_all
from penstock_retrain.gates.examples import Batch, Contender, batches_of
from penstock_retrain.gates.judging import Answered, judge
from penstock_retrain.gates.loaded import LoadedSuite
from penstock_retrain.gates.page import gate_page
from penstock_retrain.gates.report import GateReport, SuiteRun

__all__ = ["ANSWERS", "PAGE", "REPORT", "Contest", "run_gates"]

ANSWERS = "answers.jsonl"
REPORT = "gates.json"
PAGE = "gates.html"


@dataclasses.dataclass(frozen=True)
class Contest:
    """What is judged on what.

    Attributes:
        suites: The suites, each of a name of its own.
        candidate: Who is judged.
        champion: Whom it is compared with; None for nobody.
        alpha: See `penstock_retrain.gates.judging`.
    """

    suites: Sequence[LoadedSuite]
    candidate: Contender
    champion: Contender | None
    alpha: float

    @property
    def contenders(self) -> list[Contender]:
        """Who is asked."""
        return [each for each in (self.champion, self.candidate) if each is not None]


async def run_gates(
    contest: Contest,
    answers: Answers,
    folder: Path,
    report: Callable[[str, int, int], None] = lambda suite, done, of: None,
) -> GateReport:
    """Asks what was not asked before, judges all of it, and writes `gates.json` and `gates.html`.

    Idempotent: killed and run again it asks for the rest, and finds the same.

    Args:
        contest: What is judged on what.
        answers: Who is asked.
        folder: Where answers and report are kept.
        report: Is told how many questions of all suites are answered, and of which suite.

    Raises:
        GateError: The suites cannot be run.
    """
    began = time.monotonic()
    kept = await asyncio.to_thread(AnswerLog, folder / ANSWERS)
    asked: list[tuple[LoadedSuite, list[Batch]]] = [
        (
            loaded,
            batches_of(contest.contenders, loaded.questions(), loaded.suite.answers.batch),
        )
        for loaded in contest.suites
    ]
    sizes = [sum(len(batch.questions) for batch in batches) for _, batches in asked]
    judged = []
    for number, (loaded, batches) in enumerate(asked):
        before, name = sum(sizes[:number]), loaded.suite.suite
        found = await answer_all(
            batches,
            answers,
            kept,
            lambda done, _, before=before, name=name: report(name, before + done, sum(sizes)),  # type: ignore[misc]  # bound now, in a loop
        )
        judged.append(Answered(loaded, found))
    rows = await asyncio.to_thread(
        judge, judged, contest.candidate, contest.champion, contest.alpha
    )
    made = GateReport(
        candidate=contest.candidate,
        champion=contest.champion,
        alpha=contest.alpha,
        suites=[_run(loaded) for loaded in contest.suites],
        rows=rows,
        made_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        seconds=time.monotonic() - began,
    ).redacted()
    await asyncio.to_thread(_write, folder, made)
    return made


def _run(loaded: LoadedSuite) -> SuiteRun:
    suite = loaded.suite
    return SuiteRun(suite.suite, suite.about, loaded.digest, len(loaded.examples))


def _write(folder: Path, made: GateReport) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((REPORT, made.to_json()), (PAGE, gate_page(made))):
        temporary = folder / f".tmp-{name}"
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / name)
