"""Incidents as people see them on a terminal, and as JSON. Pure."""

from __future__ import annotations

import datetime as dt
import json
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from penstock.codec import to_json
from penstock.incidents import AlertBook, Incident, labels_of, matches, name_of
from penstock.v1 import alert_pb2, drift_pb2

__all__ = [
    "as_json",
    "has",
    "line",
    "page",
    "silence_json",
    "silence_of",
    "silence_table",
    "summary",
    "summary_table",
    "table",
]

STYLES = {"page": "bold red", "ticket": "yellow", "info": "cyan"}
SHOWN = 8  # rows of evidence, segments and exemplars on a page


def table(incidents: Sequence[Incident], book: AlertBook, now: dt.datetime) -> Table:
    """One row for each incident."""
    shown = Table(
        Column("incident", overflow="fold", min_width=12),
        Column("severity", no_wrap=True),
        Column("state", no_wrap=True),
        Column("since", no_wrap=True),
        Column("title", overflow="fold", ratio=1),
    )
    for incident in incidents:
        severity = name_of(incident.severity)
        shown.add_row(
            Text(incident.id),
            Text(severity, style=STYLES.get(severity, "")),
            _standing(incident, book, now),
            _ago(now - incident.opened_at),
            Text(incident.alert.title),
        )
    return shown


def line(incident: Incident, book: AlertBook, now: dt.datetime) -> Text:
    """An incident's newest alert on one line."""
    severity = name_of(incident.severity)
    text = Text()
    text.append(incident.updated_at.isoformat(timespec="seconds"), style="dim")
    text.append(f"  {severity:<6} ", style=STYLES.get(severity, ""))
    text.append(f"{_standing(incident, book, now):<12} ")
    text.append(f"{incident.alert.title}  ")
    return text.append(incident.id, style="dim")


def page(incident: Incident, book: AlertBook, now: dt.datetime) -> Group:
    """All that is known of an incident."""
    alert = incident.alert
    severity = name_of(incident.severity)
    head = Text(f"{alert.title}\n", style=f"bold {STYLES.get(severity, '')}")
    head.append(f"{alert.summary}\n\n", style="not bold default")
    parts: list[Any] = [head, _facts(incident, book, now)]
    if alert.HasField("drift"):
        parts += _drift_parts(alert.drift)
    commands = [*alert.drift.commands, *_default_commands(incident)]
    parts.append(Text("\nnext:\n" + "\n".join(f"  {command}" for command in commands)))
    return Group(*parts)


def as_json(incident: Incident, book: AlertBook, now: dt.datetime) -> dict[str, Any]:
    """An incident as JSON-able data, the newest alert as the contract writes it."""
    silence = book.silenced_by(incident, now)
    words = incident.acknowledgement
    return {
        "incident": incident.id,
        "resolved": incident.resolved,
        "severity": name_of(incident.severity),
        "labels": labels_of(incident),
        "silenced_by": silence.silence_id if silence else None,
        "acknowledged": json.loads(to_json(words)) if words else None,
        "alert": json.loads(to_json(incident.alert)),
    }


def has(incident: Incident, wanted: Mapping[str, str]) -> bool:
    """Whether an incident has all of these labels; none are always there."""
    return not wanted or matches(alert_pb2.Silence(labels=wanted), labels_of(incident))


def summary(book: AlertBook, service: str | None) -> dict[str, Any]:
    """How many incidents there are, and what people thought of them."""
    incidents = [i for i in book.incidents(resolved=True) if service in (None, i.alert.service)]
    judged = book.judged(service)
    low, high = judged.interval()
    return {
        "incidents": len(incidents),
        "open": sum(not i.resolved for i in incidents),
        "real": judged.real,
        "false": judged.false,
        "unjudged": judged.unjudged,
        "false_alarm_rate": None if math.isnan(judged.rate) else judged.rate,
        "false_alarm_rate_95": [low, high],
    }


def summary_table(lines: Mapping[str, Any]) -> Table:
    """The summary for a person."""
    shown = Table(show_header=False)
    for name in ("incidents", "open", "real", "false", "unjudged"):
        shown.add_row(name, str(lines[name]))
    rate, (low, high) = lines["false_alarm_rate"], lines["false_alarm_rate_95"]
    told = (
        "nobody has judged one" if rate is None else f"{rate:.1%} (95 %: {low:.1%} to {high:.1%})"
    )
    shown.add_row("false alarms, of those judged", told)
    return shown


def silence_of(
    labels: Mapping[str, str], start: dt.datetime, lasting: dt.timedelta, comment: str
) -> alert_pb2.Silence:
    """A silence with an id of its own."""
    made = alert_pb2.Silence(
        silence_id=f"silence-{uuid.uuid4().hex[:8]}", labels=labels, comment=comment
    )
    getattr(made, "from").FromDatetime(start)
    made.until.FromDatetime(start + lasting)
    return made


