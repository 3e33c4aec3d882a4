"""The report is one page that needs nothing else and says nothing that was not asked for."""

from __future__ import annotations

import datetime as dt
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.v1 import alert_pb2, common_pb2, drift_pb2
from penstock_drift.report import plots
from penstock_drift.report.page import Sample, exemplars, report_page

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
EVIL = "<script>alert('x')</script>"


def exemplar(request_id: str, value: float, offset: int) -> drift_pb2.Exemplar:
    made = drift_pb2.Exemplar(
        request_id=request_id,
        value=value,
        source=common_pb2.Coordinates(topic="responses", partition=2, offset=offset),
    )
    made.event_time.FromDatetime(NOW)
    return made


def evidence(signal: str = "refusal", segment: str = "") -> drift_pb2.SignalEvidence:
    return drift_pb2.SignalEvidence(
        model="triage",
        variant="base",
        segment=segment,
        signal=signal,
        log_evidence=31.25,
        before=drift_pb2.Interval(estimate=0.02, low=0.015, high=0.026),
        after=drift_pb2.Interval(estimate=0.1, low=0.08, high=0.12),
        effect=drift_pb2.Interval(estimate=0.08, low=0.05, high=0.11),
        observations_before=2000,
        observations_after=400,
        votes=[
            drift_pb2.Vote(
                detector="bernoulli(1.5, 2)",
                channel=drift_pb2.DRIFT_CHANNEL_E_DETECTORS,
                log_evidence=31.2,
            ),
            drift_pb2.Vote(
                detector="adwin", channel=drift_pb2.DRIFT_CHANNEL_CALIBRATED, fired=True
            ),
        ],
        histogram=drift_pb2.Histogram(edges=[1, 2, 4], before=[5, 9, 3, 1], after=[1, 2, 9, 6]),
        exemplars_before=[exemplar("req-1", 0, 11)],
        exemplars_after=[exemplar("req-2", 1, 12), exemplar("req-3", 1, 13)],
    )


def alert(
    state: alert_pb2.AlertState.ValueType = alert_pb2.ALERT_STATE_OPENED, minute: int = 0
) -> alert_pb2.Alert:
    made = alert_pb2.Alert(
        alert_id="drift/3f9c/1",
        incident_id="drift/3f9c",
        state=state,
        severity=alert_pb2.SEVERITY_PAGE,
        title=f"refusals of triage/base rose {EVIL}",
        summary="2 % became 10 %",
        service="drift",
        runbook="docs/runbooks/drift.md",
        drift=alert_pb2.DriftIncident(
            model="triage",
            variant="base",
            kind=drift_pb2.DRIFT_KIND_OUTPUT,
            channel=drift_pb2.DRIFT_CHANNEL_E_DETECTORS,
            evidence=[evidence(), evidence("response_tokens", "task=billing")],
            segments=[
                alert_pb2.Contribution(
                    name="task=billing", amount=0.06, share=0.75, within=0.07, mix=-0.01
                ),
                alert_pb2.Contribution(name="task=other", amount=0.02, share=0.25, within=0.02),
            ],
            signals=[
                alert_pb2.Contribution(name="refusal", amount=31.2, share=0.8),
                alert_pb2.Contribution(name="response_tokens", amount=8, share=0.2),
            ],
            causes=[alert_pb2.Cause(name="route_change", reason="version 4 took over at 11:49")],
            commands=["penstock routes history triage"],
            policy_version=3,
        ),
    )
    made.updated_at.FromDatetime(NOW + dt.timedelta(minutes=minute))
    for stamp, minutes in (
        (made.drift.onset, -10),
        (made.drift.onset_earliest, -14),
        (made.drift.onset_latest, -8),
    ):
        stamp.FromDatetime(NOW + dt.timedelta(minutes=minutes))
    return made


HISTORY = [
    alert(),
    alert(alert_pb2.ALERT_STATE_UPDATED, 5),
    alert(alert_pb2.ALERT_STATE_RESOLVED, 50),
]


