"""Incidents in plain words. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from penstock_drift.findings.events import unit_of_effect
from penstock_drift.findings.incidents import Incident, leader, ranked
from penstock_drift.records.evidence import Channel, Entry
from penstock_drift.records.values import ALL, SignalType
from penstock_drift.signals.declared import Declaration

__all__ = ["commands_of", "labels_of", "summary_of", "title_of"]

_RATES = (SignalType.BINARY,)
_DISTANCES = (SignalType.CATEGORY, SignalType.COUNTS, SignalType.VECTOR)
# A replay begins so long before the onset, so that what led to it is seen.
BEFORE_MS = 15 * 60_000


def title_of(incident: Incident, declarations: Mapping[str, Declaration]) -> str:
    """One line, as a pager shows it."""
    lead = leader(incident).entry
    declared = declarations.get(lead.evidence.signal)
    segment = f" ({lead.key.segment})" if lead.key.segment != ALL else ""
    others = len({member.entry.evidence.signal for member in incident.members.values()}) - 1
    more = f", and {others} more" if others else ""
    changed = _change(lead, declared)
    where = f"{incident.model}/{incident.variant}{segment}"
    if incident.resolution:
        changed = f"change {incident.resolution}; it {changed}"
    return f"{lead.evidence.signal} of {where}{more}: {changed}"


def summary_of(incident: Incident, declarations: Mapping[str, Declaration]) -> str:
    """What was seen against what was expected, since when, and what may have caused it."""
    member = leader(incident)
    evidence = member.entry.evidence
    declared = declarations.get(evidence.signal)
    meaning = f" ({declared.meaning.rstrip('.')})" if declared and declared.meaning else ""
    unit = unit_of_effect(declared)
    size = f" {'standard deviations' if unit == 'sd' else ''}".rstrip()
    effect = evidence.effect
    lines = [
        f"{evidence.signal}{meaning} {_change(member.entry, declared)} "
        f"over {evidence.observations_after} values since about {_clock(evidence.onset_ms)} "
        f"(between {_clock(evidence.onset_earliest_ms)} and {_clock(evidence.onset_latest_ms)}), "
        f"against {evidence.observations_before} of the baseline.",
        f"Effect {effect.estimate:+.3g}{size}, between {effect.low:+.3g} and {effect.high:+.3g}.",
        _promise(member.channel, evidence.log_evidence),
    ]
    inhibited = sorted(
        {
            each.entry.key.segment
            for each in ranked(incident)
            if each.entry.evidence.signal == evidence.signal and each.entry.key.segment != ALL
        }
    )
    if inhibited:
        lines.append(f"Segments that changed too: {', '.join(inhibited)}.")
    lines += [f"Likely cause: {cause.name}: {cause.reason}." for cause in incident.causes[:2]]
    return " ".join(lines)


def labels_of(incident: Incident) -> dict[str, str]:
    """What silences and routes of alerts go by."""
    lead = leader(incident)
    labels = {
        "model": incident.model,
        "variant": incident.variant,
        "kind": incident.kind.value,
        "signal": lead.entry.evidence.signal,
        "channel": lead.channel.value,
    }
    if lead.entry.key.segment != ALL:
        labels["segment"] = lead.entry.key.segment
    return labels


def commands_of(incident: Incident) -> list[str]:
    """Commands to look further, ready to be run."""
    evidence = leader(incident).entry.evidence
    begin = _instant(evidence.onset_earliest_ms - BEFORE_MS)
    end = _instant(incident.updated_ms + 1000)
    commands = [
        f"penstock drift report {incident.incident_id} --out incident.html",
        f"penstock drift signals --model {incident.model} --variant {incident.variant}",
        f"penstock drift replay --from {begin} --to {end}",
    ]
    if evidence.route_version_after > evidence.route_version_before > 0:
        commands.append(f"penstock routes history {incident.model}")
    return commands


def _change(entry: Entry, declared: Declaration | None) -> str:
    evidence = entry.evidence
    before, after = evidence.before.estimate, evidence.after.estimate
    if declared is not None and declared.type in _DISTANCES:
        return f"is distributed otherwise, by {abs(evidence.effect.estimate):.3g}"
    if declared is not None and declared.type in _RATES:
        return f"{_verb(before, after)} from {before:.1%} to {after:.1%}"
    unit = f" {declared.unit}" if declared is not None and declared.unit else ""
    return f"{_verb(before, after)} from {before:.4g} to {after:.4g}{unit}"


def _verb(before: float, after: float) -> str:
    return "rose" if after > before else "fell"


def _promise(channel: Channel, log_evidence: float) -> str:
    if channel is Channel.CALIBRATED:
        return "Found by calibrated detectors that agree: thresholds from quiet data, no guarantee."
    return f"The e-detectors' evidence is e^{log_evidence:.1f}, enough among all signals together."


def _clock(instant_ms: int) -> str:
    return f"{_instant(instant_ms)}Z"


def _instant(instant_ms: int) -> str:
    found = dt.datetime.fromtimestamp(instant_ms // 1000, dt.UTC)
    return found.strftime("%Y-%m-%dT%H:%M:%S")
