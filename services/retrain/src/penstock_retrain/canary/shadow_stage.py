"""The stage `shadow`: the candidate answers copies of the champion's requests, and is compared.

Before that the champion's values of the last while are read: they make the scales of metrics
without bounds, and what the canary will be able to tell, which people see before it starts.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from penstock_retrain.canary.comparing import Running, candidate_for, folding_for
from penstock_retrain.canary.config import Arm
from penstock_retrain.canary.folding import Observation
from penstock_retrain.canary.journal import Journal, Places
from penstock_retrain.canary.observing import CanaryLog, Observer, patiently
from penstock_retrain.canary.policy import CanaryPolicy, ShadowPolicy
from penstock_retrain.canary.quantities import QUANTITIES
from penstock_retrain.canary.reference import Reference, prospects_of
from penstock_retrain.canary.trial import CanaryTest
from penstock_retrain.canary.verdict import Decision
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

__all__ = ["ShadowStage"]

POLL_S = 1.0


class ShadowStage:
    """Compares answers to the same prompts, without anybody getting the candidate's.

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
        policy = parse_policy(job.policy)
        if JOURNAL not in job.result(JobState.SHADOW):
            begun = await self._begin(job, progress)
            if isinstance(begun, StageResult):
                return begun
            job = begun
        journal = Journal.from_json(job.result(JobState.SHADOW)[JOURNAL])
        if policy.shadow.percent == 0:
            return StageResult(Outcome.DONE)
        running = await Running.opened(
            self._desk, self._where, job, journal, policy.canary, progress, copies=True
        )
        try:
            return await self._compare(running, policy.shadow, policy.canary)
        finally:
            await running.observer.close()

    async def clean(self, job: Job) -> None:
        """Nothing is left: what was found out stays in the job, the route is the job's."""

    async def _compare(
        self, running: Running, shadow: ShadowPolicy, policy: CanaryPolicy
    ) -> StageResult:
        wanted = shadow.pairs if any(QUANTITIES[e.metric].paired for e in policy.metrics) else 0
        deadline_ms = running.journal.since_ms + round(shadow.max_s * 1000)
        while True:
            standing = await self._desk.standing(running.job, candidate_for(running.job))
            if taken_over := _taken_over(running.job, standing):
                return StageResult(Outcome.INCONCLUSIVE, running.facts(), taken_over)
            found = await running.step()
            verdict = running.trial.decide()
            if verdict.decision is Decision.ROLL_BACK:
                facts = {**running.facts(), "verdict": verdict.to_json()}
                return StageResult(Outcome.ROLL_BACK, facts, "; ".join(verdict.reasons))
            answered, pairs = running.journal.answered, _pairs(running.trial)
            enough = answered >= shadow.answers
            if enough and pairs >= wanted:
                return StageResult(Outcome.DONE, running.facts())
            if self._where.clock_ms() >= deadline_ms:
                if enough:
                    return StageResult(Outcome.DONE, running.facts())
                reason = (
                    f"the time is up, and the candidate has answered {answered} copies of "
                    f"{shadow.answers}"
                )
                return StageResult(Outcome.INCONCLUSIVE, running.facts(), reason)
            if found.findings or found.answered:
                await running.note()
            running.tell(
                f"{answered} copies answered of {shadow.answers}, {pairs} pairs of {wanted}"
            )
            await asyncio.sleep(self._poll_s)

    async def _begin(self, job: Job, progress: Report) -> Job | StageResult:
        """Reads the champion's values, and puts the candidate beside it."""
        policy, candidate = parse_policy(job.policy), candidate_for(job)
        since_ms = job.result(JobState.SHADOW).get("since_ms")
        if since_ms is None:
            since_ms = self._where.clock_ms()
            job = await self._desk.note(job, {"since_ms": since_ms})
        standing = await self._desk.standing(job, candidate)
        if not standing.champion:
            raise StageBroken(
                f"{job.model} has no route; write one with: penstock routes apply FILE"
            )
        folding = folding_for(policy.canary, standing.champion, candidate)
        observer = Observer(self._where, job.model, candidate.name, folding, copies=True)
        try:
            until_ms = since_ms + round(policy.shadow.max_s * 1000)
            reference = await self._reference(observer, policy.canary, until_ms, progress)
            if missing := reference.missing():
                return StageResult(
                    Outcome.INCONCLUSIVE,
                    {"reference": reference.counts()},
                    f"the champion has too few values of {', '.join(missing)} to make a scale of: "
                    "give a limit or bounds in the policy, or wait for traffic",
                )
            facts = await self._first_facts(job, observer, reference, standing.champion, since_ms)
        finally:
            await observer.close()
        progress(Progress(_said(facts["prospects"])))
        change = None
        if policy.shadow.percent:
            change = RouteChange(RouteChangeKind.SHADOW, candidate, policy.shadow.percent)
        return await self._desk.keep(job, facts, change=change)

    async def _reference(
        self, observer: Observer, policy: CanaryPolicy, until_ms: int, progress: Report
    ) -> Reference:
        """The champion's values of the last while, and of what comes until there are enough."""
        reference = Reference(policy)

        def said(message: str) -> None:
            progress(Progress(message))

        back_ms = self._where.clock_ms() - round(policy.baseline_s * 1000)
        places: Places = await patiently(lambda: observer.at(back_ms), said)
        while True:
            found = await patiently(partial(observer.round, places), said)
            places = found.positions
            for each in found.findings:
                if isinstance(each, Observation) and each.arm is Arm.CHAMPION:
                    reference.add(each.values)
            if found.watermark_ms is None:
                continue
            if not reference.missing() or self._where.clock_ms() >= until_ms:
                return reference
            await asyncio.sleep(self._poll_s)

    async def _first_facts(
        self,
        job: Job,
        observer: Observer,
        reference: Reference,
        champion: str,
        since_ms: int,
    ) -> dict[str, Any]:
        policy = parse_policy(job.policy)
        config = reference.config()
        trial = CanaryTest(config)
        trial.begin(0.0)
        here = await observer.here()
        journal = Journal(
            log=await self._where.id(),
            champion=champion,
            origins=here,
            positions=here,
            trial=trial.state(),
            since_ms=since_ms,
        )
        pairs = policy.shadow.pairs if policy.shadow.percent else 0
        return {
            JOURNAL: journal.to_json(),
            "reference": reference.counts(),
            "prospects": prospects_of(policy.canary, config, pairs),
        }


