"""Spans of time, and how whole hours and single lines cover one. Pure."""

from __future__ import annotations

from typing import NamedTuple

from penstock_cost.ledger import hour_of

__all__ = ["Span", "covering"]


class Span(NamedTuple):
    """From (included) until (excluded), microseconds since 1970, UTC; None does not restrict."""

    from_us: int | None = None
    until_us: int | None = None


def covering(span: Span) -> tuple[Span | None, list[Span]]:
    """The whole hours within a span, if there are any, and what is left at its edges."""
    first = None if span.from_us is None else -hour_of(-span.from_us)
    last = None if span.until_us is None else hour_of(span.until_us)
    if first is not None and last is not None and first >= last:
        return None, [span]
    edges = []
    if span.from_us is not None and first != span.from_us:
        edges.append(Span(span.from_us, first))
    if span.until_us is not None and last != span.until_us:
        edges.append(Span(last, span.until_us))
    return Span(first, last), edges
