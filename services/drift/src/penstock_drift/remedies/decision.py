"""Whether, and how, operational drift is answered without asking anybody. Pure.

The judge names the remedy on the event (`DriftEvent.action`); here it is decided what is done. A
remedy is bounded (so many an hour, of fresh findings only), logged on `alerts` whatever comes of
it, and reversible: each says the command that takes it back.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Iterable, Sequence
from enum import StrEnum

from penstock.cli.routes_plan import Version, restored, rolled_back
from penstock.cli.run import CliError
from penstock.measures import Kind, Measure, in_words
from penstock.v1 import alert_pb2, drift_pb2, route_pb2
from penstock_drift.policy.document import RETRAIN, Remedy
from penstock_drift.records.evidence_wire import stamp

__all__ = ["Ask", "Decision", "Deed", "Outcome", "alert_of", "ask_of", "decide", "resolved"]

HOUR_MS = 3_600_000
RUNBOOK = "docs/runbooks/drift.md"
_MEASURES = {"scale": Kind.SCALE, "shed": Kind.SHED, "restart_replica": Kind.RESTART}


class Outcome(StrEnum):
    """What came of an ask."""

    DONE = "done"
    DRY_RUN = "dry_run"
    REFUSED = "refused"


@dataclasses.dataclass(frozen=True)
class Ask:
    """A finding that asks for a remedy, as its event says.

    Attributes:
        event_id: The finding.
        incident_id: The incident that it belongs to.
        model: The model concerned.
        variant: The variant concerned.
        signal: The signal that changed.
        remedy: The remedy's name.
        found_ms: When it was found, milliseconds since 1970.
        segment: The part of the traffic in which the signal changed; empty for all.
    """

    event_id: str
    incident_id: str
    model: str
    variant: str
    signal: str
    remedy: str
    found_ms: int
    segment: str = ""


@dataclasses.dataclass(frozen=True)
class Deed:
    """A remedy that was carried out."""

    event_id: str
    remedy: str
    at_ms: int


@dataclasses.dataclass(frozen=True)
class Decision:
    """What is done about an ask.

    Attributes:
        outcome: What came of it.
        reason: What was done or why not, in words.
        route: The route to write, where one is.
        undo: The command that takes it back; empty where there is nothing to.
        measure: The measure to ask for, where one is.
    """

    outcome: Outcome
    reason: str
    route: route_pb2.Route | None = None
    undo: str = ""
    measure: Measure | None = None


def ask_of(event: drift_pb2.DriftEvent) -> Ask | None:
    """What an event asks for; None where it asks for no remedy."""
    if not event.action or event.action == RETRAIN:
        return None
    if event.kind != drift_pb2.DRIFT_KIND_OPERATIONAL:
        # Whoever wrote it: no other kind has remedies.
        return None
    return Ask(
        event_id=event.event_id,
        incident_id=event.incident_id,
        model=event.model,
        variant=event.variant,
        signal=event.signal,
        remedy=event.action,
        found_ms=event.detected_at.ToMilliseconds(),
        segment=event.segment,
    )


def decide(
    ask: Ask,
    remedy: Remedy | None,
    deeds: Iterable[Deed],
    versions: Sequence[Version],
    now_ms: int,
) -> Decision:
    """What is done about an ask.

    Args:
        ask: The finding.
        remedy: The remedy, by the policy in force now; None where it has none of that name.
        deeds: What was done before; the ask's own does not count.
        versions: The model's routes on the log, as they were written.
        now_ms: The present, milliseconds since 1970.
    """
    if remedy is None:
        return _refused(f"the policy in force has no remedy named {ask.remedy}")
    age_s = (now_ms - ask.found_ms) / 1000
    if age_s > remedy.max_age_s:
        return _refused(
            f"the finding is {age_s:.0f} s old, and the policy wants at most {remedy.max_age_s:g} s"
        )
    lately = sum(
        deed.remedy == remedy.name
        and deed.event_id != ask.event_id
        and now_ms - deed.at_ms < HOUR_MS
        for deed in deeds
    )
    if lately >= remedy.max_per_hour:
        return _refused(
            f"{remedy.name} was carried out {lately} times within the hour, and the policy allows "
            f"{remedy.max_per_hour}"
        )
    if not versions:
        return _refused(f"{ask.model} has no route on the log")
    standing = max(versions, key=lambda entry: entry.route.version).route
    variant = next((v for v in standing.variants if v.name == ask.variant), None)
    if variant is None or not variant.weight:
        return _refused(
            f"variant {ask.variant} takes no traffic in version {standing.version} any more"
        )
    if remedy.do == "rollback_route":
        return _roll_back(standing, variant, versions, dry_run=remedy.dry_run)
    return _take_measure(ask, remedy, variant.base_model, now_ms)


def _take_measure(ask: Ask, remedy: Remedy, base_model: str, now_ms: int) -> Decision:
    kind = _MEASURES[remedy.do]
    now = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC)
    # The same finding asks for the same measure, so that a repeat of it changes nothing.
    digest = hashlib.blake2b(ask.event_id.encode(), digest_size=6).hexdigest()
    shed = kind is Kind.SHED
    measure = Measure(
        measure_id=f"drift-{digest}",
        kind=kind,
        model=ask.model if shed else base_model,
        requested_at=now,
        until=now + dt.timedelta(seconds=remedy.for_s),
        requested_by="drift",
        reason=f"{ask.remedy}: {ask.signal} of {ask.model}/{ask.variant} changed",
        replicas=remedy.replicas if kind is Kind.SCALE else 0,
        priority_above=remedy.priority_above if shed else None,
        share=remedy.refused_share if shed else 1.0,
    )
    until = f"{measure.until:%Y-%m-%dT%H:%M:%SZ}"
    if kind is Kind.RESTART:
        what = f"{in_words(measure)} once another one lives, until {until}"
    else:
        what = f"{in_words(measure)} until {until}"
    if remedy.dry_run:
        return Decision(Outcome.DRY_RUN, f"it would ask for this: {what}")
    undo = f"penstock models end {measure.measure_id}"
    return Decision(Outcome.DONE, what, undo=undo, measure=measure)


def _roll_back(
    standing: route_pb2.Route,
    variant: route_pb2.Variant,
    versions: Sequence[Version],
    *,
    dry_run: bool,
) -> Decision:
    try:
        route, what = _safer(standing, variant, versions)
    except CliError as error:
        return _refused(str(error))
    if route is None or route is standing:
        return _refused(what)
    undo = f"penstock routes rollback {standing.model} --to {standing.version}"
    if dry_run:
        return Decision(Outcome.DRY_RUN, f"it would write version {route.version}: {what}")
    return Decision(Outcome.DONE, f"version {route.version} is written: {what}", route, undo)


def _safer(
    standing: route_pb2.Route, variant: route_pb2.Variant, versions: Sequence[Version]
) -> tuple[route_pb2.Route | None, str]:
    if variant.stage == route_pb2.STAGE_CANDIDATE:
        return rolled_back(standing), f"the champion takes all traffic, not {variant.name}"
    earlier = [e.route for e in versions if e.route.version < standing.version]
    for route in sorted(earlier, key=lambda each: -each.version):
        champion = next(v for v in route.variants if v.stage == route_pb2.STAGE_CHAMPION)
        if not _same_variant(champion, variant):
            made = restored(standing, versions, route.version)
            return made, f"version {route.version} comes back, with {champion.name} as champion"
    return None, (
        f"no version on the log has another champion than {variant.name}: there is nothing to "
        "roll back to"
    )


def _same_variant(one: route_pb2.Variant, other: route_pb2.Variant) -> bool:
    def what_answers(variant: route_pb2.Variant) -> tuple[str, ...]:
        return (
            variant.name,
            variant.base_model,
            variant.adapter,
            variant.prompt_template_version,
        )

    return what_answers(one) == what_answers(other)


def _refused(reason: str) -> Decision:
    return Decision(Outcome.REFUSED, reason)


def alert_of(ask: Ask, decision: Decision, now_ms: int) -> alert_pb2.Alert:
    """What people are told: what was done stays open until its finding has ended."""
    acted = decision.outcome is Outcome.DONE
    titles = {
        Outcome.DONE: f"{ask.remedy}: carried out for {ask.model}/{ask.variant}",
        Outcome.DRY_RUN: f"{ask.remedy}: dry run for {ask.model}/{ask.variant}",
        Outcome.REFUSED: f"{ask.remedy}: not carried out for {ask.model}/{ask.variant}",
    }
    undo = f" Take it back with: {decision.undo}" if decision.undo else ""
    # What was not done is for the record: over as it begins.
    state = alert_pb2.ALERT_STATE_OPENED if acted else alert_pb2.ALERT_STATE_RESOLVED
    return alert_pb2.Alert(
        alert_id=f"remedy/{ask.event_id}/{decision.outcome}",
        incident_id=f"remedy/{ask.event_id}",
        state=state,
        severity=alert_pb2.SEVERITY_TICKET if acted else alert_pb2.SEVERITY_INFO,
        title=titles[decision.outcome],
        summary=f"{ask.signal} changed ({ask.incident_id}); {decision.reason}.{undo}",
        service="drift",
        labels={
            "model": ask.model,
            "variant": ask.variant,
            "signal": ask.signal,
            "segment": ask.segment,
            "remedy": ask.remedy,
            "outcome": str(decision.outcome),
            "finding": ask.incident_id,
        },
        runbook=RUNBOOK,
        opened_at=stamp(now_ms),
        updated_at=stamp(now_ms),
    )


def resolved(alert: alert_pb2.Alert, now_ms: int) -> alert_pb2.Alert:
    """The end of an alert of `alert_of`, when its finding has ended."""
    made = alert_pb2.Alert()
    made.CopyFrom(alert)
    made.state = alert_pb2.ALERT_STATE_RESOLVED
    made.alert_id = f"{alert.incident_id}/resolved"
    made.updated_at.CopyFrom(stamp(now_ms))
    return made
