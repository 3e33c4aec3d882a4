"""Findings grouped by cause: what an on-call engineer hears of. Pure.

Findings of one model, variant and kind whose onset windows meet are one incident. A segment whose
signal has also changed over all traffic is listed there and not told apart. People hear of an
incident when it opens, when another signal or segment joins it or it becomes more urgent, and when
its last finding has ended.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from enum import Enum

from penstock_drift.findings.causes import NEAR_MS, Cause
from penstock_drift.findings.events import Watch
from penstock_drift.findings.explain import Contribution
from penstock_drift.policy.document import Severity
from penstock_drift.records.evidence import Channel, Entry
from penstock_drift.records.values import ALL, Kind

__all__ = [
    "Incident",
    "IncidentChanges",
    "Incidents",
    "Member",
    "News",
    "Phase",
    "leader",
    "ranked",
]

_URGENCY = list(Severity)


class Phase(Enum):
    """What is told of an incident."""

    OPENED = "opened"
    UPDATED = "updated"
    RESOLVED = "resolved"


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A finding of an incident.

    Attributes:
        entry: The newest evidence.
        channel: The promise behind it.
        ended: How it ended: recovered, rebased, silent, withdrawn or dropped; empty while it
            stands.
    """

    entry: Entry
    channel: Channel
    ended: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Incident:
    """Findings that began together.

    Attributes:
        incident_id: Derived from the finding that opened it.
        model: The model concerned.
        variant: The variant concerned.
        kind: What kind of change it is.
        opened_ms: The tick at which it opened.
        updated_ms: The tick of the newest news.
        severity: How urgent; never falls while it is open.
        members: Its findings.
        actions: What the policy asked for.
        causes: What speaks for a cause, when it was last told.
        segments: The lead's change by segment, when it was last told.
        tells: How often people were told: numbers the alerts.
        policy_version: The policy in force, when it was last told.
        resolution: How its last finding ended; empty while it is open.
    """

    incident_id: str
    model: str
    variant: str
    kind: Kind
    opened_ms: int
    updated_ms: int
    severity: Severity
    members: Mapping[Watch, Member] = dataclasses.field(default_factory=dict)
    actions: tuple[str, ...] = ()
    causes: tuple[Cause, ...] = ()
    segments: tuple[Contribution, ...] = ()
    tells: int = 0
    policy_version: int = 0
    resolution: str = ""

    @property
    def open(self) -> bool:
        """Whether a finding stands."""
        return not self.resolution


@dataclasses.dataclass(frozen=True, slots=True)
class News:
    """What people are to be told of an incident."""

    incident: Incident
    phase: Phase


@dataclasses.dataclass(frozen=True)
class IncidentChanges:
    """What changed of the incidents.

    Attributes:
        incidents: Open ones that changed.
        members: Findings of open ones that changed, by incident and what is watched.
        over: Those that are over.
    """

    incidents: Mapping[str, Incident] = dataclasses.field(default_factory=dict)
    members: Mapping[tuple[str, Watch], Member] = dataclasses.field(default_factory=dict)
    over: tuple[Incident, ...] = ()


