"""An incident as one page of HTML that needs nothing else: no script, no network. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from itertools import zip_longest

from google.protobuf.timestamp_pb2 import Timestamp

from penstock.incidents import name_of
from penstock.v1 import alert_pb2, drift_pb2
from penstock_drift.report import plots

__all__ = ["Sample", "exemplars", "report_page"]

CSP = "default-src 'none'; style-src 'unsafe-inline'"
MAX_TEXT = 4000
MAX_SEGMENTS = 12
_PROMISES: dict[int, str] = {
    drift_pb2.DRIFT_CHANNEL_E_DETECTORS: "e-detectors: error over patience at alpha",
    drift_pb2.DRIFT_CHANNEL_CALIBRATED: "calibrated, no guarantee",
}


@dataclasses.dataclass(frozen=True)
class Sample:
    """What an exemplar says in words.

    Attributes:
        asked: The request's words; empty where they are not known.
        answered: The response's words, or the feedback's.
    """

    asked: str
    answered: str


def report_page(
    history: Sequence[alert_pb2.Alert],
    *,
    made_at: dt.datetime,
    units: Mapping[str, str] | None = None,
    samples: Mapping[str, Sample] | None = None,
    words: alert_pb2.AlertAction | None = None,
) -> str:
    """The page of an incident.

    Args:
        history: Its alerts, the oldest first; at least one, and the newest has its drift.
        made_at: When the page is made, UTC.
        units: By signal, where known.
        samples: By request id; None leaves all words out.
        words: The acknowledgement, if there is one.
    """
    alert = history[-1]
    units = units or {}
    body = "".join(
        (
            _head(alert, words),
            _section("When", _when(history)),
            _section("Likely cause", _causes(alert.drift)),
            _section("Where", _segments(alert.drift, units)),
            _section("Which signals", _signals(alert.drift)),
            *(
                _evidence(each, units.get(each.signal, ""), samples)
                for each in alert.drift.evidence
            ),
            _section("Look further", _commands(alert)),
            f"<footer>Made {_iso(made_at)} from the topic alerts, alert {escape(alert.alert_id)}, "
            f"policy version {alert.drift.policy_version}.</footer>",
        )
    )
    style = (resources.files(__package__) / "page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{CSP}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(alert.title)}</title><style>{style}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _head(alert: alert_pb2.Alert, words: alert_pb2.AlertAction | None) -> str:
    drift = alert.drift
    state = alert_pb2.AlertState.Name(alert.state).removeprefix("ALERT_STATE_").lower()
    resolution = f": {drift.resolution}" if drift.resolution else ""
    facts = {
        "incident": alert.incident_id,
        "state": state + resolution,
        "model": drift.model,
        "variant": drift.variant,
        "kind": drift_pb2.DriftKind.Name(drift.kind).removeprefix("DRIFT_KIND_").lower(),
        "promise": _promise(drift.channel),
    }
    if drift.actions:
        facts["asked for"] = ", ".join(drift.actions)
    if words is not None:
        said = words.acknowledge
        verdict = {True: "real", False: "false"}[said.real] if said.HasField("real") else "seen"
        facts["acknowledged"] = f"{verdict}, by {words.by or '?'}. {said.comment}"
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items()
    )
    severity = name_of(alert.severity)
    return (
        f'<header><span class="badge {escape(severity)}">{escape(severity)}</span>'
        f"<h1>{escape(alert.title)}</h1><p>{escape(alert.summary)}</p><dl>{rows}</dl></header>"
    )


def _when(history: Sequence[alert_pb2.Alert]) -> str:
    drift = history[-1].drift
    events = [plots.Event(_seconds(drift.onset), f"{_clock(drift.onset)} onset", "onset")]
    for alert in history:
        state = alert_pb2.AlertState.Name(alert.state).removeprefix("ALERT_STATE_").lower()
        told = f"{_clock(alert.updated_at)} {state}"
        if alert.state == alert_pb2.ALERT_STATE_UPDATED:
            told += f": {alert.title}"
        events.append(plots.Event(_seconds(alert.updated_at), told, state))
    window = _seconds(drift.onset_earliest), _seconds(drift.onset_latest)
    told = (
        f"It began at {_stamp(drift.onset)}, between {_stamp(drift.onset_earliest)} and "
        f"{_stamp(drift.onset_latest)}."
    )
    return f"<p>{told}</p>{plots.timeline(window, events)}"


def _causes(drift: alert_pb2.DriftIncident) -> str:
    items = "".join(
        f"<li><b>{escape(cause.name.replace('_', ' '))}</b>: {escape(cause.reason)}</li>"
        for cause in drift.causes
    )
    return f"<ol>{items}</ol>" if items else ""


def _segments(drift: alert_pb2.DriftIncident, units: Mapping[str, str]) -> str:
    if not drift.segments or not drift.evidence:
        return ""
    lead = drift.evidence[0]
    shown = sorted(drift.segments, key=lambda each: -abs(each.amount))
    bars = [
        plots.Bar(each.name or "all traffic", each.amount, (each.within, each.mix))
        for each in shown[:MAX_SEGMENTS]
    ]
    unit = units.get(lead.signal, "")
    total = sum(each.amount for each in drift.segments)
    rest = len(shown) - len(bars)
    return (
        f"<p>What each segment adds to the change of {escape(lead.signal)}"
        f"{escape(f' ({unit})' if unit else '')}; together {total:+.4g}"
        f"{f', with {rest} smaller ones not shown' if rest > 0 else ''}.</p>"
        f"{_legend(('part0', 'changed within'), ('part1', 'another share of the traffic'))}"
        f"{plots.contributions(bars, ('within', 'mix'))}"
    )


def _signals(drift: alert_pb2.DriftIncident) -> str:
    if len(drift.signals) < 2:
        return ""
    bars = [plots.Bar(each.name, each.amount, (each.amount,)) for each in drift.signals]
    bars.sort(key=lambda bar: -abs(bar.amount))
    return (
        "<p>How much each signal adds to the evidence.</p>"
        f"{plots.contributions(bars[:MAX_SEGMENTS], ('evidence',))}"
    )


def _evidence(
    evidence: drift_pb2.SignalEvidence, unit: str, samples: Mapping[str, Sample] | None
) -> str:
    where = evidence.segment or "all traffic"
    named = f"{escape(evidence.signal)} <small>{escape(where)}</small>"
    suffix = f" {escape(unit)}" if unit else ""
    before, after, effect = evidence.before, evidence.after, evidence.effect
    rows: tuple[tuple[str, str, str], ...] = (
        ("before", _bounds(before) + suffix, f"{evidence.observations_before} values"),
        ("after", _bounds(after) + suffix, f"{evidence.observations_after} values since"),
        ("effect", _bounds(effect, "+"), "deviations of the baseline; of a rate, its own unit"),
        ("evidence", f"e^{evidence.log_evidence:.1f}", "average of the e-detectors"),
    )
    if evidence.route_version_after:
        routes = f"{evidence.route_version_before} to {evidence.route_version_after}"
        rows = (*rows, ("routes", routes, "version"))
    table = "".join(
        f"<tr><th>{name}</th><td>{value}</td><td class='note'>{escape(note)}</td></tr>"
        for name, value, note in rows
    )
    return (
        f"<section><h2>{named}</h2><table>{table}</table>"
        f"{plots.interval(effect.estimate, effect.low, effect.high)}"
        f"{_histogram(evidence, unit)}{_votes(evidence.votes)}{_pairs(evidence, samples)}</section>"
    )


def _histogram(evidence: drift_pb2.SignalEvidence, unit: str) -> str:
    found = evidence.histogram
    labels = list(found.categories) or _bins(found.edges)
    bins = max(len(found.before), len(found.after))
    labels = (labels + [""] * bins)[:bins]
    counts = [(list(row) + [0] * bins)[:bins] for row in (found.before, found.after)]
    plot = plots.histogram(labels, counts[0], counts[1], unit=unit)
    if not plot:
        return ""
    legend = _legend(("before", "before"), ("after", "since the onset"))
    return f"<h3>Values</h3>{legend}{plot}"


def _bins(edges: Sequence[float]) -> list[str]:
    if not edges:
        return []
    return [f"to {edge:.4g}" for edge in edges] + [f"over {edges[-1]:.4g}"]


def _votes(votes: Iterable[drift_pb2.Vote]) -> str:
    rows = "".join(
        f"<tr><td>{escape(vote.detector)}</td><td>{_promise(vote.channel)}</td><td>"
        + (
            ("fired" if vote.fired else "silent")
            if vote.channel == drift_pb2.DRIFT_CHANNEL_CALIBRATED
            else f"e^{vote.log_evidence:.1f}"
        )
        + "</td></tr>"
        for vote in votes
    )
    return f"<details><summary>Detectors</summary><table>{rows}</table></details>" if rows else ""


def _pairs(evidence: drift_pb2.SignalEvidence, samples: Mapping[str, Sample] | None) -> str:
    before, after = evidence.exemplars_before, evidence.exemplars_after
    if not before and not after:
        return ""
    rows = "".join(
        f"<tr>{_exemplar(left, samples)}{_exemplar(right, samples)}</tr>"
        for left, right in zip_longest(before, after)
    )
    return (
        "<h3>Samples</h3><table class='pairs'><tr><th>before</th><th>since the onset</th></tr>"
        f"{rows}</table>"
    )


def _exemplar(each: drift_pb2.Exemplar | None, samples: Mapping[str, Sample] | None) -> str:
    if each is None:
        return "<td></td>"
    place = f"{each.source.topic}/{each.source.partition}/{each.source.offset}"
    text = (
        f"<code>{escape(each.request_id)}</code><br><span class='note'>value {each.value:.4g}, "
        f"{_stamp(each.event_time)}, {escape(place)}</span>"
    )
    if samples is not None:
        sample = samples.get(each.request_id)
        if sample is None:
            text += "<p class='note'>not on the log any more</p>"
        else:
            asked = f"<p class='asked'>{escape(_cut(sample.asked))}</p>" if sample.asked else ""
            text += f"{asked}<p class='answered'>{escape(_cut(sample.answered))}</p>"
    return f"<td>{text}</td>"


def _commands(alert: alert_pb2.Alert) -> str:
    commands = "\n".join(alert.drift.commands)
    shown = f"<pre>{escape(commands)}</pre>" if commands else ""
    book = f"<p>Runbook: <code>{escape(alert.runbook)}</code></p>" if alert.runbook else ""
    return shown + book


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def _legend(*entries: tuple[str, str]) -> str:
    return (
        "<p class='legend'>"
        + "".join(f"<i class='{style}'></i>{escape(name)} " for style, name in entries)
        + "</p>"
    )


def _promise(channel: int) -> str:
    return _PROMISES.get(channel, "-")


def _bounds(found: drift_pb2.Interval, sign: str = "") -> str:
    return (
        f"{found.estimate:{sign}.4g} <span class='note'>({found.low:{sign}.4g} to "
        f"{found.high:{sign}.4g})</span>"
    )


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} … ({len(text)} characters)"


def _seconds(stamp: Timestamp) -> float:
    return stamp.ToNanoseconds() / 1e9


def _stamp(stamp: Timestamp) -> str:
    return _iso(stamp.ToDatetime(dt.UTC))


def _clock(stamp: Timestamp) -> str:
    return stamp.ToDatetime(dt.UTC).strftime("%H:%M:%S")


def _iso(instant: dt.datetime) -> str:
    return instant.isoformat(sep=" ", timespec="seconds").replace("+00:00", " UTC")


def exemplars(alert: alert_pb2.Alert) -> Iterator[drift_pb2.Exemplar]:
    """Every exemplar of an alert, each request once."""
    seen = set()
    for evidence in alert.drift.evidence:
        for each in (*evidence.exemplars_before, *evidence.exemplars_after):
            if each.request_id not in seen:
                seen.add(each.request_id)
                yield each
