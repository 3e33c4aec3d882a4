"""Findings that began together are one incident; people hear of it as often as it matters."""

from __future__ import annotations

import dataclasses

from penstock_drift.findings.causes import NEAR_MS
from penstock_drift.findings.events import Watch
from penstock_drift.findings.incidents import Incidents, News, Phase, leader
from penstock_drift.policy.document import Severity
from penstock_drift.records.evidence import Channel, Entry
from penstock_drift.records.values import Key
from tests.unit.drift.toy import ToyChannel

E = Channel.E_DETECTORS
WHOLE, PART = Key("m", "v"), Key("m", "v", "task=a")


def entry(
    signal: str, key: Key = WHOLE, onset_ms: int = 1_000_000, strength: float = 15.0
) -> Entry:
    evidence = ToyChannel(signal, {"n": 8, "sum": strength}).evidence()
    return Entry(
        key,
        dataclasses.replace(
            evidence,
            onset_ms=onset_ms,
            onset_earliest_ms=onset_ms - 5000,
            onset_latest_ms=onset_ms + 5000,
        ),
        3,
    )


def add(incidents: Incidents, found: Entry, severity: Severity = Severity.TICKET) -> str:
    return incidents.add(found, E, severity, "", 1_100_000).incident_id


def phases(news: list[News]) -> list[Phase]:
    return [each.phase for each in news]


def test_what_began_together_is_one_incident_and_told_once_a_tick() -> None:
    incidents = Incidents()
    ids = {add(incidents, entry("latency", key)) for key in (PART, WHOLE, Key("m", "v", "task=b"))}
    assert len(ids) == 1
    (news,) = incidents.news()
    assert news.phase is Phase.OPENED
    assert leader(news.incident).entry.key == WHOLE
    assert incidents.news() == []


def test_what_began_at_another_time_or_is_of_another_kind_is_another() -> None:
    incidents = Incidents()
    first = add(incidents, entry("latency", PART))
    later = entry("latency", Key("m", "v", "task=b"), onset_ms=1_000_000 + NEAR_MS + 10_001)
    just = entry("latency", Key("m", "v", "task=b"), onset_ms=1_000_000 + NEAR_MS + 10_000)
    assert add(incidents, later) != first
    assert add(incidents, just) == first
    assert add(incidents, entry("refusal", PART)) != first
    assert add(incidents, entry("latency", Key("m", "w"))) != first


def test_all_traffic_inhibits_its_segments_whenever_they_began() -> None:
    incidents = Incidents()
    first = add(incidents, entry("latency"))
    incidents.news()
    assert add(incidents, entry("latency", PART, onset_ms=9_000_000)) == first
    assert incidents.news() == []


def test_another_segment_and_more_urgency_are_news() -> None:
    incidents = Incidents()
    add(incidents, entry("latency", PART))
    incidents.news()
    add(incidents, entry("latency", Key("m", "v", "task=b")))
    assert phases(incidents.news()) == [Phase.UPDATED]
    add(incidents, entry("latency"), Severity.PAGE)
    (news,) = incidents.news()
    assert (news.phase, news.incident.severity) == (Phase.UPDATED, Severity.PAGE)
    # Urgency does not fall while it is open, and the same finding again is no news.
    add(incidents, entry("latency"), Severity.INFO)
    assert incidents.news() == []


def test_it_is_over_with_its_last_finding() -> None:
    incidents = Incidents()
    name = add(incidents, entry("latency"))
    add(incidents, entry("latency", PART))
    incidents.news()
    incidents.end(name, Watch(WHOLE, "latency"), "recovered")
    assert incidents.news() == []
    incidents.end(name, Watch(PART, "latency"), "silent")
    (news,) = incidents.news()
    assert (news.phase, news.incident.resolution) == (Phase.RESOLVED, "silent")
    found = incidents.changes()
    assert [each.incident_id for each in found.over] == [name]
    assert (found.incidents, found.members, len(incidents)) == ({}, {}, 0)
    later = incidents.add(entry("latency"), E, Severity.TICKET, "", 1_200_000)
    assert later.incident_id != name


def test_a_finding_that_comes_back_stays_in_its_incident() -> None:
    incidents = Incidents()
    name = add(incidents, entry("latency", PART))
    other = add(incidents, entry("latency", PART, onset_ms=9_000_000))
    assert other == name
    back = incidents.add(entry("latency", PART), E, Severity.TICKET, "", 1_200_000, known=name)
    assert back.incident_id == name
