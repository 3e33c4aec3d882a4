"""Which hours the rollup answers for, and what is left to single lines."""

from __future__ import annotations

import pytest

from penstock_cost.ledger import HOUR_US as H
from penstock_cost.spans import Span, covering


@pytest.mark.parametrize(
    ("span", "hours", "edges"),
    [
        (Span(), Span(), []),
        (Span(H, 3 * H), Span(H, 3 * H), []),
        (Span(H + 1, None), Span(2 * H, None), [Span(H + 1, 2 * H)]),
        (Span(None, 3 * H - 1), Span(None, 2 * H), [Span(2 * H, 3 * H - 1)]),
        (Span(H - 1, 2 * H + 1), Span(H, 2 * H), [Span(H - 1, H), Span(2 * H, 2 * H + 1)]),
        (Span(H + 1, H + 2), None, [Span(H + 1, H + 2)]),
        (Span(H - 1, H + 1), None, [Span(H - 1, H + 1)]),
        (Span(H, H), None, [Span(H, H)]),
    ],
)
def test_covering(span: Span, hours: Span | None, edges: list[Span]) -> None:
    assert covering(span) == (hours, edges)
