"""What people see of incidents, and what they may type."""

from __future__ import annotations

import datetime as dt
import io
import json

import pytest
from rich.console import Console

from penstock.cli import alerts, alerts_view
from penstock.cli.run import CliError
from penstock.codec import decode
from penstock.incidents import AlertBook, Incident
from penstock.records import Partition, Record
from penstock.v1 import alert_pb2, drift_pb2

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


def drift_alert(incident="drift/3f9c", state=alert_pb2.ALERT_STATE_OPENED, service="drift"):
    evidence = drift_pb2.SignalEvidence(
        model="triage",
        variant="base",
        signal="refusal",
        log_evidence=31.25,
        observations_after=400,
        before=drift_pb2.Interval(estimate=0.02, low=0.01, high=0.03),
        after=drift_pb2.Interval(estimate=0.1, low=0.08, high=0.12),
        effect=drift_pb2.Interval(estimate=0.08, low=0.05, high=0.11),
        exemplars_after=[drift_pb2.Exemplar(request_id="req-7")],
    )
    made = alert_pb2.Alert(
        alert_id=f"{incident}/{state}",
        incident_id=incident,
        state=state,
        severity=alert_pb2.SEVERITY_PAGE,
        title="triage/base refuses [more]",
        summary="2 % became 10 %",
        service=service,
        runbook="docs/runbooks/drift.md",
        drift=alert_pb2.DriftIncident(
            model="triage",
            variant="base",
            kind=drift_pb2.DRIFT_KIND_OUTPUT,
            channel=drift_pb2.DRIFT_CHANNEL_E_DETECTORS,
            evidence=[evidence],
            segments=[alert_pb2.Contribution(name="task=billing", amount=0.06, share=0.75)],
            causes=[alert_pb2.Cause(name="route_change", reason="version 4 took over")],
            commands=["penstock routes history triage"],
        ),
    )
    for stamp, minutes in ((made.opened_at, 0), (made.updated_at, 5), (made.drift.onset, -10)):
        stamp.FromDatetime(NOW + dt.timedelta(minutes=minutes))
    return made


def book_with(*made: alert_pb2.Alert) -> AlertBook:
    book = AlertBook()
    for each in made:
        book.take_alert(each)
    return book


def printed(shown, width=160) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(shown)
    return console.file.getvalue()


def only(book: AlertBook) -> Incident:
    (incident,) = book.incidents(resolved=True)
    return incident


def test_a_page_tells_what_was_seen_why_and_what_next():
    book = book_with(drift_alert())
    text = printed(alerts_view.page(only(book), book, NOW + dt.timedelta(hours=1)))
    for expected in (
        "triage/base refuses [more]",
        "2 % became 10 %",
        "began 2026-05-01T11:50:00+00:00",
        "found by e_detectors",
        "e^31.2",
        "+0.08 (+0.05 to +0.11)",
        "task=billing",
        "75%",
        "likely cause: route_change: version 4 took over",
        "requests that show it: req-7",
        "penstock routes history triage",
        "penstock alerts ack drift/3f9c --real",
        "docs/runbooks/drift.md",
    ):
        assert expected in text


def test_an_alert_of_another_service_has_a_page_too():
    plain = alert_pb2.Alert(incident_id="cost/x", title="no price", service="cost")
    book = book_with(plain)
    assert "no price" in printed(alerts_view.page(only(book), book, NOW))


@pytest.mark.parametrize(
    ("said", "standing"),
    [
        (None, "open"),
        ("ack", "acknowledged"),
        ("silence", "silenced"),
        ("resolve", "resolved"),
    ],
)
def test_a_row_says_where_an_incident_stands(said, standing):
    book = book_with(drift_alert())
    if said == "ack":
        words = alert_pb2.Acknowledgement(incident_id="drift/3f9c")
        book.take_action(alert_pb2.AlertAction(acknowledge=words))
    elif said == "silence":
        made = alerts_view.silence_of({"model": "triage"}, NOW, dt.timedelta(hours=2), "")
        book.take_action(alert_pb2.AlertAction(silence=made))
    elif said == "resolve":
        book.take_alert(drift_alert(state=alert_pb2.ALERT_STATE_RESOLVED))
    later = NOW + dt.timedelta(minutes=7)
    text = printed(alerts_view.table(book.incidents(resolved=True), book, later))
    assert standing in text
    assert "7 m" in text
    assert standing in printed(alerts_view.line(only(book), book, later))


def test_json_has_the_alert_as_the_contract_writes_it():
    book = book_with(drift_alert())
    found = json.loads(json.dumps(alerts_view.as_json(only(book), book, NOW)))
    assert found["incident"] == "drift/3f9c"
    assert found["labels"]["kind"] == "output"
    assert found["alert"]["drift"]["evidence"][0]["signal"] == "refusal"
    assert (found["resolved"], found["silenced_by"], found["acknowledged"]) == (False, None, None)


def test_the_summary_counts_verdicts_by_service():
    book = book_with(drift_alert(), drift_alert("drift/2"), drift_alert("cost/1", service="cost"))
    for name, real in (("drift/3f9c", False), ("drift/2", True), ("cost/1", True)):
        words = alert_pb2.Acknowledgement(incident_id=name, real=real)
        book.take_action(alert_pb2.AlertAction(acknowledge=words))
    found = alerts_view.summary(book, "drift")
    assert (found["incidents"], found["real"], found["false"]) == (2, 1, 1)
    assert found["false_alarm_rate"] == 0.5
    assert "50.0%" in printed(alerts_view.summary_table(found))
    assert "nobody has judged" in printed(
        alerts_view.summary_table(alerts_view.summary(book, "ingest"))
    )


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("30d", 2_592_000)]
)
def test_durations_are_read(text, seconds):
    assert alerts.parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "h", "0h", "-1h", "1.5h", "5", "31d", "1w", "²h"])
def test_other_durations_are_refused(text):
    with pytest.raises(CliError):
        alerts.parse_duration(text)


def test_labels_are_read():
    assert alerts.parse_labels(["a=b", "c=d=e"]) == {"a": "b", "c": "d=e"}
    for wrong in ("a", "=b", "a="):
        with pytest.raises(CliError, match="write NAME=VALUE"):
            alerts.parse_labels([wrong])


def test_an_incident_is_named_by_how_it_begins():
    book = book_with(drift_alert("drift/aa"), drift_alert("drift/ab"))
    assert alerts.one_incident(book, "aa").id == "drift/aa"
    with pytest.raises(CliError, match="2 incidents begin so"):
        alerts.one_incident(book, "a")
    with pytest.raises(CliError, match="no incident 'zz'"):
        alerts.one_incident(book, "zz")


def test_an_action_is_signed_and_dated():
    words = alert_pb2.Acknowledgement(incident_id="drift/1", real=True)
    action = alert_pb2.AlertAction(acknowledge=words)
    out = alerts.action_record(action, "penstock.alert_actions", "drift/1", NOW)
    record = Record(Partition(out.topic, 0), 0, out.key, out.value, out.headers, 0)
    written = decode(record, alert_pb2.AlertAction)
    assert written.acknowledge == words
    assert written.at.ToDatetime(dt.UTC) == NOW
    assert out.key == b"drift/1"
