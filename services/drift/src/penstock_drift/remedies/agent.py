"""The edge that carries remedies out: each event of `drift` is answered exactly once.

The route or the measure, the alert and the position in `drift` are written in one transaction, so a
remedy is neither lost nor repeated, whatever is killed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence

from penstock.cli.routes_plan import Version
from penstock.cli.routes_plan import history as versions_of
from penstock.codec import JSON, decode, encode
from penstock.errors import InvalidRequest
from penstock.kafka.delivery import Delivery
from penstock.kafka.dlq import dead_letter
from penstock.measures import measure_record
from penstock.records import Outgoing, Record
from penstock.telemetry import logger
from penstock.topics import topic_of
from penstock.v1 import alert_pb2, drift_pb2, route_pb2
from penstock_drift import metrics
from penstock_drift.policy.document import Policy
from penstock_drift.remedies.decision import (
    Decision,
    Deed,
    Outcome,
    alert_of,
    ask_of,
    decide,
    resolved,
)

__all__ = ["RemedyAgent", "RemedyView"]

log = logger(__name__)

# Versions of a model's route that are kept to go back to.
MAX_VERSIONS = 100
# `requested` is of former versions, which could not do everything themselves.
_ACTED = (str(Outcome.DONE), "requested")
_FOUND = (drift_pb2.DRIFT_STATE_DRIFT, drift_pb2.DRIFT_STATE_SUSPECT)


class RemedyView:
    """What the log says of routes, and of remedies so far.

    Attributes:
        deeds: By finding: what was carried out.
        open: By finding's incident: the alerts that wait for its end.
    """

    def __init__(self) -> None:
        self.deeds: dict[str, Deed] = {}
        self.open: dict[str, dict[str, alert_pb2.Alert]] = {}
        self._versions: dict[str, list[Version]] = {}

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

    def on_alert(self, record: Record) -> None:
        """Takes a record of `alerts`; only those of remedies matter."""
        try:
            self.take(decode(record, alert_pb2.Alert))
        except InvalidRequest:
            return

    def take(self, alert: alert_pb2.Alert) -> None:
        """Takes an alert in; a repeat changes nothing."""
        if not alert.incident_id.startswith("remedy/"):
            return
        finding, event_id = alert.labels["finding"], alert.incident_id.partition("/")[2]
        if alert.state == alert_pb2.ALERT_STATE_RESOLVED:
            self.open.get(finding, {}).pop(event_id, None)
            if not self.open.get(finding, True):
                del self.open[finding]
        elif alert.labels["outcome"] in _ACTED:
            at_ms = alert.opened_at.ToMilliseconds()
            self.deeds[event_id] = Deed(event_id, alert.labels["remedy"], at_ms)
            self.open.setdefault(finding, {})[event_id] = alert

    def versions(self, model: str) -> list[Version]:
        """The routes of a model, as they were written."""
        return self._versions.get(model, [])


class RemedyAgent:
    """Handles records of `drift`; see `penstock.kafka.delivery.Handler`.

    Args:
        view: Routes and deeds, read to their ends before the first record.
        policy: Gives the policy in force now: a remedy that was taken out of it is not carried out.
        topic_prefix: What stands before the dot in topics' names.
        clock: The time now, UTC.
    """

    def __init__(
        self,
        view: RemedyView,
        policy: Callable[[], Policy],
        topic_prefix: str,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._view = view
        self._policy = policy
        self._clock = clock
        self._routes, self._alerts, self._dlq, self._control = (
            topic_of(name).full_name(topic_prefix)
            for name in ("routes", "alerts", "dlq", "control")
        )
        # By model: the newest version written here, until the log shows it.
        self._written: dict[str, int] = {}

    def accept(self, delivery: Delivery) -> None:
        """Writes what the event's remedy wants written, and what people are told."""
        delivery.complete(self.outputs(delivery.record))

    def failed(self, record: Record, error: Exception) -> Sequence[Outgoing]:
        """The dead letter of a record that is no event."""
        return [
            dead_letter(
                record,
                dlq_topic=self._dlq,
                service="drift",
                reason="no drift event; no remedy was looked for",
                error=error,
                attempts=1,
            )
        ]

    def outputs(self, record: Record) -> Sequence[Outgoing]:
        """What an event's handling writes.

        Raises:
            InvalidRequest: The record is no event.
        """
        event = decode(record, drift_pb2.DriftEvent)
        now_ms = round(self._clock().timestamp() * 1000)
        if event.state not in _FOUND:
            return self._ended(event.incident_id, now_ms)
        ask = ask_of(event)
        if ask is None:
            return ()
        versions = self._view.versions(ask.model)
        newest = max((entry.route.version for entry in versions), default=0)
        if newest < self._written.get(ask.model, 0):
            # A second remedy must not build on the route of before the first.
            decision = Decision(Outcome.REFUSED, "the last remedy's route is not read back yet")
        else:
            remedy = self._policy().actions.remedy(ask.remedy)
            decision = decide(ask, remedy, self._view.deeds.values(), versions, now_ms)
        log.warning(
            "remedy",
            remedy=ask.remedy,
            outcome=str(decision.outcome),
            reason=decision.reason,
            event_id=ask.event_id,
        )
        metrics.REMEDIES.labels(ask.remedy, str(decision.outcome)).inc()
        alert = alert_of(ask, decision, now_ms)
        self._view.take(alert)
        written = [self._alert_record(alert)]
        if decision.route is not None:
            self._written[ask.model] = decision.route.version
            written.append(self._route_record(decision.route))
        if decision.measure is not None:
            written.append(measure_record(decision.measure, self._control, "drift"))
        return written

    def _ended(self, incident_id: str, now_ms: int) -> Sequence[Outgoing]:
        open_ = list(self._view.open.get(incident_id, {}).values()) if incident_id else []
        ended = [resolved(alert, now_ms) for alert in open_]
        for alert in ended:
            self._view.take(alert)
        return [self._alert_record(alert) for alert in ended]

    def _alert_record(self, alert: alert_pb2.Alert) -> Outgoing:
        return encode(
            alert,
            topic=self._alerts,
            key=alert.incident_id,
            source="drift",
            event_id=alert.alert_id,
            encoding=JSON,
        )

    def _route_record(self, route: route_pb2.Route) -> Outgoing:
        return encode(
            route,
            topic=self._routes,
            key=route.model,
            source="drift",
            event_id=f"route:{route.model}:{route.version}",
        )
