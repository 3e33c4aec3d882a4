"""The stage `canary`: the candidate gets traffic, step by step, until a verdict is reached."""

from __future__ import annotations

import asyncio
import dataclasses

from penstock_retrain.canary.comparing import Running, candidate_for, folding_for
from penstock_retrain.canary.journal import Journal
from penstock_retrain.canary.observing import CanaryLog, Observer, patiently
from penstock_retrain.canary.policy import CanaryPolicy
from penstock_retrain.canary.trial import CanaryTest
from penstock_retrain.canary.verdict import Decision, Verdict
from penstock_retrain.jobs.policy import parse_policy
from penstock_retrain.jobs.stages import (
    Desk,
    Outcome,
    Progress,
    Report,
    RouteChange,
    RouteChangeKind,
    StageBroken,
    StageResult,
    Standing,
    Withdrawn,
)
from penstock_retrain.jobs.states import JOURNAL, Job, JobState

__all__ = ["CanaryStage"]

POLL_S = 1.0
# Weights are whole numbers: a share that differs by less is the same.
SAME_PERCENT = 0.05

_OUTCOMES = {
    Decision.PROMOTE: Outcome.PROMOTE,
    Decision.ROLL_BACK: Outcome.ROLL_BACK,
    Decision.INCONCLUSIVE: Outcome.INCONCLUSIVE,
}


class CanaryStage:
    """Gives the candidate traffic, and compares what clients got.

    Evidence goes on from the shadow's through all steps. Harm ends it at any instant; what is to
    be shown promotes after the last step's values.

    Args:
        desk: Where it is kept, and where the route is changed.
        where: Where answers and opinions are.
        poll_s: How often it looks for new ones.
    """

    def __init__(self, desk: Desk, where: CanaryLog, *, poll_s: float = POLL_S) -> None:
        self._desk = desk
        self._where = where
        self._poll_s = poll_s

    async def run(self, job: Job, progress: Report) -> StageResult:
        """See `penstock_retrain.jobs.stages.Stage`."""
        policy = parse_policy(job.policy).canary
        begun = await self._begun(job, policy, progress)
        if isinstance(begun, StageResult):
            return begun
        journal = Journal.from_json(begun.result(JobState.CANARY)[JOURNAL])
        running = await Running.opened(
            self._desk, self._where, begun, journal, policy, progress, copies=False
        )
        try:
            return await self._climb(running, policy)
        finally:
            await running.observer.close()

    async def clean(self, job: Job) -> None:
        """Nothing is left: what was found out stays in the job, the route is the job's."""

    async def _climb(self, running: Running, policy: CanaryPolicy) -> StageResult:
        while True:
            standing = await self._desk.standing(running.job, candidate_for(running.job))
            if standing.champion != running.journal.champion:
                return _result(running, _moved(running, standing))
            moved = _follow(running, standing)
            found = await running.step()
            now_ms = self._where.clock_ms()
            time_is_up = now_ms >= running.journal.since_ms + round(policy.max_s * 1000)
            verdict = running.trial.decide(time_is_up=time_is_up)
            if verdict.decision in (Decision.ROLL_BACK, Decision.INCONCLUSIVE):
                return _result(running, verdict)
            step = policy.steps[running.job.step - 1]
            values = running.values - running.journal.before
            if found.watermark_ms is not None and values >= step.values:
                if running.job.step < len(policy.steps):
                    await self._next_step(running, policy)
                    continue
                if verdict.decision is Decision.PROMOTE:
                    return _result(running, verdict)
            if time_is_up and values < step.values:
                return _result(running, _late(running, verdict, values, step.values))
            if found.findings or moved:
                await running.note()
            running.tell(
                f"{step.percent:g} %: {values} values of {step.values}; {verdict.reasons[0]}",
                running.job.step,
                len(policy.steps),
            )
            await asyncio.sleep(self._poll_s)

    async def _next_step(self, running: Running, policy: CanaryPolicy) -> None:
        number = running.job.step + 1
        candidate = candidate_for(running.job)
        percent = policy.steps[number - 1].percent
        running.folding.begin(0)
        running.journal = dataclasses.replace(
            running.journal, version=0, percent=0.0, before=running.values
        )
        running.job = await self._desk.keep(
            running.job,
            running.facts(),
            step=number,
            change=RouteChange(RouteChangeKind.SPLIT, candidate, percent),
        )

    async def _begun(self, job: Job, policy: CanaryPolicy, progress: Report) -> Job | StageResult:
        """The job with a journal of this stage."""
        kept = job.result(JobState.CANARY)
        asked = kept.get("verdict", {}).get("decision") == Decision.INCONCLUSIVE
        if JOURNAL not in kept:
            return await self._begin(job, policy, progress, asked=asked)
        if not asked:
            return job
        # A person lets it go on: as long again, as many values again, whatever the split was.
        journal = Journal.from_json(kept[JOURNAL])
        trial = CanaryTest.from_state(dict(journal.trial))
        trial.recount()
        state = trial.state()
        state["config"]["horizon"] += policy.horizon
        journal = dataclasses.replace(
            journal,
            trial=state,
            since_ms=self._where.clock_ms(),
            continued=journal.continued + 1,
        )
        return await self._desk.keep(job, {JOURNAL: journal.to_json(), "verdict": {}})

    async def _begin(
        self, job: Job, policy: CanaryPolicy, progress: Report, *, asked: bool
    ) -> Job | StageResult:
        shadow = job.result(JobState.SHADOW)
        if JOURNAL not in shadow:
            raise StageBroken(
                "the shadow has not made the canary's question: it ended without the champion's "
                "values; start another job"
            )
        before, candidate = Journal.from_json(shadow[JOURNAL]), candidate_for(job)
        standing = await self._desk.standing(job, candidate)
        if standing.by_tenant and not asked:
            return StageResult(
                Outcome.INCONCLUSIVE,
                {"verdict": {"decision": Decision.INCONCLUSIVE.value}},
                "the route keeps tenants together (sticky_by): a verdict counts requests or "
                "conversations that are assigned independently of each other; change that and "
                "continue, or decide by hand",
            )
        trial = CanaryTest.from_state(dict(before.trial))
        if standing.champion != before.champion:
            return StageResult(
                Outcome.INCONCLUSIVE,
                {"verdict": {"decision": Decision.INCONCLUSIVE.value}},
                _other_champion(before, standing),
            )
        percent = policy.steps[0].percent
        folding = folding_for(policy, standing.champion, candidate, split=True)
        observer = Observer(self._where, job.model, candidate.name, folding, copies=False)
        try:
            here = await patiently(observer.here, lambda said: progress(Progress(said)))
        finally:
            await observer.close()
        journal = Journal(
            log=before.log,
            champion=before.champion,
            origins=here,
            positions=here,
            trial=trial.state(),
            since_ms=self._where.clock_ms(),
            before=trial.evidence().metrics[trial.config.primary.name].candidate,
        )
        return await self._desk.keep(
            job,
            {JOURNAL: journal.to_json(), "prospects": shadow["prospects"], "verdict": {}},
            step=1,
            change=RouteChange(RouteChangeKind.SPLIT, candidate, percent),
        )


