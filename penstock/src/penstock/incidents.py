"""Incidents as `alerts` tells them, and what people said of them on `alert_actions`. Pure.

The same book serves the command, drift's gRPC door and what hands alerts on to Alertmanager, so
that all of them agree on what is open and what is silenced.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from penstock.v1 import alert_pb2, drift_pb2

__all__ = ["AlertBook", "Incident", "Judged", "book_of", "labels_of", "matches", "name_of"]

MAX_RESOLVED = 10_000
_RESOLVED = alert_pb2.ALERT_STATE_RESOLVED


@dataclasses.dataclass(frozen=True)
class Incident:
    """An incident as it stands.

    Attributes:
        alert: The newest alert about it.
        opening: The oldest one known: its labels name the incident for as long as it lives.
        severities: Those that it had while it was open, rising; the last one is its own.
        acknowledgement: The newest, with when and by whom.
    """

    alert: alert_pb2.Alert
    opening: alert_pb2.Alert
    severities: tuple[int, ...]
    acknowledgement: alert_pb2.AlertAction | None = None

    @property
    def id(self) -> str:
        """Its id, which alerts of one cause share."""
        return self.alert.incident_id

    @property
    def resolved(self) -> bool:
        """Whether it is over."""
        return self.alert.state == _RESOLVED

    @property
    def severity(self) -> int:
        """The highest severity it had; being resolved lowers nothing."""
        return self.severities[-1]

    @property
    def opened_at(self) -> dt.datetime:
        """When it began, as its first alert says; UTC."""
        return self.opening.opened_at.ToDatetime(dt.UTC)

    @property
    def updated_at(self) -> dt.datetime:
        """When it last changed; UTC."""
        return self.alert.updated_at.ToDatetime(dt.UTC)


@dataclasses.dataclass(frozen=True)
class Judged:
    """What people thought of incidents.

    Attributes:
        real: Incidents where there was something to be done.
        false: Incidents where there was nothing.
        unjudged: Incidents that nobody gave a verdict on.
    """

    real: int = 0
    false: int = 0
    unjudged: int = 0

    @property
    def rate(self) -> float:
        """The share of false alarms among those judged; NaN without any."""
        judged = self.real + self.false
        return self.false / judged if judged else math.nan

    def interval(self) -> tuple[float, float]:
        """Bounds of the rate at 95 % confidence (Wilson, 1927, J. Am. Stat. Assoc. 22)."""
        n = self.real + self.false
        if not n:
            return 0.0, 1.0
        z = 1.959964
        middle = (self.rate + z * z / (2 * n)) / (1 + z * z / n)
        half = (
            z * math.sqrt(self.rate * (1 - self.rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        )
        return max(middle - half, 0.0), min(middle + half, 1.0)


class AlertBook:
    """What is open, what was resolved lately, who said what, and what is silenced.

    Alerts and actions may be taken in any order between the two topics; within each, in the order
    of the log. A repeat changes nothing.

    Args:
        max_resolved: Resolved incidents that are kept, the newest ones.
    """

    def __init__(self, max_resolved: int = MAX_RESOLVED) -> None:
        self._max_resolved = max_resolved
        self._incidents: OrderedDict[str, Incident] = OrderedDict()
        self._resolved: OrderedDict[str, None] = OrderedDict()
        self._words: OrderedDict[str, alert_pb2.AlertAction] = OrderedDict()
        self._silences: OrderedDict[str, alert_pb2.Silence] = OrderedDict()

    def take_alert(self, alert: alert_pb2.Alert) -> Incident:
        """Takes an alert in and returns its incident as it stands now."""
        known = self._incidents.get(alert.incident_id)
        # Once over, only a new opening begins it again.
        if known is None or (known.resolved and alert.state == alert_pb2.ALERT_STATE_OPENED):
            known = Incident(alert, alert, (alert.severity,))
        severities = known.severities
        if alert.state != _RESOLVED and alert.severity > severities[-1]:
            severities = (*severities, alert.severity)
        found = Incident(alert, known.opening, severities, self._words.get(alert.incident_id))
        self._incidents[found.id] = found
        self._resolved.pop(found.id, None)
        if found.resolved:
            self._resolved[found.id] = None
            while len(self._resolved) > self._max_resolved:
                oldest, _ = self._resolved.popitem(last=False)
                del self._incidents[oldest]
                self._words.pop(oldest, None)
        return found

    def take_action(self, action: alert_pb2.AlertAction) -> None:
        """Takes in what somebody said."""
        match action.WhichOneof("action"):
            case "acknowledge":
                named = action.acknowledge.incident_id
                self._words[named] = action
                self._words.move_to_end(named)
                # Words about incidents that are not known, or not any more, are bounded too.
                while len(self._words) > 2 * self._max_resolved:
                    self._words.popitem(last=False)
                known = self._incidents.get(named)
                if known is not None:
                    self._incidents[named] = dataclasses.replace(known, acknowledgement=action)
            case "silence" if action.silence.labels:
                self._silences[action.silence.silence_id] = action.silence
                while len(self._silences) > self._max_resolved:
                    self._silences.popitem(last=False)
            case "expire_silence":
                self._silences.pop(action.expire_silence, None)

    def incidents(self, *, resolved: bool = False) -> list[Incident]:
        """The open ones, and the resolved ones if asked for: the worst first, then the newest."""
        found = [i for i in self._incidents.values() if resolved or not i.resolved]
        return sorted(found, key=lambda i: (i.resolved, -i.severity, -i.opened_at.timestamp()))

    def get(self, incident_id: str) -> Incident | None:
        """The incident of that id."""
        return self._incidents.get(incident_id)

    def find(self, beginning: str) -> list[Incident]:
        """The incident of that id, or those whose id begins so, with or without its prefix."""
        exact = self._incidents.get(beginning)
        if exact is not None:
            return [exact]
        return [
            incident
            for name, incident in self._incidents.items()
            if beginning and any(part.startswith(beginning) for part in _beginnings(name))
        ]

    def silences(self, now: dt.datetime) -> list[alert_pb2.Silence]:
        """Those that are not over, in the order in which they begin."""
        live = [s for s in self._silences.values() if s.until.ToDatetime(dt.UTC) > now]
        return sorted(live, key=lambda s: (_from(s), s.silence_id))

    def silenced_by(self, incident: Incident, now: dt.datetime) -> alert_pb2.Silence | None:
        """The silence that keeps an incident quiet now; the one that lasts longest."""
        labels = labels_of(incident)
        holding = [
            silence
            for silence in self.silences(now)
            if _from(silence) <= now and matches(silence, labels)
        ]
        return max(holding, key=lambda s: s.until.ToNanoseconds(), default=None)

    def judged(self, service: str | None = None) -> Judged:
        """What people thought of the incidents of a service, or of all."""
        verdicts = [
            _verdict(incident)
            for incident in self._incidents.values()
            if service in (None, incident.alert.service)
        ]
        return Judged(verdicts.count(True), verdicts.count(False), verdicts.count(None))


def labels_of(incident: Incident) -> dict[str, str]:
    """What a silence may name: the opening's labels, and what the incident is by itself."""
    opening = incident.opening
    labels = dict(opening.labels)
    if opening.HasField("drift"):
        labels.setdefault("model", opening.drift.model)
        labels.setdefault("variant", opening.drift.variant)
        kind = drift_pb2.DriftKind.Name(opening.drift.kind)
        labels.setdefault("kind", kind.removeprefix("DRIFT_KIND_").lower())
    labels["service"] = opening.service
    labels["incident"] = incident.id
    labels["severity"] = name_of(incident.severity)
    return labels


