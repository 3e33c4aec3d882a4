"""What shadow and canary have in common: a test that is fed, kept and told of."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable
from typing import Any, Self

from penstock_retrain.canary.config import Arm
from penstock_retrain.canary.folding import Count, Finding, Folding, Observation, Pair
from penstock_retrain.canary.journal import Journal
from penstock_retrain.canary.observing import CanaryLog, Observer, Round, patiently
from penstock_retrain.canary.policy import CanaryPolicy
from penstock_retrain.canary.trial import CanaryTest
from penstock_retrain.jobs.effects import candidate_of
from penstock_retrain.jobs.stages import Candidate, Desk, Progress, Report, StageBroken
from penstock_retrain.jobs.states import JOURNAL, Job

__all__ = ["Running", "candidate_for", "folding_for", "take"]

TELL_S = 5.0


def candidate_for(job: Job) -> Candidate:
    """The job's candidate.

    Raises:
        StageBroken: It has none.
    """
    found = candidate_of(job)
    if found is None:
        raise StageBroken(f"job {job.id} has no registered candidate")
    return found


def folding_for(
    policy: CanaryPolicy,
    champion: str,
    candidate: Candidate,
    *,
    split: bool = False,
    pairs: bool = False,
) -> Folding:
    """Joins the answers of both, as the policy wants them read.

    Args:
        policy: Whose metrics.
        champion: The champion's variant.
        candidate: The candidate.
        split: Whether clients' traffic is split between them.
        pairs: Whether the candidate answers copies, and both answers are compared.
    """
    return Folding(
        champion,
        candidate.name,
        [each.metric for each in policy.metrics],
        policy.reading(),
        round(policy.settle_s * 1000) if split else None,
        pairs=pairs,
    )


def take(trial: CanaryTest, findings: Iterable[Finding]) -> int:
    """Gives findings to a test; returns how many there were. Pure but for the test's state."""
    taken = 0
    for found in findings:
        match found:
            case Observation(arm, values):
                trial.observe(arm, values)
            case Pair(champion, candidate):
                trial.observe_pair(champion, candidate)
            case Count(arm, what):
                trial.count(arm, what)
        taken += 1
    return taken


@dataclasses.dataclass
class Running:
    """A comparison under way, in one process.

    Attributes:
        desk: Where it is kept.
        job: As it stands.
        journal: Where the comparison stands; its trial is as it was kept last.
        trial: The test.
        folding: Joins answers and opinions.
        observer: Reads them.
        report: Told how it goes.
    """

    desk: Desk
    job: Job
    journal: Journal
    trial: CanaryTest
    folding: Folding
    observer: Observer
    report: Report
    _told_s: float = -math.inf

    @classmethod
    async def opened(
        cls,
        desk: Desk,
        where: CanaryLog,
        job: Job,
        journal: Journal,
        policy: CanaryPolicy,
        report: Report,
        *,
        copies: bool,
    ) -> Self:
        """Goes on from a journal, as if no process had ended.

        Raises:
            StageBroken: The log is another one than the journal's.
        """
        here = await patiently(where.id, lambda said: report(Progress(said)))
        if here != journal.log:
            raise StageBroken(
                f"the log is {here}, and what was compared is of {journal.log}: the topics were "
                "made anew; start another job"
            )
        candidate = candidate_for(job)

        async def recalled() -> tuple[Folding, Observer]:
            # Made anew for each try: what was folded half-way would count twice.
            folding = folding_for(
                policy, journal.champion, candidate, split=not copies, pairs=copies
            )
            observer = Observer(where, job.model, candidate.name, folding, copies=copies)
            try:
                await observer.recall(journal)
            except BaseException:
                await observer.close()
                raise
            return folding, observer

        folding, observer = await patiently(recalled, lambda said: report(Progress(said)))
        trial = CanaryTest.from_state(dict(journal.trial))
        return cls(desk, job, journal, trial, folding, observer, report)

    async def step(self) -> Round:
        """Takes what is new on the log."""
        found = await patiently(
            lambda: self.observer.round(self.journal.positions),
            lambda said: self.report(Progress(said)),
        )
        take(self.trial, found.findings)
        watermark_ms = found.watermark_ms
        if watermark_ms is None:
            watermark_ms = self.journal.watermark_ms
        self.journal = dataclasses.replace(
            self.journal,
            positions=found.positions,
            watermark_ms=watermark_ms,
            answered=self.journal.answered + found.answered,
            trims=(*self.journal.trims, found.positions) if found.trimmed else self.journal.trims,
        )
        return found

    async def note(self) -> None:
        """Keeps the test and how far the log was read, in one transaction."""
        self.job = await self.desk.note(self.job, self.facts())

    def facts(self) -> dict[str, Any]:
        """What is kept: the journal for the next process, the standing for people."""
        self.journal = dataclasses.replace(self.journal, trial=self.trial.state())
        return {
            JOURNAL: self.journal.to_json(),
            "standing": self.standing(),
            "split": _split(self.trial),
            "dropped": self._dropped(),
        }

    def _dropped(self) -> dict[str, int]:
        late = {"late_feedback": self.folding.late} if self.folding.late else {}
        return {**self.trial.evidence().dropped, **late}

    def standing(self) -> dict[str, Any]:
        """What is known of each metric: values, difference, and the e-values so far."""
        found = {}
        for name, known in self.trial.evidence().metrics.items():
            difference = known.difference
            found[name] = {
                "champion": known.champion,
                "candidate": known.candidate,
                "pairs": known.pairs,
                "difference": None if difference is None else round(difference, 4),
                **{
                    f"e_{question.value}": float(f"{math.exp(min(700.0, test.peak)):.4g}")
                    for question, test in known.tests.items()
                },
            }
        return found

    @property
    def values(self) -> int:
        """The candidate's values in the primary metric."""
        primary = self.trial.evidence().metrics[self.trial.config.primary.name]
        return primary.candidate

    def tell(self, message: str, step: int = 0, steps: int = 0) -> None:
        """Reports how it goes, every few seconds."""
        now_s = time.monotonic()
        if now_s - self._told_s < TELL_S:
            return
        self._told_s = now_s
        primary = self.standing()[self.trial.config.primary.name]
        numbers = {name: float(value) for name, value in primary.items() if value is not None}
        self.report(Progress(message, step, steps, metrics=numbers))


def _split(trial: CanaryTest) -> dict[str, dict[str, int]]:
    """Of each count for the check of the split, the units of this step, by arm."""
    return {
        what: {arm.value: state["counts"][arm.value] for arm in Arm}
        for what, state in trial.state()["counts"].items()
    }
