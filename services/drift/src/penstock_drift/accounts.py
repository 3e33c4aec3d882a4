"""An incident as people are told of it: what it is made of and what may have caused it. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from penstock_drift.cases import Case
from penstock_drift.causes import likely_causes
from penstock_drift.evidence import Entry
from penstock_drift.explain import Contribution, by_segment, parts_of
from penstock_drift.findings import Watch
from penstock_drift.incidents import Incident, leader
from penstock_drift.shares import shares_of
from penstock_drift.signals.declared import Declaration
from penstock_drift.values import ALL, SignalType

__all__ = ["told_at"]

# Of whose values a mean says something.
_MEANS = (SignalType.NUMBER, SignalType.BINARY, SignalType.BOUNDED)


def told_at(
    incident: Incident,
    cases: Mapping[Watch, Case],
    declarations: Mapping[str, Declaration],
    now_ms: int,
    policy_version: int,
) -> Incident:
    """The incident with its causes and its leading signal's change by segment.

    Args:
        incident: As it stands.
        cases: All that is suspicious at the time.
        declarations: The signals by name.
        now_ms: The tick's end.
        policy_version: The policy in force.
    """
    lead = leader(incident).entry
    case = cases.get(Watch(lead.key._replace(segment=ALL), lead.evidence.signal))
    whole = case.entry if case else lead
    segments: list[Contribution] = []
    declared = declarations.get(lead.evidence.signal)
    if declared is not None and declared.type in _MEANS:
        segments = _segments(whole, cases, now_ms)
    effect = whole.evidence.after.estimate - whole.evidence.before.estimate
    mix = sum(each.mix for each in segments) / effect if effect else 0.0
    return dataclasses.replace(
        incident,
        updated_ms=now_ms,
        causes=likely_causes(lead, [cases[watch].entry for watch in sorted(cases)], mix),
        segments=tuple(segments),
        tells=incident.tells + 1,
        policy_version=policy_version,
    )


def _segments(whole: Entry, cases: Mapping[Watch, Case], now_ms: int) -> list[Contribution]:
    evidence = whole.evidence
    if whole.key.segment != ALL:
        amount = evidence.after.estimate - evidence.before.estimate
        return [Contribution(whole.key.segment, amount, 1.0, amount)]
    of_signal = {
        watch.key.segment: case.entry
        for watch, case in sorted(cases.items())
        if watch.signal == evidence.signal
        and watch.key[:2] == whole.key[:2]
        and watch.key.segment != ALL
    }
    parts = parts_of(of_signal.values(), shares_of(whole, of_signal, now_ms))
    return by_segment(evidence.before.estimate, evidence.after.estimate, parts)
