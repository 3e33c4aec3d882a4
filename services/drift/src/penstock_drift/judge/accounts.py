"""An incident as people are told of it: what it is made of and what may have caused it. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from penstock_drift.findings.causes import likely_causes
from penstock_drift.findings.events import Watch
from penstock_drift.findings.explain import Contribution, by_segment, parts_of
from penstock_drift.findings.incidents import Incident, leader
from penstock_drift.judge.cases import Case
from penstock_drift.records.evidence import Entry
from penstock_drift.records.values import ALL

__all__ = ["told_at"]


def told_at(
    incident: Incident, cases: Mapping[Watch, Case], now_ms: int, policy_version: int
) -> Incident:
    """The incident with its causes and its leading signal's change by segment.

    Args:
        incident: As it stands.
        cases: All that is suspicious at the time.
        now_ms: The tick's end.
        policy_version: The policy in force.
    """
    lead = leader(incident).entry
    case = cases.get(Watch(lead.key._replace(segment=ALL), lead.evidence.signal))
    return dataclasses.replace(
        incident,
        updated_ms=now_ms,
        causes=likely_causes(lead, [cases[watch].entry for watch in sorted(cases)]),
        segments=tuple(_segments(case.entry if case else lead)),
        tells=incident.tells + 1,
        policy_version=policy_version,
    )


def _segments(entry: Entry) -> list[Contribution]:
    evidence = entry.evidence
    before, after = evidence.before.estimate, evidence.after.estimate
    if entry.key.segment != ALL:
        return [Contribution(entry.key.segment, after - before, 1.0, after - before)]
    parts = parts_of(evidence)
    return by_segment(before, after, parts) if parts else []
