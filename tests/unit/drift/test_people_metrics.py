"""The rate of false alarms, as people's verdicts make it, is published."""

from __future__ import annotations

import math

from prometheus_client import REGISTRY

from penstock.incidents import AlertBook
from penstock.v1 import alert_pb2
from penstock_drift.doors import _show

RATE = "penstock_drift_false_alarm_rate"


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_verdicts_make_the_rate_and_open_incidents_are_counted_by_severity() -> None:
    book = AlertBook()
    _show(book)
    rate = value(RATE)
    assert rate is not None
    assert math.isnan(rate)
    for number in range(5):
        book.take_alert(
            alert_pb2.Alert(
                incident_id=f"drift-{number}",
                service="drift",
                severity=alert_pb2.SEVERITY_PAGE if number else alert_pb2.SEVERITY_TICKET,
                state=alert_pb2.ALERT_STATE_OPENED,
            )
        )
    book.take_alert(alert_pb2.Alert(incident_id="cost-1", service="cost", severity=1))
    for number, real in ((0, True), (1, False), (2, True), (3, True)):
        words = alert_pb2.Acknowledgement(incident_id=f"drift-{number}", real=real)
        book.take_action(alert_pb2.AlertAction(acknowledge=words))
    words = alert_pb2.Acknowledgement(incident_id="cost-1", real=False)
    book.take_action(alert_pb2.AlertAction(acknowledge=words))
    _show(book)
    # Of drift's own: what people think of other services' alerts says nothing about detectors.
    assert value(RATE) == 0.25
    assert value("penstock_drift_judged_incidents", verdict="unjudged") == 1
    assert value("penstock_drift_open_incidents", severity="page") == 4
    assert value("penstock_drift_open_incidents", severity="ticket") == 1
