"""Findings to the records of `drift` and `alerts`."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.v1 import alert_pb2, drift_pb2
from penstock_drift.findings.events import Event
from penstock_drift.findings.explain import Contribution, by_signal
from penstock_drift.findings.incidents import Incident, News, Phase, leader, ranked
from penstock_drift.findings.states import State
from penstock_drift.findings.words import commands_of, labels_of, summary_of, title_of
from penstock_drift.policy.document import Severity
from penstock_drift.records.evidence_wire import (
    channel_to_wire,
    entry_to_wire,
    interval_to_wire,
    kind_to_wire,
    source_to_wire,
    stamp,
)
from penstock_drift.signals.declared import Declaration

__all__ = ["alert_to_wire", "event_to_wire", "state_to_wire"]

SERVICE = "drift"
RUNBOOK = "docs/runbooks/drift.md"
# Of an incident's findings, so many are told with all their evidence.
MAX_EVIDENCE = 20

_STATES = {
    State.WARMING: drift_pb2.DRIFT_STATE_WARMING,
    State.ARMED: drift_pb2.DRIFT_STATE_ARMED,
    State.SUSPECT: drift_pb2.DRIFT_STATE_SUSPECT,
    State.DRIFT: drift_pb2.DRIFT_STATE_DRIFT,
    State.COOLDOWN: drift_pb2.DRIFT_STATE_COOLDOWN,
    State.REBASED: drift_pb2.DRIFT_STATE_REBASED,
}
_PHASES = {
    Phase.OPENED: alert_pb2.ALERT_STATE_OPENED,
    Phase.UPDATED: alert_pb2.ALERT_STATE_UPDATED,
    Phase.RESOLVED: alert_pb2.ALERT_STATE_RESOLVED,
}
_SEVERITIES = {
    Severity.INFO: alert_pb2.SEVERITY_INFO,
    Severity.TICKET: alert_pb2.SEVERITY_TICKET,
    Severity.PAGE: alert_pb2.SEVERITY_PAGE,
}


def state_to_wire(state: State) -> drift_pb2.DriftState.ValueType:
    """A state as the contract names it."""
    return _STATES[state]


def event_to_wire(event: Event) -> drift_pb2.DriftEvent:
    """An event for machines."""
    key = event.watch.key
    return drift_pb2.DriftEvent(
        event_id=event.event_id,
        model=key.model,
        variant=key.variant,
        segment=key.segment,
        signal=event.watch.signal,
        kind=kind_to_wire(event.kind),
        detector=event.detector,
        mean_before=event.mean_before,
        mean_after=event.mean_after,
        observations=event.observations,
        detected_at=stamp(event.detected_ms),
        source=source_to_wire(event.source) if event.source else None,
        state=_STATES[event.state],
        previous_state=_STATES[event.previous],
        channel=channel_to_wire(event.channel),
        log_evidence=event.log_evidence,
        onset=stamp(event.onset_ms),
        effect=interval_to_wire(event.effect),
        incident_id=event.incident_id,
        policy_version=event.policy_version,
        action=event.action,
    )


def alert_to_wire(news: News, declarations: Mapping[str, Declaration]) -> alert_pb2.Alert:
    """News for people. Its times are event times, so that a replay says the same."""
    incident = news.incident
    return alert_pb2.Alert(
        alert_id=f"{incident.incident_id}/{incident.tells}-{news.phase.value}",
        incident_id=incident.incident_id,
        state=_PHASES[news.phase],
        severity=_SEVERITIES[incident.severity],
        title=title_of(incident, declarations),
        summary=summary_of(incident, declarations),
        service=SERVICE,
        labels=labels_of(incident),
        runbook=RUNBOOK,
        opened_at=stamp(incident.opened_ms),
        updated_at=stamp(incident.updated_ms),
        drift=_details(incident),
    )


def _details(incident: Incident) -> alert_pb2.DriftIncident:
    members = ranked(incident)
    lead = leader(incident)
    evidence = lead.entry.evidence
    return alert_pb2.DriftIncident(
        model=incident.model,
        variant=incident.variant,
        kind=kind_to_wire(incident.kind),
        channel=channel_to_wire(lead.channel),
        onset=stamp(evidence.onset_ms),
        onset_earliest=stamp(evidence.onset_earliest_ms),
        onset_latest=stamp(evidence.onset_latest_ms),
        evidence=[entry_to_wire(member.entry) for member in members[:MAX_EVIDENCE]],
        segments=[_contribution(each) for each in incident.segments],
        signals=[_contribution(each) for each in by_signal(m.entry for m in members)],
        causes=[alert_pb2.Cause(name=each.name, reason=each.reason) for each in incident.causes],
        commands=commands_of(incident),
        actions=incident.actions,
        policy_version=incident.policy_version,
        resolution=incident.resolution,
    )


def _contribution(part: Contribution) -> alert_pb2.Contribution:
    return alert_pb2.Contribution(
        name=part.name, amount=part.amount, share=part.share, within=part.within, mix=part.mix
    )
