from __future__ import annotations

import datetime as dt
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.incidents import AlertBook, Judged, labels_of, matches
from penstock.v1 import alert_pb2, drift_pb2

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
OPENED = alert_pb2.ALERT_STATE_OPENED
UPDATED = alert_pb2.ALERT_STATE_UPDATED
RESOLVED = alert_pb2.ALERT_STATE_RESOLVED
TICKET, PAGE = alert_pb2.SEVERITY_TICKET, alert_pb2.SEVERITY_PAGE
INFO = alert_pb2.SEVERITY_INFO


def alert(incident="drift/a1", state=OPENED, severity=TICKET, minute=0, **labels):
    made = alert_pb2.Alert(
        alert_id=f"{incident}/{state}/{minute}",
        incident_id=incident,
        state=state,
        severity=severity,
        service="drift",
        labels=labels,
        drift=alert_pb2.DriftIncident(
            model="triage", variant="base", kind=drift_pb2.DRIFT_KIND_QUALITY
        ),
    )
    made.opened_at.FromDatetime(NOW)
    made.updated_at.FromDatetime(NOW + dt.timedelta(minutes=minute))
    return made


def ack(incident="drift/a1", real=None):
    words = alert_pb2.Acknowledgement(incident_id=incident, real=real)
    return alert_pb2.AlertAction(acknowledge=words, by="ada")


def silence(name="s1", hours=(0, 1), **labels):
    made = alert_pb2.Silence(silence_id=name, labels=labels)
    getattr(made, "from").FromDatetime(NOW + dt.timedelta(hours=hours[0]))
    made.until.FromDatetime(NOW + dt.timedelta(hours=hours[1]))
    return alert_pb2.AlertAction(silence=made)


def test_an_incident_is_its_newest_alert_with_the_labels_of_its_first():
    book = AlertBook()
    book.take_alert(alert(limit="run"))
    book.take_alert(alert(state=UPDATED, minute=3))
    (incident,) = book.incidents()
    assert incident.alert.state == UPDATED
    assert incident.updated_at == NOW + dt.timedelta(minutes=3)
    assert labels_of(incident) == {
        "limit": "run",
        "model": "triage",
        "variant": "base",
        "kind": "quality",
        "service": "drift",
        "incident": "drift/a1",
        "severity": "ticket",
    }


def test_severity_only_rises_until_it_begins_anew():
    book = AlertBook()
    for made in (
        alert(),
        alert(state=UPDATED, severity=PAGE),
        alert(state=UPDATED, severity=TICKET),
        alert(state=RESOLVED, severity=INFO),
    ):
        book.take_alert(made)
    assert book.incidents() == []
    (incident,) = book.incidents(resolved=True)
    assert incident.severities == (TICKET, PAGE)
    assert book.take_alert(alert(minute=9)).severities == (TICKET,)


def test_the_worst_and_newest_come_first_and_the_resolved_last():
    book = AlertBook()
    book.take_alert(alert("drift/over", RESOLVED, PAGE))
    book.take_alert(alert("drift/low", severity=INFO))
    book.take_alert(alert("drift/high", severity=PAGE))
    named = [incident.id for incident in book.incidents(resolved=True)]
    assert named == ["drift/high", "drift/low", "drift/over"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("drift/a1", ["drift/a1"]),
        ("drift/a", ["drift/a1", "drift/a12"]),
        ("a12", ["drift/a12"]),
        ("3f", ["drift-3f9c"]),
        ("drift-3f", ["drift-3f9c"]),
        ("drift/a12", ["drift/a12"]),
        ("x", []),
        ("", []),
    ],
)
def test_an_incident_is_found_by_the_beginning_of_its_id(asked, found):
    book = AlertBook()
    book.take_alert(alert("drift/a1"))
    book.take_alert(alert("drift/a12"))
    book.take_alert(alert("drift-3f9c"))
    assert [incident.id for incident in book.find(asked)] == found


@pytest.mark.parametrize("words_first", [True, False])
def test_words_find_their_incident_whichever_is_read_first(words_first):
    book = AlertBook()
    if words_first:
        book.take_action(ack(real=False))
    book.take_alert(alert())
    if not words_first:
        book.take_action(ack(real=False))
    (incident,) = book.incidents()
    assert incident.acknowledgement is not None
    assert incident.acknowledgement.by == "ada"
    assert book.judged() == Judged(false=1)
    book.take_action(ack(real=True))
    assert book.judged("drift") == Judged(real=1)
    assert book.judged("cost") == Judged()


@pytest.mark.parametrize(
    ("labels", "quiet"),
    [
        ({"model": "triage"}, True),
        ({"model": "tri*"}, True),
        ({"model": "*"}, True),
        ({"nothing": "*"}, False),
        ({"model": "triage", "kind": "input"}, False),
        ({"model": "triage", "kind": "quality", "service": "drift"}, True),
        ({"incident": "drift/a1"}, True),
        ({"severity": "page"}, False),
        ({}, False),
    ],
)
def test_a_silence_holds_where_every_label_matches(labels, quiet):
    book = AlertBook()
    incident = book.take_alert(alert())
    book.take_action(silence(**labels))
    assert (book.silenced_by(incident, NOW) is not None) is quiet


def test_a_silence_holds_within_its_time_until_it_is_ended():
    book = AlertBook()
    incident = book.take_alert(alert())
    book.take_action(silence("later", (1, 2), model="triage"))
    book.take_action(silence("long", (1, 9), model="triage"))
    at = [book.silenced_by(incident, NOW + dt.timedelta(hours=h)) for h in (0, 1, 2, 9)]
    assert [held and held.silence_id for held in at] == [None, "long", "long", None]
    assert [s.silence_id for s in book.silences(NOW)] == ["later", "long"]
    book.take_action(alert_pb2.AlertAction(expire_silence="long"))
    assert [s.silence_id for s in book.silences(NOW)] == ["later"]


def test_resolved_incidents_and_words_about_nothing_are_bounded():
    book = AlertBook(max_resolved=3)
    book.take_alert(alert("drift/open"))
    for number in range(50):
        book.take_alert(alert(f"drift/{number}", RESOLVED))
        book.take_action(ack(f"elsewhere/{number}"))
    kept = [incident.id for incident in book.incidents(resolved=True)]
    assert sorted(kept) == ["drift/47", "drift/48", "drift/49", "drift/open"]
    assert len(book._words) <= 6


@pytest.mark.parametrize(
    ("judged", "rate", "low", "high"),
    [
        # Wilson's bounds, as statsmodels' proportion_confint(method="wilson") gives them.
        (Judged(real=9, false=1), 0.1, 0.01788, 0.40415),
        (Judged(real=0, false=5), 1.0, 0.56552, 1.0),
        (Judged(real=95, false=5), 0.05, 0.02154, 0.11175),
    ],
)
def test_the_rate_of_false_alarms_has_bounds(judged, rate, low, high):
    assert judged.rate == pytest.approx(rate)
    assert judged.interval() == pytest.approx((low, high), abs=1e-5)


def test_without_verdicts_there_is_no_rate():
    assert math.isnan(Judged(unjudged=4).rate)
    assert Judged(unjudged=4).interval() == (0.0, 1.0)


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3))
def test_a_silence_of_all_its_labels_matches_and_of_more_does_not(labels):
    made = alert_pb2.Silence(labels=labels | {"one": "x"})
    assert matches(made, labels | {"one": "x"})
    assert not matches(made, {name: v for name, v in labels.items() if name != "one"})
