"""Plots of an incident's report, as SVG to stand within a page: no script, no network. Pure.

Colours are classes that the page's style sheet fills, so that they follow a dark or light page.
Every plot has a text alternative.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from html import escape

__all__ = ["Bar", "Event", "contributions", "histogram", "interval", "timeline"]

WIDTH = 640
LABEL_W = 190


@dataclasses.dataclass(frozen=True)
class Bar:
    """A row of a contributions plot: the parts of its amount, which may point either way."""

    name: str
    amount: float
    parts: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that happened, on a timeline; seconds since 1970."""

    at: float
    name: str
    style: str = "mark"


def histogram(
    labels: Sequence[str], before: Sequence[float], after: Sequence[float], *, unit: str = ""
) -> str:
    """Pairs of bars, each scaled to a share of its own total; empty where there are no values.

    Args:
        labels: One per bin.
        before: Counts by bin.
        after: Counts by bin.
        unit: Of the labels, below the axis.
    """
    sums = sum(before), sum(after)
    if not labels or not any(sums):
        return ""
    shares = [
        [n / (total or 1) for n in counts]
        for counts, total in zip((before, after), sums, strict=True)
    ]
    top = max(max(row) for row in shares) or 1
    height, base, left = 190, 150, 44
    step = (WIDTH - left - 8) / len(labels)
    parts = [_axis(left, base, top)]
    for number, label in enumerate(labels):
        x = left + number * step
        for row, style in ((0, "before"), (1, "after")):
            share = shares[row][number]
            tall = share / top * (base - 16)
            parts.append(
                f'<rect class="{style}" x="{x + step * (0.1 + 0.4 * row):.1f}" '
                f'y="{base - tall:.1f}" width="{step * 0.38:.1f}" height="{tall:.1f}">'
                f"<title>{escape(label)}: {share:.1%} {style}</title></rect>"
            )
        if len(labels) <= 16:
            parts.append(
                f'<text class="tick" text-anchor="end" transform="translate('
                f'{x + step * 0.6:.1f},{base + 12}) rotate(-30)">{escape(_short(label, 12))}</text>'
            )
    parts.append(f'<text class="tick" x="4" y="{height - 4}">{escape(unit)}</text>')
    told = "Histogram before and after the onset"
    return _svg(height, told, parts)


def contributions(bars: Sequence[Bar], names: Sequence[str]) -> str:
    """Horizontal bars around zero, stacked from their parts; empty without bars.

    Args:
        bars: One per row.
        names: Of the parts, which are also the classes `part0`, `part1` and so on.
    """
    if not bars:
        return ""
    row, top = 26, 6
    reach = _scalable(max(_extent(bar.parts) for bar in bars))
    middle = LABEL_W + (WIDTH - LABEL_W - 90) / 2
    scale = (WIDTH - LABEL_W - 90) / 2 / reach
    height = top + row * len(bars) + 6
    parts = [f'<line class="axis" x1="{middle}" x2="{middle}" y1="{top}" y2="{height - 4}"/>']
    for number, bar in enumerate(bars):
        y = top + number * row
        parts.append(
            f'<text class="name" x="{LABEL_W - 8}" y="{y + 15}" text-anchor="end">'
            f"{escape(_short(bar.name, 26))}</text>"
        )
        ends = [0.0, 0.0]  # where the next part to the left, and to the right, begins
        for index, part in enumerate(bar.parts):
            side = part > 0
            start = ends[side]
            ends[side] += part
            low, high = sorted((start, ends[side]))
            parts.append(
                f'<rect class="part{index}" x="{middle + low * scale:.1f}" y="{y + 3}" '
                f'width="{(high - low) * scale:.1f}" height="{row - 9}">'
                f"<title>{escape(bar.name)}, {names[index]}: {part:+.4g}</title></rect>"
            )
        parts.append(f'<text class="tick" x="{WIDTH - 84}" y="{y + 15}">{bar.amount:+.4g}</text>')
    return _svg(height, "Contributions: " + ", ".join(bar.name for bar in bars), parts)