def matches(silence: alert_pb2.Silence, labels: Mapping[str, str]) -> bool:
    """Whether every label of a silence is there; `*` at the end of a value is anything."""
    return bool(silence.labels) and all(
        _fits(wanted, labels.get(name)) for name, wanted in silence.labels.items()
    )


def name_of(severity: int) -> str:
    """A severity as people write it: info, ticket, page."""
    if severity not in alert_pb2.Severity.values():
        return str(severity)
    return alert_pb2.Severity.Name(severity).removeprefix("SEVERITY_").lower()  # type: ignore[arg-type]


def book_of(
    alerts: Iterable[alert_pb2.Alert], actions: Iterable[alert_pb2.AlertAction]
) -> AlertBook:
    """A book with everything of both logs in it."""
    book = AlertBook()
    for alert in alerts:
        book.take_alert(alert)
    for action in actions:
        book.take_action(action)
    return book


def _fits(wanted: str, value: str | None) -> bool:
    if value is None:
        return False
    return value.startswith(wanted[:-1]) if wanted.endswith("*") else value == wanted


def _from(silence: alert_pb2.Silence) -> dt.datetime:
    # `from` is a keyword of Python's.
    begins: dt.datetime = getattr(silence, "from").ToDatetime(dt.UTC)
    return begins


def _beginnings(name: str) -> tuple[str, ...]:
    # `drift-3f9c...` is called 3f9c by whoever types it.
    return name, name.rpartition("/")[2], name.rpartition("-")[2]


def _verdict(incident: Incident) -> bool | None:
    words = incident.acknowledgement
    if words is None or not words.acknowledge.HasField("real"):
        return None
    return words.acknowledge.real
