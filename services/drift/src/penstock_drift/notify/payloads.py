"""Which alerts Alertmanager is told of, and in which words. Pure.

Alertmanager (API v2, `POST /api/v2/alerts`) wants every firing alert again and again, and takes
two for the same when all their labels are equal. So the labels here are those of the incident's
opening, which never change; what changes stands in annotations.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import Any

from penstock.incidents import AlertBook, Incident, labels_of, name_of

__all__ = ["payloads"]

# An incident that is over is told for so long, in case one telling is lost. As Prometheus does.
RESOLVED_FOR = dt.timedelta(minutes=15)
_ODD = re.compile(r"[^a-zA-Z0-9_]")
MAX_VALUE = 1000


def payloads(book: AlertBook, now: dt.datetime, hold: dt.timedelta) -> list[dict[str, Any]]:
    """What Alertmanager is to be told now: open incidents, and those just over.

    Silenced incidents are left out; one that was told before is over for Alertmanager when its
    `endsAt` has passed.

    Args:
        book: The incidents.
        now: The present, UTC.
        hold: How long a telling counts; the next one has to come before.
    """
    return [
        payload
        for incident in book.incidents(resolved=True)
        if not incident.resolved or now - incident.updated_at < RESOLVED_FOR
        if book.silenced_by(incident, now) is None
        for payload in _payloads_of(incident, now, hold)
    ]


def _payloads_of(
    incident: Incident, now: dt.datetime, hold: dt.timedelta
) -> Iterator[dict[str, Any]]:
    ends = incident.updated_at if incident.resolved else now + hold
    # Event time may be ahead of this clock; an end in the future would be no end.
    ends = min(ends, now) if incident.resolved else ends
    yield _payload(incident, incident.severity, ends)
    # Severity is a label, so that routes can go by it: a rise makes another alert, and the one
    # of before has to end.
    for former in incident.severities[:-1]:
        yield _payload(incident, former, now)


def _payload(incident: Incident, severity: int, ends: dt.datetime) -> dict[str, Any]:
    alert = incident.alert
    labels = {
        _label(name): value[:MAX_VALUE]
        for name, value in labels_of(incident).items()
        if value and _label(name)
    }
    service = incident.opening.service or "penstock"
    labels |= {
        "alertname": f"Penstock{service.replace('-', ' ').title().replace(' ', '')}",
        "severity": name_of(severity),
    }
    annotations = {
        "summary": alert.title,
        "description": alert.summary,
        "runbook": alert.runbook,
        "command": f"penstock alerts show {incident.id}",
        "cause": "; ".join(f"{c.name}: {c.reason}" for c in alert.drift.causes[:3]),
        "acknowledged_by": incident.acknowledgement.by if incident.acknowledgement else "",
    }
    starts = min(incident.opened_at, ends)
    return {
        "labels": labels,
        "annotations": {name: text for name, text in annotations.items() if text},
        "startsAt": starts.isoformat(),
        "endsAt": ends.isoformat(),
    }


def _label(name: str) -> str:
    found = _ODD.sub("_", name)
    return f"_{found}" if found[:1].isdigit() else found