class Incidents:
    """The open incidents.

    Args:
        incidents: Those of a former incarnation.
    """

    def __init__(self, incidents: Iterable[Incident] = ()) -> None:
        self._open = {each.incident_id: each for each in incidents}
        self._changed: set[str] = set()
        self._changed_members: set[tuple[str, Watch]] = set()
        self._news: dict[str, Phase] = {}

    def __len__(self) -> int:
        return len(self._open)

    def find(self, entry: Entry) -> Incident | None:
        """The open incident that a new finding belongs to."""
        candidates = [each for each in self._open.values() if _may_join(each, entry)]
        return min(
            candidates,
            key=lambda each: (
                not _inhibits(each, entry),
                each.opened_ms,
                each.incident_id,
            ),
            default=None,
        )

    def add(
        self,
        entry: Entry,
        channel: Channel,
        severity: Severity,
        action: str,
        now_ms: int,
        *,
        known: str = "",
    ) -> Incident:
        """Puts a finding into the incident it belongs to, or opens one for it.

        Args:
            entry: The evidence.
            channel: The promise behind it.
            severity: How urgent it is.
            action: What the policy asks for; empty for nothing.
            now_ms: The tick's end.
            known: The incident that it belonged to, if it comes back.
        """
        watch = Watch(entry.key, entry.evidence.signal)
        found = self._open.get(known) or self.find(entry)
        incident = found or Incident(
            incident_id=_incident_id(watch, entry.evidence.baseline, now_ms),
            model=entry.key.model,
            variant=entry.key.variant,
            kind=entry.evidence.kind,
            opened_ms=now_ms,
            updated_ms=now_ms,
            severity=severity,
        )
        quiet = found is not None and (
            (watch in incident.members and not incident.members[watch].ended)
            or _inhibits(incident, entry)
        )
        louder = _URGENCY.index(severity) > _URGENCY.index(incident.severity)
        asked = incident.actions
        if action and action not in asked:
            asked = (*asked, action)
        self._changed_members.add((incident.incident_id, watch))
        self._put(
            dataclasses.replace(
                incident,
                members={**incident.members, watch: Member(entry, channel)},
                severity=severity if louder else incident.severity,
                actions=asked,
            )
        )
        if found is None:
            self._news[incident.incident_id] = Phase.OPENED
        elif louder or not quiet:
            self._news.setdefault(incident.incident_id, Phase.UPDATED)
        return self._open[incident.incident_id]

    def refresh(self, incident_id: str, entry: Entry) -> None:
        """Keeps the newest evidence of a finding; nobody is told."""
        incident = self._open.get(incident_id)
        watch = Watch(entry.key, entry.evidence.signal)
        if incident is not None and watch in incident.members:
            member = dataclasses.replace(incident.members[watch], entry=entry)
            self._changed_members.add((incident_id, watch))
            self._put(dataclasses.replace(incident, members={**incident.members, watch: member}))

    def end(self, incident_id: str, watch: Watch, how: str) -> None:
        """Ends a finding; the incident is resolved with its last one."""
        incident = self._open.get(incident_id)
        if incident is None or watch not in incident.members:
            return
        self._changed_members.add((incident_id, watch))
        members = {**incident.members}
        members[watch] = dataclasses.replace(members[watch], ended=how)
        over = all(member.ended for member in members.values())
        self._put(dataclasses.replace(incident, members=members, resolution=how if over else ""))
        if over:
            self._news[incident_id] = Phase.RESOLVED

    def told(self, incident: Incident) -> None:
        """Keeps an incident as it was told."""
        self._put(incident)

    def news(self) -> list[News]:
        """What people are to be told since the last call, one piece per incident."""
        found = [News(self._open[each], self._news[each]) for each in sorted(self._news)]
        self._news = {}
        return found

    def changes(self) -> IncidentChanges:
        """What changed since the last call; incidents that are over are forgotten."""
        over = [self._open.pop(each) for each in sorted(self._changed) if not self._open[each].open]
        changed = sorted(each for each in self._changed if each in self._open)
        members = sorted(each for each in self._changed_members if each[0] in self._open)
        self._changed, self._changed_members = set(), set()
        return IncidentChanges(
            {name: self._open[name] for name in changed},
            {(name, watch): self._open[name].members[watch] for name, watch in members},
            tuple(over),
        )

    def _put(self, incident: Incident) -> None:
        self._open[incident.incident_id] = incident
        self._changed.add(incident.incident_id)


def ranked(incident: Incident) -> list[Member]:
    """Its findings, standing ones first, all traffic before segments, then by strength."""
    return sorted(
        incident.members.values(),
        key=lambda member: (
            bool(member.ended),
            member.entry.key.segment != ALL,
            -member.entry.evidence.log_evidence,
            -member.entry.evidence.fired,
            member.entry.evidence.signal,
            member.entry.key,
        ),
    )


def leader(incident: Incident) -> Member:
    """The finding that leads it."""
    return ranked(incident)[0]


def _may_join(incident: Incident, entry: Entry) -> bool:
    evidence = entry.evidence
    of_one = (incident.model, incident.variant, incident.kind) == (
        entry.key.model,
        entry.key.variant,
        evidence.kind,
    )
    if not of_one or not incident.open:
        return False
    if _inhibits(incident, entry) or Watch(entry.key, evidence.signal) in incident.members:
        return True
    standing = [each.entry.evidence for each in incident.members.values() if not each.ended]
    return any(
        evidence.onset_earliest_ms <= each.onset_latest_ms + NEAR_MS
        and each.onset_earliest_ms <= evidence.onset_latest_ms + NEAR_MS
        for each in standing
    )


def _inhibits(incident: Incident, entry: Entry) -> bool:
    # All traffic speaks for its segments.
    whole = Watch(entry.key._replace(segment=ALL), entry.evidence.signal)
    member = incident.members.get(whole)
    return entry.key.segment != ALL and member is not None and not member.ended


def _incident_id(watch: Watch, baseline: int, now_ms: int) -> str:
    text = "\0".join((*watch.key, watch.signal, str(baseline), str(now_ms)))
    return f"drift-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"
