"""The edge that carries remedies out: each event of `drift` is answered exactly once.

The route or the measure, the alert and the position in `drift` are written in one transaction, so a
remedy is neither lost nor repeated, whatever is killed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence

from penstock.codec import decode, encode
from penstock.kafka.delivery import Delivery
from penstock.kafka.dlq import dead_letter
from penstock.kafka.halts import alert_record
from penstock.measures import measure_record
from penstock.records import Outgoing, Record
from penstock.telemetry import logger
from penstock.topics import topic_of
from penstock.v1 import alert_pb2, drift_pb2, route_pb2
from penstock_drift import metrics
from penstock_drift.policy.document import Policy
from penstock_drift.remedies.decision import Decision, Outcome, alert_of, ask_of, decide, resolved
from penstock_drift.remedies.view import RemedyView

__all__ = ["RemedyAgent"]

log = logger(__name__)

_FOUND = (drift_pb2.DRIFT_STATE_DRIFT, drift_pb2.DRIFT_STATE_SUSPECT)


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
        """What an event's handling writes; once more, when the event is delivered again.

        Raises:
            InvalidRequest: The record is no event.
        """
        event = decode(record, drift_pb2.DriftEvent)
        now_ms = round(self._clock().timestamp() * 1000)
        self._view.forget(event.event_id)
        if event.state not in _FOUND:
            return self._ended(event, now_ms)
        ask = ask_of(event)
        if ask is None:
            return ()
        versions = self._view.versions(ask.model)
        if self._view.waits_for_route(ask.model):
            # A second remedy must not build on the route of before the first.
            decision = Decision(Outcome.REFUSED, "the last remedy's route is not read back yet")
        else:
            remedy = self._policy().actions.remedy(ask.remedy)
            deeds = self._view.account().deeds.values()
            decision = decide(ask, remedy, deeds, versions, now_ms)
        log.warning(
            "remedy",
            remedy=ask.remedy,
            outcome=str(decision.outcome),
            reason=decision.reason,
            event_id=ask.event_id,
        )
        metrics.REMEDIES.labels(ask.remedy, str(decision.outcome)).inc()
        alert = alert_of(ask, decision, now_ms)
        if decision.outcome is Outcome.DONE:
            self._view.write(ask.event_id, [alert], decision.route)
        written = [alert_record(alert, self._alerts)]
        if decision.route is not None:
            written.append(self._route_record(decision.route))
        if decision.measure is not None:
            written.append(measure_record(decision.measure, self._control, "drift"))
        return written

    def _ended(self, event: drift_pb2.DriftEvent, now_ms: int) -> Sequence[Outgoing]:
        open_ = self._view.account().open.get(event.incident_id, {}) if event.incident_id else {}
        ended = [resolved(alert, now_ms) for alert in open_.values() if _asked(alert, event)]
        if ended:
            self._view.write(event.event_id, ended)
        return [alert_record(alert, self._alerts) for alert in ended]

    def _route_record(self, route: route_pb2.Route) -> Outgoing:
        return encode(
            route,
            topic=self._routes,
            key=route.model,
            source="drift",
            event_id=f"route:{route.model}:{route.version}",
        )


def _asked(alert: alert_pb2.Alert, event: drift_pb2.DriftEvent) -> bool:
    """Whether a remedy was asked for by the finding that an event ends.

    Others of its incident may stand for longer, or end before.
    """
    # Alerts of former versions do not say the segment.
    segment = alert.labels.get("segment", event.segment)
    return (alert.labels["signal"], segment) == (event.signal, event.segment)