def interval(estimate: float, low: float, high: float, *, least: float = 0.0) -> str:
    """An estimate with its bounds on a line through zero.

    Args:
        estimate: The middle.
        low: Lower bound.
        high: Upper bound.
        least: The least effect that is told, drawn on both sides of zero; 0 draws none.
    """
    reach = _scalable(max(abs(low), abs(high), abs(estimate), least) * 1.15)
    height, y, middle = 44, 18, WIDTH / 2
    scale = (WIDTH / 2 - 20) / reach

    def at(value: float) -> float:
        return middle + max(min(value, reach), -reach) * scale

    parts = [
        f'<line class="axis" x1="20" x2="{WIDTH - 20}" y1="{y}" y2="{y}"/>',
        f'<line class="axis" x1="{middle}" x2="{middle}" y1="{y - 8}" y2="{y + 8}"/>',
        f'<text class="tick" x="{middle}" y="{y + 22}" text-anchor="middle">0</text>',
    ]
    parts += [
        f'<line class="least" x1="{at(side):.1f}" x2="{at(side):.1f}" y1="{y - 8}" y2="{y + 8}"/>'
        for side in ((-least, least) if least else ())
    ]
    parts += [
        f'<rect class="after" x="{at(low):.1f}" y="{y - 4}" '
        f'width="{max(at(high) - at(low), 1):.1f}" height="8"/>',
        f'<circle class="dot" cx="{at(estimate):.1f}" cy="{y}" r="6"/>',
        f'<text class="tick" x="{at(estimate):.1f}" y="{y - 10}" text-anchor="middle">'
        f"{estimate:+.4g}</text>",
    ]
    return _svg(height, f"Effect {estimate:+.4g}, from {low:+.4g} to {high:+.4g}", parts)


def timeline(window: tuple[float, float], events: Sequence[Event]) -> str:
    """Events on a line, the onset's window as a band; empty without events.

    Args:
        window: The onset's bounds, seconds since 1970.
        events: In any order; the onset's estimate among them.
    """
    if not events:
        return ""
    ordered = sorted(events, key=lambda event: event.at)
    first, last = min(ordered[0].at, window[0]), max(ordered[-1].at, window[1])
    span = (last - first) or 1.0
    row, top = 18, 34
    height = top + row * len(ordered) + 4

    def at(instant: float) -> float:
        return 20 + (instant - first) / span * (WIDTH - 40)

    wide = max(at(window[1]) - at(window[0]), 2)
    parts = [
        f'<rect class="band" x="{at(window[0]):.1f}" y="8" width="{wide:.1f}" height="20"/>',
        f'<line class="axis" x1="20" x2="{WIDTH - 20}" y1="18" y2="18"/>',
    ]
    for number, event in enumerate(ordered):
        x, y = at(event.at), top + row * number + 10
        # The words stand on the side where there is room for them.
        end = x > WIDTH / 2
        parts.append(f'<line class="lead" x1="{x:.1f}" x2="{x:.1f}" y1="18" y2="{y - 4}"/>')
        parts.append(f'<circle class="{event.style}" cx="{x:.1f}" cy="18" r="5"/>')
        parts.append(
            f'<text class="name" x="{x + (-6 if end else 6):.1f}" y="{y}" '
            f'text-anchor="{"end" if end else "start"}">{escape(_short(event.name, 70))}</text>'
        )
    return _svg(height, "Timeline: " + "; ".join(e.name for e in ordered), parts)


def _axis(left: float, base: float, top: float) -> str:
    lines = [f'<line class="axis" x1="{left}" x2="{WIDTH - 8}" y1="{base}" y2="{base}"/>']
    for part in (0.5, 1):
        y = base - part * (base - 16)
        lines.append(f'<line class="grid" x1="{left}" x2="{WIDTH - 8}" y1="{y}" y2="{y}"/>')
        lines.append(
            f'<text class="tick" x="{left - 5}" y="{y + 4}" text-anchor="end">'
            f"{part * top:.0%}</text>"
        )
    return "".join(lines)


def _svg(height: float, told: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(told)}">'
        f"{''.join(parts)}</svg>"
    )


def _scalable(reach: float) -> float:
    # Next to nothing is drawn as nothing: dividing by it would overflow.
    return reach if reach > 1e-200 else 1.0


def _extent(parts: Sequence[float]) -> float:
    return max(sum(p for p in parts if p > 0), -sum(p for p in parts if p < 0))


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