class Tags(HTMLParser):
    """Checks that tags nest, and keeps what a page could fetch or run."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(**more: object) -> str:
    return report_page(HISTORY, made_at=NOW, **more)  # type: ignore[arg-type]


def test_a_page_nests_and_fetches_and_runs_nothing() -> None:
    tags = Tags()
    tags.feed(page(samples={"req-2": Sample(EVIL, EVIL)}))
    assert tags.open == []
    assert not tags.seen & {"script", "link", "img", "iframe", "object", "base", "form"}
    assert not tags.attributes & {"src", "href", "onload", "onclick", "style"}
    assert EVIL not in page()
    assert "url(" not in page()
    assert "@import" not in page()


def test_a_page_tells_what_is_known() -> None:
    words = alert_pb2.AlertAction(
        acknowledge=alert_pb2.Acknowledgement(incident_id="drift/3f9c", real=True), by="ada"
    )
    text = page(words=words, units={"refusal": "share"})
    for expected in (
        "drift/3f9c",
        "2 % became 10 %",
        "2026-05-01 11:50:00 UTC",
        "between 2026-05-01 11:46:00 UTC and 2026-05-01 11:52:00 UTC",
        "route change</b>: version 4 took over at 11:49",
        "task=billing",
        "together +0.08",
        "bernoulli(1.5, 2)",
        "e^31.2",
        "adwin",
        "fired",
        "responses/2/12",
        "penstock routes history triage",
        "policy version 3",
        "real, by ada",
        "error over patience at alpha",
        "0.02 <span class='note'>(0.015 to 0.026)</span> share",
    ):
        assert expected in text


def test_words_stand_there_only_when_asked_for() -> None:
    samples = {"req-1": Sample("what is my bill", "I cannot help"), "req-2": Sample("", "no")}
    assert "not on the log any more" not in page()
    text = page(samples=samples)
    assert "what is my bill" in text
    assert "I cannot help" in text
    # req-3 has no sample, and each of two signals shows it.
    assert text.count("not on the log any more") == 2
    long = page(samples={"req-1": Sample("", "x" * 10_000)})
    assert "(10000 characters)" in long
    assert "x" * 4001 not in long


def test_each_exemplar_is_fetched_once() -> None:
    assert [each.request_id for each in exemplars(alert())] == ["req-1", "req-2", "req-3"]


def test_an_incident_without_evidence_has_a_page() -> None:
    bare = alert_pb2.Alert(incident_id="drift/1", title="t", drift=alert_pb2.DriftIncident())
    tags = Tags()
    tags.feed(report_page([bare], made_at=NOW))
    assert tags.open == []


finite = st.floats(-1e12, 1e12)


@given(
    st.lists(st.tuples(st.text(max_size=40), finite, finite), max_size=20),
)
def test_contributions_stay_on_the_plot(rows: list[tuple[str, float, float]]) -> None:
    bars = [plots.Bar(name, a + b, (a, b)) for name, a, b in rows]
    within_bounds(plots.contributions(bars, ("within", "mix")))


@given(finite, finite, finite, st.floats(0, 10))
def test_an_interval_stays_on_the_plot(a: float, b: float, c: float, least: float) -> None:
    low, estimate, high = sorted((a, b, c))
    within_bounds(plots.interval(estimate, low, high, least=least))


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), max_size=30))
def test_a_histogram_stays_on_the_plot(counts: list[tuple[int, int]]) -> None:
    labels = [f"<{number}>" for number in range(len(counts))]
    drawn = plots.histogram(labels, [b for b, _ in counts], [a for _, a in counts])
    assert bool(drawn) is any(b or a for b, a in counts)
    within_bounds(drawn)


@given(st.lists(st.tuples(st.floats(0, 2e9), st.text(max_size=90)), max_size=8))
def test_a_timeline_stays_on_the_plot(events: list[tuple[float, str]]) -> None:
    made = [plots.Event(at, name) for at, name in events]
    within_bounds(plots.timeline((1e9, 1e9 + 5), made))


def within_bounds(svg: str) -> None:
    if not svg:
        return
    # Control characters are no XML, and no browser minds them in HTML.
    root = ET.fromstring(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "", svg))
    _, _, width, height = (float(part) for part in root.attrib["viewBox"].split())
    for each in root.iter("rect"):
        x, y, w, h = (float(each.attrib[name]) for name in ("x", "y", "width", "height"))
        assert -0.1 <= x <= x + w <= width + 0.1
        assert -0.1 <= y <= y + h <= height + 0.1


@pytest.mark.parametrize("empty", [plots.contributions([], ()), plots.timeline((0, 1), [])])
def test_nothing_gives_no_plot(empty: str) -> None:
    assert empty == ""