def _taken_over(job: Job, standing: Standing) -> str:
    """What somebody else has made of the shadow; empty where it is still what was asked for.

    Raises:
        Withdrawn: The candidate gets nothing any more.
    """
    if not standing.published or standing.shadow_percent:
        return ""
    name, where = candidate_for(job).name, f"version {standing.version} of the route"
    if standing.champion == name:
        return f"{where} makes {name} the champion: promote it, or make another one champion"
    if standing.candidate_percent:
        return (
            f"{where} gives {name} {standing.candidate_percent:g} % of the traffic already: "
            "continue as a canary, promote it or roll back"
        )
    raise Withdrawn(f"{where} has no such shadow any more")


def _pairs(trial: CanaryTest) -> int:
    return max((each.pairs for each in trial.evidence().metrics.values()), default=0)


def _said(prospects: dict[str, Any]) -> str:
    """What a canary will be able to tell, in a line."""
    last = prospects["steps"][-1]
    harm, gain = last["smallest_harm_found"], last["smallest_gain_found"]
    equal = last["promotes_an_equal_one"]
    parts = [f"by {last['values']} values of {prospects['metric']} the canary finds"]
    parts.append("no harm, however large" if harm is None else f"a harm of {harm:g} or more")
    if gain is not None:
        parts.append(f"and a gain of {gain:g} or more")
    parts.append("with a probability of 0.8")
    if equal is not None:
        parts.append(f"and promotes an equal candidate with {equal:g}")
    return " ".join(parts)