def _follow(running: Running, standing: Standing) -> bool:
    """Takes the split from the route that stands, whoever wrote it; whether it is another one.

    Raises:
        Withdrawn: The candidate has no traffic any more.
    """
    if not standing.published:
        return False
    both = standing.candidate_percent + standing.champion_percent
    if not standing.candidate_percent:
        raise Withdrawn(
            f"version {standing.version} of the route gives the candidate no traffic any more"
        )
    percent, journal = 100 * standing.candidate_percent / both, running.journal
    if journal.version and abs(percent - journal.percent) < SAME_PERCENT:
        return False
    running.trial.begin(percent / 100)
    running.folding.begin(standing.version)
    running.journal = dataclasses.replace(journal, version=standing.version, percent=percent)
    return True


def _result(running: Running, verdict: Verdict) -> StageResult:
    facts = {**running.facts(), "verdict": verdict.to_json()}
    return StageResult(_OUTCOMES[verdict.decision], facts, "; ".join(verdict.reasons))


def _moved(running: Running, standing: Standing) -> Verdict:
    reason = _other_champion(running.journal, standing)
    return Verdict(Decision.INCONCLUSIVE, (reason,), running.trial.evidence())


def _other_champion(journal: Journal, standing: Standing) -> str:
    return (
        f"the champion is {standing.champion or 'nobody'} now and was {journal.champion} when it "
        "was compared: that says nothing of this one, and goes on only when that one is back"
    )


def _late(running: Running, verdict: Verdict, values: int, wanted: int) -> Verdict:
    name = running.trial.config.primary.name
    reason = (
        f"the time is up, and step {running.job.step} has {values} values of {name} of {wanted}"
    )
    return Verdict(Decision.INCONCLUSIVE, (reason, *verdict.reasons), running.trial.evidence())
