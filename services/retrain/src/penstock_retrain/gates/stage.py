"""The stage `evaluating` of a job: what was trained is asked, beside the champion, and judged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from penstock_retrain.gates.answering import Answers, ModelProcess
from penstock_retrain.gates.errors import AnswersError, GateError
from penstock_retrain.gates.examples import Contender
from penstock_retrain.gates.loaded import LoadedSuite
from penstock_retrain.gates.loading import DEFAULT, load_suite
from penstock_retrain.gates.policy import GatesPolicy
from penstock_retrain.gates.running import ANSWERS, PAGE, REPORT, Contest, run_gates
from penstock_retrain.jobs.stages import Outcome, Progress, Report, StageBroken, StageResult
from penstock_retrain.jobs.states import Job, JobState

__all__ = ["Contenders", "GateStage"]

MAX_REASON = 500


class Contenders(Protocol):
    """Who is judged and whom it is compared with. Both may block; both raise GateError."""

    def candidate(self, job: Job) -> Contender:
        """What the job's training made."""
        ...

    def champion(self, job: Job) -> Contender | None:
        """What serves the model now; None where nothing does."""
        ...


class GateStage:
    """Judges a job's candidate by the suites that its policy names.

    Answers are kept in the job's directory as they come: a run again asks for the rest only.

    Args:
        folder: Reports go below it, one directory for each job.
        suites: The directory that the policy's suites are named from.
        contenders: Who is judged.
        answers_of: Who is asked, by the policy.
    """

    def __init__(
        self,
        folder: Path,
        suites: Path,
        contenders: Contenders,
        answers_of: Callable[[GatesPolicy], Answers] = lambda policy: ModelProcess(policy.threads),
    ) -> None:
        self._folder = folder
        self._suites = suites
        self._contenders = contenders
        self._answers_of = answers_of

    async def run(self, job: Job, progress: Report) -> StageResult:
        """See `penstock_retrain.jobs.stages.Stage`."""
        try:
            policy = GatesPolicy.parse(job.policy)
            contest = await asyncio.to_thread(self._contest, job, policy)
            path = self._path(job)
            made = await run_gates(
                contest, self._answers_of(policy), path, _Eta(progress, time.monotonic)
            )
        except AnswersError:
            raise  # memory may be free again in a while
        except GateError as error:
            raise StageBroken(str(error)) from error
        facts = {
            **made.facts(),
            "report": str(path / PAGE),
            # Files that go with the version, by the name that they have there.
            "attachments": {name: str(path / name) for name in (REPORT, PAGE)},
        }
        if made.passed:
            return StageResult(Outcome.DONE, facts)
        return StageResult(Outcome.REFUSED, facts, f"gate: {made.reason}"[:MAX_REASON])

    async def clean(self, job: Job) -> None:
        """Removes the answers; the report stays, for lineage."""

        def remove() -> None:
            path = self._path(job)
            (path / ANSWERS).unlink(missing_ok=True)
            for half in path.glob(".tmp-*"):
                half.unlink(missing_ok=True)

        await asyncio.to_thread(remove)

    def _contest(self, job: Job, policy: GatesPolicy) -> Contest:
        dataset = job.result(JobState.DATASET).get("path")
        loaded: list[LoadedSuite] = []
        for name in policy.suites:
            path = name if name == DEFAULT else self._suites / name
            suite = load_suite(path, Path(str(dataset)) if dataset else None)
            if suite.suite.suite in [each.suite.suite for each in loaded]:
                raise GateError(f"{name}: suite: another one is named {suite.suite.suite}")
            loaded.append(suite)
        return Contest(
            loaded,
            self._contenders.candidate(job),
            self._contenders.champion(job),
            policy.alpha,
        )

    def _path(self, job: Job) -> Path:
        return self._folder / job.id


class _Eta:
    """Tells progress with the time that is left, from what was answered since it began."""

    def __init__(self, progress: Report, clock_s: Callable[[], float]) -> None:
        self._progress = progress
        self._clock_s = clock_s
        self._began: tuple[float, int] | None = None

    def __call__(self, suite: str, done: int, of: int) -> None:
        now_s = self._clock_s()
        if self._began is None:
            self._began = now_s, done
        began_s, before = self._began
        eta_s = (now_s - began_s) * (of - done) / (done - before) if done > before else None
        self._progress(Progress(f"suite {suite}: {done} of {of} answers", done, of, eta_s))
