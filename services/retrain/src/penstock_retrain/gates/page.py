"""A report of gates as one page of HTML that needs nothing else: no script, no network. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib import resources

from penstock_retrain.gates.judging import Row, Verdict, Worst
from penstock_retrain.gates.report import GateReport

__all__ = ["gate_page"]

CSP = "default-src 'none'; style-src 'unsafe-inline'"
WIDTH, HEIGHT, MARGIN = 240, 26, 8
_STYLES = {Verdict.PASS: "pass", Verdict.FAIL: "fail", Verdict.NOT_ENOUGH: "wanting"}


def gate_page(report: GateReport) -> str:
    """The page. Its texts are the report's: redact that first (`GateReport.redacted`)."""
    style = (resources.files(__package__) / "page.css").read_text(encoding="utf-8")
    title = f"Gates: {report.candidate.name}, {report.verdict}"
    body = "".join((_head(report), *(_suite(report, each.name) for each in report.suites)))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{CSP}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>"
        f"<body><main>{body}{_foot(report)}</main></body></html>\n"
    )


def _head(report: GateReport) -> str:
    counts = {verdict: sum(row.verdict is verdict for row in report.rows) for verdict in Verdict}
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    facts = {
        "candidate": f"{report.candidate.name} ({report.candidate.digest[:12]})",
        "champion": "none"
        if report.champion is None
        else f"{report.champion.name} ({report.champion.digest[:12]})",
        "rules": f"{len(report.rows)}: {told}",
        "made": f"{report.made_at}, {report.seconds:.0f} s",
    }
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return (
        f"<header>{_badge(report.verdict)}<h1>Gates of {escape(report.candidate.name)}</h1>"
        f"<dl>{rows}</dl></header>"
    )


def _suite(report: GateReport, name: str) -> str:
    run = next(each for each in report.suites if each.name == name)
    rows = [row for row in report.rows if row.suite == name]
    heads = "".join(
        f"<th>{each}</th>"
        for each in ("metric", "slice", "n", "estimate", "bounds", "threshold", "", "verdict")
    )
    worst = "".join(_worst(row) for row in rows)
    return (
        f"<section><h2>{escape(name)}</h2><p>{escape(run.about)}</p><div class='wide'><table>"
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(map(_row, rows))}</tbody></table></div>"
        f"{worst}<p class='note'>{run.examples} examples, suite {run.digest[:12]}</p></section>"
    )


def _row(row: Row) -> str:
    why = f"<div class='note'>{escape(row.reason)}</div>" if row.reason else ""
    if row.estimate is None or row.low is None or row.high is None:
        figures = "<td>–</td><td>–</td>"
    else:
        low, high = _number(row.low), _number(row.high)
        strong = [f"<b>{low}</b>", high] if row.decides == "low" else [low, f"<b>{high}</b>"]
        figures = f"<td>{_number(row.estimate)}</td><td>{' to '.join(strong)}</td>"
    return (
        f"<tr><td>{escape(row.metric)}<div class='note'>{escape(row.rule)}</div></td>"
        f"<td>{escape(row.slice)}</td><td>{row.n}</td>{figures}<td>{_number(row.threshold)}</td>"
        f"<td class='plot'>{_plot(row)}</td><td>{_badge(row.verdict)}{why}</td></tr>"
    )


def _plot(row: Row) -> str:
    """Estimate and bounds on a line, the threshold across it."""
    if row.estimate is None or row.low is None or row.high is None:
        return ""
    marks = (row.low, row.high, row.estimate, row.threshold)
    least, span = min(marks), (max(marks) - min(marks)) or 1.0

    def at(value: float) -> float:
        return MARGIN + (value - least) / span * (WIDTH - 2 * MARGIN)

    middle = HEIGHT / 2
    told = f"{row.estimate:.4g}, {row.low:.4g} to {row.high:.4g}, threshold {row.threshold:.4g}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(told)}">'
        f'<line class="axis" x1="0" x2="{WIDTH}" y1="{middle}" y2="{middle}"/>'
        f'<rect class="{_STYLES[row.verdict]}" x="{at(row.low):.1f}" y="{middle - 4}" '
        f'width="{max(at(row.high) - at(row.low), 2):.1f}" height="8"/>'
        f'<circle class="dot" cx="{at(row.estimate):.1f}" cy="{middle}" r="4"/>'
        f'<line class="threshold" x1="{at(row.threshold):.1f}" x2="{at(row.threshold):.1f}" '
        f'y1="2" y2="{HEIGHT - 2}"/></svg>'
    )


def _worst(row: Row) -> str:
    if not row.worst:
        return ""
    compared = any(each.other is not None for each in row.worst)
    heads = ("example", "score", "question", "expected", "answer", *(("compared with",) * compared))
    head = "".join(f"<th>{each}</th>" for each in heads)
    body = "".join(_example(each, compared) for each in row.worst)
    opened = "" if row.verdict is Verdict.PASS else " open"
    return (
        f"<details{opened}><summary>Worst of {escape(row.metric)}, {escape(row.slice)}</summary>"
        f"<div class='wide'><table class='worst'><tr>{head}</tr>{body}</table></div></details>"
    )


def _example(worst: Worst, compared: bool) -> str:
    expected = worst.expected
    shown = "–" if expected is None else _text(expected)
    cells: Sequence[str] = (
        f"<td><code>{escape(worst.id)}</code></td><td>{_number(worst.score)}</td>"
        f"<td class='said'>{escape(worst.asked)}</td><td class='said'>{escape(shown)}</td>"
        f"<td class='said'>{escape(worst.answered) or '<i>nothing</i>'}</td>",
        f"<td class='said'>{escape(worst.other or '')}</td>" if compared else "",
    )
    return f"<tr>{''.join(cells)}</tr>"


def _foot(report: GateReport) -> str:
    return (
        f"<footer>A rule is passed where the bound in bold meets the threshold, at level "
        f"{report.alpha:g}: a candidate that violates any rule passes all of them with probability "
        f"{report.alpha:g} at most. It is failed where the other bound, at level {report.alpha:g} "
        f"/ {max(len(report.rows), 1)}, misses it: a candidate that violates none is failed with "
        f"probability {report.alpha:g} at most. Anything between shows too little, and does not "
        f"pass. Bounds: exact binomial (Clopper and Pearson) of shares of yes and no, by betting "
        f"(Waudby-Smith and Ramdas) of other means and of pairs.</footer>"
    )


def _badge(verdict: Verdict) -> str:
    return f'<span class="badge {_STYLES[verdict]}">{escape(verdict)}</span>'


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    return f"{value:.4g}"
