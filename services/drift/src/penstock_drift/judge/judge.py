"""Judges the evidence of all partitions together, one event-time tick after the other. Pure.

A tick is judged when every partition has said what it has on it. What is judged is a function of
what the partitions say per tick, not of when their words arrive; a word that comes twice counts
once. What waits for other partitions is no part of a snapshot: it is read again.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Mapping, Set

from penstock_drift.findings.causes import likely_causes
from penstock_drift.findings.events import Event, Watch, event_of, is_worse, unit_of_effect
from penstock_drift.findings.incidents import Incident, Incidents, News
from penstock_drift.findings.states import Look, Rules, Standing, State, due_ms, step, wait
from penstock_drift.fold.keys import VOTES, floor
from penstock_drift.judge.accounts import told_at
from penstock_drift.judge.cases import Case, JudgeProgress, JudgeSnapshot
from penstock_drift.judge.multiplicity import rejected
from penstock_drift.policy.document import RETRAIN, SELF_TEST_MODEL, Finding, Policy, kept_policy
from penstock_drift.records.evidence import Channel, Entry, TickEvidence
from penstock_drift.records.values import Key, PolicyChange, Traffic
from penstock_drift.signals.declared import Declaration

__all__ = ["Judge", "Verdicts"]

_FOUND = (State.DRIFT, State.COOLDOWN)


@dataclasses.dataclass
class Verdicts:
    """What came of some evidence, in order.

    Attributes:
        events: For machines.
        news: For people.
    """

    events: list[Event] = dataclasses.field(default_factory=list)
    news: list[News] = dataclasses.field(default_factory=list)


class Judge:
    """The one judge.

    Args:
        declarations: The signals by name.
        progress: Where a former incarnation stood; anew if None.
        cases: Its cases.
        incidents: Its open incidents.
    """

    def __init__(
        self,
        declarations: Mapping[str, Declaration],
        progress: JudgeProgress | None = None,
        cases: Mapping[Watch, Case] | None = None,
        incidents: Iterable[Incident] = (),
    ) -> None:
        found = progress or JudgeProgress()
        self._declarations = declarations
        self._judged_ms, self._partitions = found.judged_ms, found.partitions
        self._armed, self._asked = dict(found.armed), dict(found.asked)
        self._traffic = dict(found.traffic)
        self._change = found.policy
        self._policy = kept_policy(found.policy.document if found.policy else None)
        self._rules = _rules_of(self._policy)
        self._cases = dict(cases or {})
        self._incidents = Incidents(incidents)
        self._waiting: dict[int, deque[tuple[int, TickEvidence]]] = {}
        self._newest: dict[int, int] = {}
        self._next_offset = 0
        self._changed: set[Watch] = set()
        self._closed: set[Watch] = set()

    @property
    def cases(self) -> Mapping[Watch, Case]:
        """What is above the floor, or lately was."""
        return self._cases

    @property
    def incidents(self) -> int:
        """How many incidents are open."""
        return len(self._incidents)

    @property
    def armed(self) -> int:
        """How many signals have a baseline."""
        return sum(self._armed.values())

    @property
    def judged_ms(self) -> int:
        """Up to when everything is judged."""
        return self._judged_ms

    def take(self, evidence: TickEvidence, offset: int) -> Verdicts:
        """Takes a partition's word, at its offset in `evidence`; a repeat does nothing."""
        verdicts = Verdicts()
        self._next_offset = max(self._next_offset, offset + 1)
        self._partitions = max(self._partitions, evidence.partitions)
        number = evidence.partition
        if evidence.until_ms <= max(self._newest.get(number, 0), self._judged_ms):
            # Known already. A partition that was never heard of stands at what is judged.
            self._newest.setdefault(number, self._judged_ms)
            return verdicts
        self._newest[number] = evidence.until_ms
        self._waiting.setdefault(number, deque()).append((offset, evidence))
        heard = [self._newest.get(each, self._judged_ms) for each in range(self._partitions)]
        self._judge_until(min(heard), verdicts)
        return verdicts

    def snapshot(self) -> JudgeSnapshot:
        """What changed since the last call; what it gives must be written, or the judge dropped."""
        progress = JudgeProgress(
            judged_ms=self._judged_ms,
            partitions=self._partitions,
            armed=dict(self._armed),
            policy=self._change,
            asked=dict(self._asked),
            traffic=dict(self._traffic),
        )
        waiting = (offset for queue in self._waiting.values() for offset, _ in queue)
        found = JudgeSnapshot(
            progress,
            {watch: self._cases[watch] for watch in sorted(self._changed)},
            frozenset(self._closed),
            self._incidents.changes(),
            min(waiting, default=self._next_offset),
        )
        self._changed, self._closed = set(), set()
        return found

    def _judge_until(self, until_ms: int, verdicts: Verdicts) -> None:
        while True:
            tick_ms = min(
                (queue[0][1].until_ms for queue in self._waiting.values() if queue),
                default=until_ms + 1,
            )
            due = min(
                (
                    max(found, self._judged_ms)
                    for case in self._cases.values()
                    if (found := due_ms(case.standing, self._rules)) is not None
                ),
                default=until_ms + 1,
            )
            # What is due before a tick's evidence comes first, what is due with it after.
            if tick_ms <= min(due, until_ms):
                self._judge(tick_ms, verdicts)
            elif due <= until_ms:
                self._let_pass(due, verdicts)
            else:
                break
        self._judged_ms = max(self._judged_ms, until_ms)

    def _judge(self, tick_ms: int, verdicts: Verdicts) -> None:
        self._judged_ms = tick_ms
        updated: list[Entry] = []
        evicted: set[Key] = set()
        former = self._policy
        for number in sorted(self._waiting):
            queue = self._waiting[number]
            while queue and queue[0][1].until_ms == tick_ms:
                _, evidence = queue.popleft()
                self._armed[number] = evidence.armed
                self._take_policy(evidence.policy)
                for traffic in evidence.traffic:
                    self._take_traffic(traffic)
                updated += evidence.entries
                evicted.update(evidence.evicted)
        if evicted or self._policy is not former:
            self._end_dropped(evicted, tick_ms, verdicts)
        # A fold that has not come to the policy yet goes on telling of what it switches off.
        held = [e for e in updated if e.key not in evicted and self._watches(e.evidence.signal)]
        looks = []
        for entry in sorted(held, key=lambda each: (each.key, each.evidence.signal)):
            watch = Watch(entry.key, entry.evidence.signal)
            case = self._cases.get(watch)
            looks.append((watch, case.entry if case else None))
            self._keep(watch, dataclasses.replace(case, entry=entry) if case else Case(entry))
        withdrawn = {watch for watch, case in self._cases.items() if self._withdrawn(case.entry)}
        values = {
            watch: case.entry.evidence.log_evidence
            for watch, case in self._cases.items()
            if watch not in withdrawn
        }
        strong = _strong(values, self.armed, self._policy.alpha)
        for watch, earlier in looks:
            case = self._cases[watch]
            look = Look() if watch in withdrawn else self._look(case, watch in strong, earlier)
            if look.rebased and earlier is not None:
                # What is measured anew knows nothing of the change that ends with it.
                self._keep(watch, dataclasses.replace(case, entry=earlier))
            channel = Channel.E_DETECTORS if watch in strong else Channel.CALIBRATED
            self._move(watch, step(case.standing, look, tick_ms, self._rules), channel, verdicts)
        # A suspect one may be gone by now.
        self._end(withdrawn & self._cases.keys(), "withdrawn", tick_ms, verdicts)
        self._tell(verdicts)

    def _let_pass(self, now_ms: int, verdicts: Verdicts) -> None:
        self._judged_ms = now_ms
        for watch, case in sorted(self._cases.items()):
            moved = wait(case.standing, now_ms, self._rules)
            if moved is not case.standing:
                self._move(watch, moved, None, verdicts)
        self._tell(verdicts)

    def _take_policy(self, change: PolicyChange | None) -> None:
        if change is None or (self._change and change.version <= self._change.version):
            return
        # Folds pass on what they could parse themselves; those of another version may take more.
        self._policy, self._change = kept_policy(change.document), change
        self._rules = _rules_of(self._policy)

    def _take_traffic(self, traffic: Traffic) -> None:
        known = self._traffic.get(traffic.model)
        if not traffic.route_version:
            self._traffic.pop(traffic.model, None)
        elif known is None or traffic.route_version > known.route_version:
            self._traffic[traffic.model] = traffic

    def _withdrawn(self, entry: Entry) -> bool:
        """Whether nobody is answered by the variant any more: late labels are of the past."""
        traffic = self._traffic.get(entry.key.model)
        return (
            traffic is not None
            and entry.key.variant not in traffic.variants
            # One that answered under a newer route is one that the judge has not heard of yet.
            and entry.evidence.route_version_after < traffic.route_version
        )

    def _watches(self, signal: str) -> bool:
        return self._policy.for_signal(signal).enabled

    def _end_dropped(self, evicted: Set[Key], now_ms: int, verdicts: Verdicts) -> None:
        """Ends what nothing more is told of: evicted keys, and what the policy switches off."""
        off = {signal for _, signal in self._cases if not self._watches(signal)}
        gone = [watch for watch in self._cases if watch.key in evicted or watch.signal in off]
        self._end(gone, "dropped", now_ms, verdicts)

    def _end(self, gone: Iterable[Watch], how: str, now_ms: int, verdicts: Verdicts) -> None:
        for watch in sorted(gone):
            standing = self._cases[watch].standing
            ended = dataclasses.replace(standing, state=State.ARMED, since_ms=now_ms)
            self._move(watch, ended, None, verdicts, how=how)

    def _look(self, case: Case, strong: bool, earlier: Entry | None) -> Look:
        evidence = case.entry.evidence
        agreed = evidence.fired >= VOTES
        watched = self._policy.for_signal(evidence.signal)
        in_deviations = unit_of_effect(self._declarations.get(evidence.signal)) == "sd"
        least = watched.min_effect if in_deviations else watched.min_change
        large = abs(evidence.effect.estimate) >= least
        return Look(
            suspicious=agreed or evidence.log_evidence >= floor(self._policy),
            found=(strong or agreed) and large,
            rebased=earlier is not None and evidence.baseline > earlier.evidence.baseline,
        )

    def _move(
        self,
        watch: Watch,
        standing: Standing,
        channel: Channel | None,
        verdicts: Verdicts,
        how: str = "",
    ) -> None:
        case = self._cases[watch]
        before = case.standing
        case = dataclasses.replace(case, standing=standing)
        if standing.state is State.DRIFT and before.state is not State.DRIFT:
            kept = channel or case.channel or Channel.E_DETECTORS
            case = self._found(watch, dataclasses.replace(case, channel=kept), before, verdicts)
        elif before.state in _FOUND and standing.state is not before.state:
            verdicts.events.append(self._event(case, before))
            ended = how or _how_it_ended(before, standing)
            if ended:
                self._incidents.end(case.incident_id, watch, ended)
        elif before.state in _FOUND:
            self._incidents.refresh(case.incident_id, case.entry)
        if standing.state in (State.SUSPECT, *_FOUND):
            self._keep(watch, case)
        else:
            self._close(watch)

    def _found(self, watch: Watch, case: Case, before: Standing, verdicts: Verdicts) -> Case:
        entry, now_ms = case.entry, case.standing.since_ms
        if watch.key.model == SELF_TEST_MODEL:
            verdicts.events.append(self._event(case, before))
            return case
        action = self._action(case, now_ms)
        severity = self._policy.severity(entry.evidence.kind, watch.signal)
        assert case.channel is not None
        incident = self._incidents.add(
            entry, case.channel, severity, action, now_ms, known=case.incident_id
        )
        case = dataclasses.replace(case, incident_id=incident.incident_id)
        verdicts.events.append(dataclasses.replace(self._event(case, before), action=action))
        return case

    def _action(self, case: Case, now_ms: int) -> str:
        entry = case.entry
        others = [each.entry for each in self._cases.values()]
        action = self._policy.action_for(
            Finding(
                kind=entry.evidence.kind,
                model=entry.key.model,
                signal=entry.evidence.signal,
                causes=tuple(cause.name for cause in likely_causes(entry, others)),
                worse=is_worse(entry, self._declarations),
            )
        )
        if action == RETRAIN:
            name = f"{entry.key.model}/{entry.key.variant}"
            cooldown_ms = round(self._policy.actions.retrain.cooldown_s * 1000)
            if name in self._asked and now_ms < self._asked[name] + cooldown_ms:
                return ""
            recent = {n: ms for n, ms in self._asked.items() if now_ms < ms + cooldown_ms}
            self._asked = {**recent, name: now_ms}
        return action

    def _event(self, case: Case, before: Standing) -> Event:
        standing = case.standing
        channel = case.channel or Channel.E_DETECTORS
        event = event_of(case.entry, standing.state, before.state, channel, standing.since_ms)
        version = self._change.version if self._change else 0
        return dataclasses.replace(event, incident_id=case.incident_id, policy_version=version)

    def _tell(self, verdicts: Verdicts) -> None:
        for news in self._incidents.news():
            version = self._change.version if self._change else 0
            told = told_at(news.incident, self._cases, self._judged_ms, version)
            self._incidents.told(told)
            verdicts.news.append(dataclasses.replace(news, incident=told))

    def _keep(self, watch: Watch, case: Case) -> None:
        self._cases[watch] = case
        self._changed.add(watch)
        self._closed.discard(watch)

    def _close(self, watch: Watch) -> None:
        del self._cases[watch]
        self._changed.discard(watch)
        self._closed.add(watch)


def _strong(values: Mapping[Watch, float], among: int, alpha: float) -> frozenset[Watch]:
    # The self-test's changes are true ones, made at will: counted with the others they would make
    # room for false ones. So each of them has to be strong enough alone.
    made_up = {w: value for w, value in values.items() if w.key.model == SELF_TEST_MODEL}
    found = rejected({w: v for w, v in values.items() if w not in made_up}, among, alpha)
    return found.union(*(rejected({w: v}, among, alpha) for w, v in made_up.items()))


def _rules_of(policy: Policy) -> Rules:
    return Rules(
        tick_ms=round(policy.tick_s * 1000),
        hysteresis_ticks=policy.hysteresis_ticks,
        cooldown_ticks=policy.cooldown_ticks,
        ttl_ms=round(policy.limits.key_ttl_s * 1000),
    )


def _how_it_ended(before: Standing, after: Standing) -> str:
    if after.state is State.REBASED:
        return "rebased"
    if after.state is State.ARMED:
        return "silent" if before.gone_ms is None else "recovered"
    return ""