def silence_table(silences: Sequence[alert_pb2.Silence]) -> Table:
    """One row for each silence."""
    shown = Table("id", "labels", "from", "until", "comment")
    for each in silences:
        shown.add_row(*(Text(str(value)) for value in _silence_row(each)))
    return shown


def silence_json(silence: alert_pb2.Silence) -> dict[str, Any]:
    """A silence as JSON-able data."""
    found: dict[str, Any] = json.loads(to_json(silence))
    return found


def _silence_row(silence: alert_pb2.Silence) -> tuple[str, ...]:
    labels = ", ".join(f"{name}={value}" for name, value in sorted(silence.labels.items()))
    begins = getattr(silence, "from").ToDatetime(dt.UTC).isoformat(timespec="seconds")
    ends = silence.until.ToDatetime(dt.UTC).isoformat(timespec="seconds")
    return silence.silence_id, labels, begins, ends, silence.comment


def _standing(incident: Incident, book: AlertBook, now: dt.datetime) -> str:
    if incident.resolved:
        return "resolved"
    if book.silenced_by(incident, now) is not None:
        return "silenced"
    return "acknowledged" if incident.acknowledgement is not None else "open"


def _ago(passed: dt.timedelta) -> str:
    seconds = max(int(passed.total_seconds()), 0)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _facts(incident: Incident, book: AlertBook, now: dt.datetime) -> Table:
    alert = incident.alert
    shown = Table.grid(padding=(0, 2))
    rows: list[tuple[str, str]] = [
        ("incident", incident.id),
        ("state", _standing(incident, book, now)),
        ("severity", name_of(incident.severity)),
        ("opened", f"{incident.opened_at.isoformat(timespec='seconds')}"),
        ("changed", f"{incident.updated_at.isoformat(timespec='seconds')}"),
        ("labels", ", ".join(f"{n}={v}" for n, v in sorted(labels_of(incident).items()))),
    ]
    words = incident.acknowledgement
    if words is not None:
        said = words.acknowledge
        verdict = {True: ", real", False: ", false"}[said.real] if said.HasField("real") else ""
        rows.append(("acknowledged", f"by {words.by or '?'}{verdict}: {said.comment or '-'}"))
    silence = book.silenced_by(incident, now)
    if silence is not None:
        until = silence.until.ToDatetime(dt.UTC).isoformat(timespec="seconds")
        rows.append(("silenced", f"until {until} by {silence.silence_id}"))
    if alert.runbook:
        rows.append(("runbook", alert.runbook))
    for name, value in rows:
        shown.add_row(Text(name, style="dim"), Text(value))
    return shown


def _drift_parts(drift: alert_pb2.DriftIncident) -> Iterator[Any]:
    onset = drift.onset.ToDatetime(dt.UTC).isoformat(timespec="seconds")
    earliest = drift.onset_earliest.ToDatetime(dt.UTC).strftime("%H:%M:%S")
    latest = drift.onset_latest.ToDatetime(dt.UTC).strftime("%H:%M:%S")
    promise = drift_pb2.DriftChannel.Name(drift.channel).removeprefix("DRIFT_CHANNEL_").lower()
    yield Text(f"\nbegan {onset} ({earliest} to {latest}); found by {promise}")
    if drift.resolution:
        yield Text(f"resolved: {drift.resolution}")
    yield _evidence_table(drift.evidence[:SHOWN])
    if drift.segments:
        yield _segment_table(drift.segments[:SHOWN])
    for cause in drift.causes:
        yield Text(f"likely cause: {cause.name}: {cause.reason}")
    for action in drift.actions:
        yield Text(f"asked for: {action}")
    if drift.evidence and drift.evidence[0].exemplars_after:
        ids = [exemplar.request_id for exemplar in drift.evidence[0].exemplars_after[:SHOWN]]
        yield Text(f"requests that show it: {', '.join(ids)}")


def _evidence_table(evidence: Sequence[drift_pb2.SignalEvidence]) -> Table:
    shown = Table("signal", "segment", "before", "after", "effect (interval)", "values", "evidence")
    for each in evidence:
        effect = each.effect
        shown.add_row(
            Text(each.signal),
            Text(each.segment or "all"),
            f"{each.before.estimate:.4g}",
            f"{each.after.estimate:.4g}",
            f"{effect.estimate:+.3g} ({effect.low:+.3g} to {effect.high:+.3g})",
            str(each.observations_after),
            f"e^{each.log_evidence:.1f}",
        )
    return shown


def _segment_table(segments: Sequence[alert_pb2.Contribution]) -> Table:
    shown = Table("segment", "adds", "share", "within", "mix")
    for each in segments:
        shown.add_row(
            Text(each.name or "all"),
            f"{each.amount:+.4g}",
            f"{each.share:.0%}",
            f"{each.within:+.4g}",
            f"{each.mix:+.4g}",
        )
    return shown


def _default_commands(incident: Incident) -> Iterator[str]:
    if incident.acknowledgement is None and not incident.resolved:
        yield f"penstock alerts ack {incident.id} --real   (or --false)"
