"""What is known of routes and of remedies so far.

What the log says and what was written here but is not read back yet are kept apart: when a
transaction fails its events are delivered again, and what was decided on them never was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstock.cli.routes_plan import Version
from penstock.cli.routes_plan import history as versions_of
from penstock.codec import decode
from penstock.errors import InvalidRequest
from penstock.records import Record
from penstock.v1 import alert_pb2, route_pb2
from penstock_drift.remedies.decision import Deed, Outcome

__all__ = ["Account", "RemedyView"]

# Versions of a model's route that are kept to go back to.
MAX_VERSIONS = 100
# `requested` is of former versions, which could not do everything themselves.
_ACTED = (str(Outcome.DONE), "requested")


class Account:
    """Remedies, as their alerts tell of them.

    Attributes:
        deeds: By finding: what was carried out.
        open: By finding's incident: the alerts that wait for its end, by finding.
    """

    def __init__(self) -> None:
        self.deeds: dict[str, Deed] = {}
        self.open: dict[str, dict[str, alert_pb2.Alert]] = {}

    def take(self, alert: alert_pb2.Alert) -> None:
        """Takes an alert in; a repeat changes nothing."""
        finding, event_id = alert.labels["finding"], _event_of(alert)
        if alert.state == alert_pb2.ALERT_STATE_RESOLVED:
            self.open.get(finding, {}).pop(event_id, None)
            if not self.open.get(finding, True):
                del self.open[finding]
        elif alert.labels["outcome"] in _ACTED:
            at_ms = alert.opened_at.ToMilliseconds()
            self.deeds[event_id] = Deed(event_id, alert.labels["remedy"], at_ms)
            self.open.setdefault(finding, {})[event_id] = alert

    def and_then(self, alerts: Iterable[alert_pb2.Alert]) -> Account:
        """The account after some more alerts; this one stays as it is."""
        found = Account()
        found.deeds = dict(self.deeds)
        found.open = {finding: dict(own) for finding, own in self.open.items()}
        for alert in alerts:
            found.take(alert)
        return found


class RemedyView:
    """Follows `routes` and `alerts`, and keeps what is on its way there."""

    def __init__(self) -> None:
        self._versions: dict[str, list[Version]] = {}
        self._on_log = Account()
        # By the event that they were written for: alerts that are not read back yet.
        self._alerts: dict[str, list[alert_pb2.Alert]] = {}
        # By the event: the route that was written for it.
        self._routes: dict[str, route_pb2.Route] = {}

    def on_route(self, record: Record) -> None:
        """Takes a record of `routes`."""
        if record.value is None:
            self._versions.pop((record.key or b"").decode("utf-8", "replace"), None)
            return
        try:
            model = decode(record, route_pb2.Route).model
        except InvalidRequest:
            return
        kept = [*self._versions.get(model, ()), *versions_of([record], model)]
        self._versions[model] = kept[-MAX_VERSIONS:]
        self._routes = {
            event_id: route
            for event_id, route in self._routes.items()
            if route.model != model or route.version > self._newest(model)
        }

    def on_alert(self, record: Record) -> None:
        """Takes a record of `alerts`; only those of remedies matter."""
        try:
            alert = decode(record, alert_pb2.Alert)
        except InvalidRequest:
            return
        if not alert.incident_id.startswith("remedy/"):
            return
        self._on_log.take(alert)
        for event_id, alerts in list(self._alerts.items()):
            self._alerts[event_id] = [each for each in alerts if not _supersedes(alert, each)]
            if not self._alerts[event_id]:
                del self._alerts[event_id]
        if alert.labels["outcome"] not in _ACTED:
            # Another worker had the event after all, and decided otherwise.
            self._routes.pop(_event_of(alert), None)

    def write(
        self, event_id: str, alerts: Sequence[alert_pb2.Alert], route: route_pb2.Route | None = None
    ) -> None:
        """Notes what is being written for an event."""
        self._alerts[event_id] = list(alerts)
        if route is not None:
            self._routes[event_id] = route

    def forget(self, event_id: str) -> None:
        """Takes back what was noted for an event: it is delivered again, so nothing came of it."""
        self._alerts.pop(event_id, None)
        self._routes.pop(event_id, None)

    def account(self) -> Account:
        """The remedies so far, with those that are on their way."""
        waiting = [each for alerts in self._alerts.values() for each in alerts]
        return self._on_log.and_then(waiting) if waiting else self._on_log

    def waits_for_route(self, model: str) -> bool:
        """Whether a route of a model is on its way."""
        return any(route.model == model for route in self._routes.values())

    def versions(self, model: str) -> list[Version]:
        """The routes of a model, as they were written."""
        return self._versions.get(model, [])

    def _newest(self, model: str) -> int:
        return max((entry.route.version for entry in self.versions(model)), default=0)


def _event_of(alert: alert_pb2.Alert) -> str:
    return alert.incident_id.partition("/")[2]


def _supersedes(read: alert_pb2.Alert, waiting: alert_pb2.Alert) -> bool:
    """Whether an alert that was read is one that is waited for, or came of the same event."""
    if read.incident_id != waiting.incident_id:
        return False
    # The end of a remedy is still waited for when its beginning is read.
    return read.state == alert_pb2.ALERT_STATE_RESOLVED or read.state == waiting.state
